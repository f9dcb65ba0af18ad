"""What to compare and how, fixed before the run and written with it.  Unknown keys are refused."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gainlens.core.vocabulary import Reduction, Role, Split, TokenClass

Backend = Literal["auto", "hooked", "bridge", "native"]
Dtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
AblationHow = Literal["zero", "mean", "resample"]
SweepHow = Literal["zero", "mean"]
HOWS: tuple[str, ...] = get_args(AblationHow)


class Spec(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Spec):
    """One model of a comparison, and what the notebook said of it where it did."""

    key: str
    """name within the comparison, key of result.json's `models`"""
    hf_name: str
    """hub name or local directory"""
    role: Role
    label: str | None = None
    """name in tables and figures; the key where not given"""
    context_length: int | None = None
    expected_rope_theta: float | None = None
    prediction: str | None = None
    family: str | None = None


class Rule(Spec):
    """How the verdict is reached.  DESIGN section 7: fixed before the run."""

    token_class: TokenClass = "ordinary"
    reduction: Reduction = "geomean"
    split: Split = "logmean"
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    min_prompts: int = Field(default=16, ge=3)
    resamples: int = Field(default=2000, ge=200)
    seed: int = Field(default=0, ge=0)
    massive_ratio: float = Field(default=10.0, gt=1.0)
    """a token is massive from this many times the median norm at some block's input"""
    equivalence: float = Field(default=0.01, gt=0.0)
    """a gain within 1 +- this counts as equivalent to 1"""


class Ablation(Spec):
    """One site replaced while the model is measured a second time."""

    site: str
    """TransformerLens hook name; blocks count from the end where negative"""
    how: AblationHow


def parse_ablation(text: str) -> Ablation:
    """SITE=HOW as an Ablation; ValueError for anything else."""
    site, sign, how = text.partition("=")
    if not (site and sign and how in HOWS):
        raise ValueError(
            f"an ablation is SITE=HOW with HOW one of {', '.join(HOWS)}, such as "
            f"blocks.-1.hook_mlp_out=zero; got {text!r}"
        )
    return Ablation.model_validate({"site": site, "how": how})


class ComparisonSpec(Spec):
    """A whole run."""

    name: str
    models: tuple[ModelSpec, ...]
    prompts: str = "mixed"
    tokens: int | None = Field(default=None, ge=2)
    rule: Rule = Rule()
    backend: Backend = "auto"
    dtype: Dtype | None = None
    """None: float32 on CPU, the checkpoint's own on CUDA"""
    device: Device = "auto"
    revision: str | None = None
    allow_extrapolation: bool = False
    trust_remote_code: bool = False
    sweep: int = Field(default=1, ge=0)
    """the last so many blocks have every component ablated in turn; 0: no sweep"""
    sweep_how: tuple[SweepHow, ...] = Field(default=("zero",), min_length=1)
    sweep_heads: bool = False
    """each attention head on its own as well"""
    theta: tuple[float, ...] | None = None
    """RoPE bases under which the same weights are measured again; None: those of the short and the
    long model; empty: none"""
    ablate: tuple[Ablation, ...] = ()
    """applied together, for a second measurement beside the first"""
    controls: bool = False
    """massive activations set to their mean and to zero, BOS dropped and doubled"""

    @model_validator(mode="after")
    def _each_site_once(self) -> "ComparisonSpec":
        sites = [ablation.site for ablation in self.ablate]
        twice = [site for site in sites if sites.count(site) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is ablated twice: give each site once")
        return self

    @model_validator(mode="after")
    def _theta_is_a_base(self) -> "ComparisonSpec":
        wrong = [theta for theta in self.theta or () if not 1 < theta < float("inf")]
        if wrong:
            raise ValueError(f"a RoPE base is a number above 1, such as 500000; got {wrong[0]:g}")
        return self

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
        """The first model of a role."""
        return next(model for model in self.models if model.role == role)
