"""Every record that crosses a stage.  numpy only: read this file and you know the data flow.

    prompts      -> EncodedPrompts            texts as one model's token ids
    checkpoints  -> Checkpoint                what was loaded, and how it was checked
    capturing    -> Capture                   a token's inner products at every block; no vector
    gain         -> Decomposition             log gains, their split, and token classes
    unembed/rope -> UnembedReport, RopeReport
    stats        -> Interval
    interventions -> Interventions           what ablations and another theta change
    verdict      -> ModelReport, Verdict      everything that is said
    store        -> Comparison                one run, whole

Nothing here is changed once made.  Unknown is NaN (or None) with a reason beside it, never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from gainlens.axes import (
    GRAM_COLUMNS,
    Behaviour,
    ClassSelection,
    Reduction,
    Role,
    Split,
    check_one_of,
)
from gainlens.spec import ComparisonSpec

Floats = np.ndarray
"""Shorthand for annotations outside jaxtyping; always float64."""


@dataclass(frozen=True)
class EncodedPrompts:
    """Texts as the token ids of one model's tokenizer."""

    source: str
    """name of the prompt set, or the file it came from"""
    sha256: str
    """of the canonical JSON of ids and texts, before any cutting"""
    ids: tuple[str, ...]
    """one name a prompt"""
    tokens: tuple[Int64[np.ndarray, " _"], ...]
    """token ids [position], one array a prompt; the axis is unnamed since lengths differ"""
    bos: bool
    """whether position 0 holds a BOS token (Qwen2 prepends none)"""
    cut: int
    """how many prompts were shortened to fit"""
    left_out: tuple[str, ...]
    """names of prompts that could not be used, with the reason"""
    note: str = ""
    """what a reader must know to get the same texts again; empty where `source` is enough"""


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded, where from, and what the check at load found."""

    name: str
    """key of the model within a comparison"""
    hf_name: str
    """hub name or directory as given"""
    revision: str | None
    """commit hash of a hub model, else None"""
    backend: str
    dtype: str
    architecture: str
    num_layers: int
    num_heads: int
    d_model: int
    d_vocab: int
    context: int
    """max_position_embeddings, tokens"""
    config: Mapping[str, Any]
    """the Hugging Face config as a plain dictionary, for identification"""
    training: Mapping[str, Any] | None
    """the `compared` block of training.json beside the weights, else None: training unknown"""
    additivity: float
    """largest |x+a+m-y| / (|x|+|a|+|m|+|y|) over blocks and tokens of the check prompt"""
    logits_kl: float | None
    """largest KL divergence over tokens from the Hugging Face model's logits, nats; None when the
    Hugging Face model is itself what is measured (native)"""
    weights: str | None = None
    """sha256 that names a directory's weights (digest.py); None for a hub model, whose commit does,
    and in results from before it was taken"""


@dataclass(frozen=True)
class Capture:
    """The sufficient statistics of one model on one set of prompts: no activation is kept."""

    prompt: Int64[np.ndarray, " token"]
    """index of the prompt that a token belongs to, ascending"""
    position: Int64[np.ndarray, " token"]
    """position within the prompt, from 0"""
    token_id: Int64[np.ndarray, " token"]
    gram: Float[np.ndarray, "column layer token"]
    """inner products in the order of axes.GRAM_COLUMNS; squared L2 norm; float32, as accumulated:
    `column` gives them for algebra"""
    top_value: Float[np.ndarray, "layer token rank"]
    """the largest |components| of resid_post with their sign, largest first; float32"""
    top_index: Int[np.ndarray, "layer token rank"]
    """their dimensions in d_model; int32"""
    normed: Float64[np.ndarray, " token"]
    """|ln_final(resid_post of the last block)|, L2 norm"""
    visible: Float64[np.ndarray, "component token"] | None = None
    """share of the squared norm of the last block's attention and MLP write that lies in the top-k
    right singular subspace of the centred W_U; None where not asked for; chance is k / d_model"""
    null: Float64[np.ndarray, "component token"] | None = None
    """the same for the bottom-k subspace: what W_U can hardly see"""
    sink: Float64[np.ndarray, "layer head prompt"] | None = None
    """attention weight on position 0, mean over later queries; None where there are no patterns"""
    heads: Float64[np.ndarray, "layer head head_column token"] | None = None
    """of every head's write its inner products with resid_pre and resid_post, and its squared norm,
    in the order of axes.HEAD_COLUMNS; squared L2 norm; None where not asked for"""
    token_text: tuple[str, ...] | None = None
    """every token's text, decoded alone, for the reader; None where nobody asked for it"""

    def column(self, name: str) -> Float64[np.ndarray, "layer token"]:
        """One Gram column by name, [layer, token], squared L2 norm, float64."""
        return self.gram[GRAM_COLUMNS.index(name)].astype(np.float64)

    @property
    def num_prompts(self) -> int:
        return int(self.prompt[-1]) + 1 if len(self.prompt) else 0


