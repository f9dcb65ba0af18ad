"""Declare every option of a run: its type, bounds, default and help.

The command generates its flags from these fields (cli.options).  A spec is frozen, is written into
result.json, and refuses unknown keys.
"""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gainlens.core.vocabulary import Reduction, Role, Split, TokenClass

Backend = Literal["auto", "hooked", "bridge", "native"]
Dtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
AblationHow = Literal["zero", "mean", "resample"]
SweepHow = Literal["zero", "mean"]
HOWS: tuple[str, ...] = get_args(AblationHow)


class Spec(BaseModel):
    """Set what all specs share: they are frozen and refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Spec):
    """Name one model of a comparison, and what the notebook said about it."""

    key: str
    """name within the comparison, key of result.json's `models`"""
    hf_name: str
    """hub name or local directory"""
    role: Role
    label: str | None = None
    """name in tables and figures; None: the key"""
    context_length: int | None = None
    expected_rope_theta: float | None = None
    prediction: str | None = None
    family: str | None = None


class Rule(Spec):
    """Fix how the verdict is reached, before the run."""

    token_class: TokenClass = "ordinary"
    reduction: Reduction = "geomean"
    split: Split = "logmean"
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1.0, description="Confidence of every interval."
    )
    min_prompts: int = Field(
        default=16, ge=3, description="With fewer prompts the verdict is UNDETERMINED."
    )
    resamples: int = Field(default=20_000, ge=200, description="Resamples of the bootstrap.")
    seed: int = Field(default=0, ge=0, description="Seed of the bootstrap.")
    massive_ratio: float = Field(default=10.0, gt=1.0)
    """a token is massive from this many times the median norm at some block's input"""
    equivalence: float = Field(default=0.01, gt=0.0)
    """a gain within 1 +- this counts as equivalent to 1"""


class Ablation(Spec):
    """Name one site that is replaced while the model is measured again."""

    site: str
    """TransformerLens hook name; negative blocks count from the end"""
    how: AblationHow

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """Read SITE=HOW, as the command gives it."""
        return parse_ablation(value) if isinstance(value, str) else value


def parse_ablation(text: str) -> dict[str, str]:
    """Return SITE=HOW as the fields of an Ablation; raise ValueError for any other text."""
    site, sign, how = text.partition("=")
    if not (site and sign and how in HOWS):
        raise ValueError(
            f"an ablation is SITE=HOW with HOW one of {', '.join(HOWS)}, such as "
            f"blocks.-1.hook_mlp_out=zero; got {text!r}"
        )
    return {"site": site, "how": how}


class RunSpec(Spec):
    """Declare the options that every kind of run has."""

    name: str
    prompts: str = Field(
        default="mixed",
        description="notebook, mixed, english, code, long, "
        "or a text or JSONL file with one prompt per line.",
    )
    long_prompts: int = Field(
        default=36, ge=2, description="How many texts `--prompts long` takes."
    )
    """33 give 80 % power: see `prompts_needed` and docs/method/verdict.md"""
    rule: Rule = Rule()
    backend: Backend = Field(
        default="auto", description="The kind of model that carries the hooks."
    )
    dtype: Dtype | None = Field(
        default=None, description="[default: float32 on CPU, the checkpoint's own on CUDA]"
    )
    device: Device = Field(default="auto", description="Where the models run.")
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens per batch, padding included. [default: what suits the device]",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of hub models.")
    allow_extrapolation: bool = Field(
        default=False, description="Measure beyond the context that a model was made for."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run code that comes with a checkpoint."
    )
    sweep: int = Field(
        default=1, ge=0, description="Ablate every component of the last N blocks in turn."
    )
    sweep_how: tuple[SweepHow, ...] = Field(
        default=("zero",), min_length=1, description="Replace by 0, or by the mean over prompts."
    )
    sweep_heads: bool = Field(default=False, description="Ablate each attention head as well.")
    theta: tuple[float, ...] | None = Field(
        default=None,
        description="Measure the same weights again under this RoPE base. "
        "[default: the short and the long model's]",
    )
    """empty: no theta is swapped"""
    ablate: tuple[Ablation, ...] = Field(
        default=(),
        description="Measure again with SITE=HOW ablated, such as blocks.-1.hook_mlp_out=zero. "
        "HOW is zero, mean or resample. Several are applied together.",
    )
    controls: bool = Field(
        default=False,
        description="Set massive activations to their mean and to 0; drop and double BOS.",
    )

    @model_validator(mode="after")
    def _each_site_once(self) -> "RunSpec":
        sites = [ablation.site for ablation in self.ablate]
        twice = [site for site in sites if sites.count(site) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is ablated twice: give each site once")
        return self

    @model_validator(mode="after")
    def _theta_is_a_base(self) -> "RunSpec":
        wrong = [theta for theta in self.theta or () if not 1 < theta < float("inf")]
        if wrong:
            raise ValueError(f"a RoPE base is a number above 1, such as 500000; got {wrong[0]:g}")
        return self


class ComparisonSpec(RunSpec):
    """Fix a comparison: the models, the prompts, the rule and the interventions."""

    models: tuple[ModelSpec, ...]
    tokens: int | None = Field(
        default=None, ge=2, description="Cut or join prompts to exactly N tokens."
    )

    @model_validator(mode="after")
    def _one_short_one_long(self) -> "ComparisonSpec":
        roles = [model.role for model in self.models]
        if roles.count("short") != 1 or roles.count("long") != 1:
            raise ValueError(
                "a comparison needs one short-context and one long-context model, "
                f"got the roles {', '.join(roles)}"
            )
        keys = [model.key for model in self.models]
        if len(set(keys)) != len(keys):
            raise ValueError(f"model keys must differ, got {keys}")
        return self

    def model(self, role: Role) -> ModelSpec:
        """Return the first model of a role."""
        return next(model for model in self.models if model.role == role)


class MeasureSpec(RunSpec):
    """Fix a measurement without a claim; it intervenes only if asked to."""

    models: tuple[str, ...]
    """hub names, directories, or NAME@REVISION"""
    series: bool = Field(
        default=False,
        description="The models are checkpoints along training, in the order of their steps.",
    )
    tokens: tuple[int, ...] = ()
    """prompt lengths; empty: prompts as they are"""
    metric: tuple[str, ...] = Field(
        default=(),
        description="A metric to tabulate as well, by name or as module:function.",
    )
    heads: bool = Field(
        default=False, description="Measure the part of every attention head as well."
    )
    sweep: int = Field(
        default=0, ge=0, description="Ablate every component of the last N blocks in turn."
    )
    theta: tuple[float, ...] | None = Field(
        default=(), description="Measure the same weights again under this RoPE base."
    )

    @model_validator(mode="after")
    def _lengths_are_prompts(self) -> "MeasureSpec":
        short = [length for length in self.tokens if length < 2]
        if short:
            raise ValueError(f"--tokens needs lengths of at least 2 tokens; got {short[0]}")
        return self