@dataclass(frozen=True)
class Decomposition:
    """Log gain of every block on every token, split into components, in nats."""

    split: Split
    log_gain: Float64[np.ndarray, "layer token"]
    attention: Float64[np.ndarray, "layer token"]
    mlp: Float64[np.ndarray, "layer token"]
    remainder: Float64[np.ndarray, "layer token"]
    """log_gain - attention - mlp: rounding of the model's own additions"""
    final_norm: Float64[np.ndarray, " token"]
    """ln(|ln_final(y)| / |y|) after the last block"""
    norm_in: Float64[np.ndarray, "layer token"]
    """|resid_pre|, L2 norm"""
    norm_out: Float64[np.ndarray, "layer token"]
    """|resid_post|, L2 norm"""
    prompt: Int64[np.ndarray, " token"]
    position: Int64[np.ndarray, " token"]
    is_bos: Bool[np.ndarray, " token"]
    """position 0, BOS token or not"""
    is_massive: Bool[np.ndarray, " token"]
    """massive and not position 0"""

    @property
    def is_ordinary(self) -> Bool[np.ndarray, " token"]:
        return ~(self.is_bos | self.is_massive)

    def tokens_of(self, selection: ClassSelection) -> Bool[np.ndarray, " token"]:
        """Mask of the tokens of a class; `all` is every token."""
        if selection == "all":
            return np.ones_like(self.is_bos)
        return {"bos": self.is_bos, "massive": self.is_massive, "ordinary": self.is_ordinary}[
            selection
        ]


@dataclass(frozen=True)
class PromptGains:
    """One log gain a prompt and block, with its parts, under one class and reduction; nats."""

    selection: ClassSelection
    reduction: Reduction
    log_gain: Float64[np.ndarray, "layer prompt"]
    """NaN where a prompt has no token of the class"""
    attention: Float64[np.ndarray, "layer prompt"]
    mlp: Float64[np.ndarray, "layer prompt"]
    remainder: Float64[np.ndarray, "layer prompt"]


@dataclass(frozen=True)
class NotebookResidual:
    """The notebook's residual statistics, in its convention and under its names."""

    norms: tuple[float, ...]
    """mean L2 norm over positions of each hidden state; the last entry after the final norm"""
    gains: tuple[float, ...]
    embedding_norm: float
    final_norm: float
    initial_gain: float
    last_gain: float
    last_expands: bool
    cumulative_energy: float
    num_layers: int
    contracting_layers: int
    expanding_layers: int
    true_last_gain: float
    """mean |resid_post| over mean |resid_pre| of the last block: what last_gain was taken for"""
    final_norm_gain: float
    """mean |ln_final(y)| over mean |y|: last_gain = true_last_gain * final_norm_gain"""


@dataclass(frozen=True)
class UnembedReport:
    """W_U = lm_head [d_vocab, d_model]: the notebook's numbers, and the fair ones."""

    shape: tuple[int, int]
    vocab_size: int
    hidden_dim: int
    frobenius_norm: float
    spectral_norm: float
    mean_row_norm: float
    sigma_per_sqrt_vocab: float
    edge_ratio: float
    stable_rank: float
    effective_rank: float
    mean_row_cosine: float
    """|cos| of the top right singular vector with the mean row"""
    spectrum: Float64[np.ndarray, " rank"]
    """singular values, largest first"""
    centred_spectrum: Float64[np.ndarray, " rank"]
    """of W_U minus its mean row (what softmax can see)"""
    folded_spectrum: Float64[np.ndarray, " rank"]
    """of W_U with ln_final's weight folded in, and for a LayerNorm the mean that it takes off"""
    subspace_rank: int
    """k of the visible and the null subspace"""
    tied: bool
    """whether lm_head shares the embedding's weights"""


@dataclass(frozen=True)
class RopeReport:
    """What the config says about RoPE, and what the model's rotary buffers do."""

    rope_theta: float | None
    """None where the model has no RoPE"""
    rope_scaling: Mapping[str, Any] | None
    max_position: int | None
    measured_theta: float | None
    """base recovered from the rotary buffers"""
    wavelengths: Float64[np.ndarray, " rank"]
    """tokens a turn, one a rotated pair of dimensions, after scaling"""
    beyond_context: float
    """fraction of rotated dimensions whose wavelength exceeds max_position"""
    theta_bound: float | None
    """lower bound 0.0424 c^1.628 on theta for context c (Men et al. 2024, arXiv 2405.14591)"""


@dataclass(frozen=True)
class Interval:
    """An estimate with its doubt."""

    estimate: float
    low: float
    """NaN where no interval can be given; `status` says why"""
    high: float
    n: int
    """independent units behind it"""
    confidence: float
    method: str
    status: str = "ok"

    @property
    def known(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class BlockGain:
    """One block under the primary estimand."""

    layer: int
    log_gain: float
    """nats, unweighted mean over prompts"""
    attention: float
    mlp: float
    remainder: float
    gain: float
    """exp(log_gain)"""
    low: float
    """of the simultaneous band over blocks, as a ratio"""
    high: float


@dataclass(frozen=True)
class GainCell:
    """The last block under one way of measuring it."""

    token_class: ClassSelection
    reduction: Reduction
    lengths: str
    """`all`, or the `short` or `long` half of the prompts by their number of tokens"""
    after_final_norm: bool
    """True: |ln_final(y)|/|x|, the notebook's kind of number, blind to the last block"""
    log_gain: Interval
    behaviour: Behaviour | None
    """None where the cell has no data or too few prompts; log_gain.status says which"""


@dataclass(frozen=True)
class MassiveToken:
    """The life of one massive token (or of position 0)."""

    prompt: int
    position: int
    token_id: int
    text: str
    written_by: int | None
    """block that raises it most above the ordinary tokens, None if it enters massive"""
    written_component: str | None
    """attention or mlp, by the larger logmean part of that block"""
    erased_by: int | None
    """first block after which its norm is below half of its highest, None if there is none"""
    erased_component: str | None
    plateau: float
    """median L2 norm between the two"""
    dims: tuple[int, ...]
    """dimensions of d_model that carry it, largest first"""


@dataclass(frozen=True)
class LastBlock:
    """What is said of a model's last block, as it is or under an intervention."""

    log_gain: Interval
    """primary estimand, nats; the token classes are those of the model as it is"""
    notebook_last_gain: float
    """notebook's convention, on the notebook's sentence; ratio"""
    loss: Interval
    """mean over prompts of the next-token loss, nats per token"""
    behaviour: Behaviour | None
    """None where the interval is not known or there are too few prompts"""


@dataclass(frozen=True)
class Change:
    """A model before and after one intervention; differences are paired over prompts."""

    before: LastBlock
    after: LastBlock
    delta_log_gain: Interval
    """after minus before, nats"""
    delta_loss: Interval
    """after minus before, nats per token"""


@dataclass(frozen=True)
class AblationEffect:
    """One component ablated."""

    site: str
    """TransformerLens' hook name with the block counted from the end, so that models of different
    depth compare: blocks.-1.hook_mlp_out"""
    how: str
    """zero or mean"""
    change: Change
    last_block: Float64[np.ndarray, " prompt"]
    """per-prompt log gain of the last block under it, primary estimand, nats"""


@dataclass(frozen=True)
class AblatedVerdict:
    """The outcome with one component ablated in either model, and in both."""

    site: str
    how: str
    before: str
    short_ablated: str
    long_ablated: str
    both_ablated: str
    difference: Interval
    """long minus short, log gain of the last block with the component ablated in both, nats"""

    @property
    def decides(self) -> bool:
        """Whether the outcome depends on this component: a decided one becomes another."""
        after = (self.short_ablated, self.long_ablated, self.both_ablated)
        return any(outcome != self.before for outcome in after)


@dataclass(frozen=True)
class ThetaDose:
    """The same weights under one RoPE base."""

    theta: float
    """RoPE base; scaling stays as it is"""
    own: bool
    """whether this is the base that the model was trained with"""
    change: Change
    """from the model's own base"""
    last_block: Float64[np.ndarray, " prompt"]
    """per-prompt log gain of the last block under this base, primary estimand, nats"""


@dataclass(frozen=True)
class ThetaDifference:
    """Short and long model under one RoPE base, each with its own weights."""

    theta: float
    """RoPE base that both are under"""
    difference: Interval
    """long minus short, log gain of the last block, nats"""


@dataclass(frozen=True)
class AblatedModel:
    """The model measured a second time, under the ablations that were asked for."""

    layers: tuple[BlockGain, ...]
    """every block under them; the token classes are those of the model as it is"""
    change: Change


@dataclass(frozen=True)
class ControlEffect:
    """An intervention on tokens or on massive activations rather than on a component."""

    name: str
    """massive to mean, massive to zero, BOS dropped or BOS doubled"""
    note: str
    """how many tokens it touches, or why it touches none"""
    change: Change | None
    """None where there is nothing to intervene on"""
    curve_before: Float64[np.ndarray, " layer"]
    """log gain of every block under the primary estimand, mean over prompts, nats"""
    curve_after: Float64[np.ndarray, " layer"]
    """the same under the intervention"""


@dataclass(frozen=True)
class Interventions:
    """What was done to one model, and what it changed."""

    sweep: tuple[AblationEffect, ...] = ()
    """every component of the last blocks in turn, from the last block back"""
    theta_dose: tuple[ThetaDose, ...] = ()
    """in rising order of theta, the model's own among them"""
    notes: tuple[str, ...] = ()
    """what could not be done, and why"""
    ablated: AblatedModel | None = None
    """under --ablate; None where none was asked for"""
    controls: tuple[ControlEffect, ...] = ()
    """massive activations to their mean and to zero, BOS dropped and doubled; where asked for"""


@dataclass(frozen=True)
class ModelReport:
    """Everything measured on one model."""

    role: Role
    checkpoint: Checkpoint
    residual: NotebookResidual
    unembed: UnembedReport
    rope: RopeReport
    layers: tuple[BlockGain, ...]
    cells: tuple[GainCell, ...]
    last_block: Float64[np.ndarray, " prompt"]
    """per-prompt log gain of the last block under the primary estimand, nats"""
    behaviour: Behaviour | None
    equivalent: bool | None
    """whether the interval lies within 1 +- the spec's margin: FLAT alone is not equality"""
    massive: tuple[MassiveToken, ...]
    prompts: EncodedPrompts
    scale_control: float
    """largest change of a logit, as a share of the largest |logit|, when the last stream is scaled
    by 2: the final norm forgets scale, so a number after it cannot show the last block's gain"""
    halves_control: Interval
    """the same model against itself on disjoint halves of the prompts, log gain, nats"""
    visible_share: tuple[float, float] | None = None
    """mean of Capture.visible over ordinary tokens, for attention and for the MLP; NaN for one
    that writes nothing"""
    interventions: Interventions = Interventions()


@dataclass(frozen=True)
class Effect:
    """One effect on the last block's log gain, nats."""

    factor: str
    """theta, context, or theta:context (the interaction)"""
    unit: str
    """what the interval is over: prompts, or seeds"""
    at: str
    """equal tokens or equal loss"""
    log_gain: Interval


@dataclass(frozen=True)
class Identification:
    """Whether the two models differ in nothing but theta and context."""

    controlled: bool
    differing: tuple[str, ...]
    """config and training fields that differ otherwise, `training unknown` included"""


@dataclass(frozen=True)
class Verdict:
    """What can be said of the claim, and how far to trust it."""

    outcome: str
    """CONFIRMED, REJECTED, UNEXPECTED, INVERTED or UNDETERMINED"""
    robust: bool
    dissent: tuple[str, ...]
    """cells that would have said otherwise; those after the final norm are marked blind"""
    undecided: tuple[str, ...]
    """cells that say nothing either way"""
    premise: bool | None
    """does the long model have the larger theta and context; None if not known"""
    difference: Interval
    """long minus short, log gain of the last block, nats; paired over prompts where possible"""
    paired: bool
    identification: Identification
    attribution: tuple[Effect, ...]
    attribution_note: str
    reasons: tuple[str, ...]
    headline: str
    """one sentence"""
    components: tuple[AblatedVerdict, ...] = ()
    """the outcome with each swept component ablated in either model, and in both"""
    at_theta: tuple[ThetaDifference, ...] = ()
    """the difference with both models under one theta, in rising order"""
    ablated_outcome: str | None = None
    """the outcome under --ablate, in both models; None where none was asked for"""


@dataclass(frozen=True)
class HypothesisTest:
    """The notebook's rule and strings, to the letter."""

    short_expands: bool
    long_expands: bool
    theta_ratio: float
    gain_ratio: float
    wu_ratio: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """One run, whole."""

    spec: ComparisonSpec
    date: str
    """ISO 8601, UTC"""
    seconds: float
    """of loading, measuring and judging"""
    reports: tuple[ModelReport, ...]
    captures: Mapping[str, Capture]
    """by model key"""
    decompositions: Mapping[str, Decomposition]
    test: HypothesisTest
    verdict: Verdict
    environment: Mapping[str, str]

    def report(self, role: Role) -> ModelReport:
        """The first model of a role; ValueError where there is none."""
        check_one_of("role", role, [report.role for report in self.reports])
        return next(report for report in self.reports if report.role == role)
