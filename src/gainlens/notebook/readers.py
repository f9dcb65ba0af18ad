"""Readers of the result files beside the notebook's: one small function per shape.

A shape is a pydantic class, which holds the keys of one entry, and a generator, which says what the
numbers of an entry are.  To add a shape, write both and mark the generator with `@shape`, giving
the keys by which an entry is known.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from gainlens.core.messages import shown
from gainlens.notebook.definitions import Basis, Reduction, State, model_key
from gainlens.notebook.documents import Count, Label, Part, Positive, Text
from gainlens.notebook.record import Finding, Record
from gainlens.notebook.rescored import Measurement, Spectrum
from gainlens.notebook.result_file import difference, mismatch
from gainlens.notebook.shapes import Where, read_entries, shape

Series = Annotated[list[Positive | None], Field(max_length=10_000, fail_fast=True)]
"""One number per block or prompt."""
Norms = Annotated[list[Positive | None], Field(min_length=2, max_length=10_000, fail_fast=True)]
Word = bool | Text | None

NUM_BLOCKS: Final = {"mistral7b": 32}
"""Blocks of models whose files disagree about it, from the models' own configs."""
_ROUNDED: Final = 1e-3
"""Relative difference from which a Frobenius norm is not the one that the row norms give."""


def _says(value: Word, yes: str = "dampening", no: str = "not dampening") -> str | None:
    """Return the file's own word for a model, for true and false the words given."""
    if isinstance(value, str):
        value = {"True": True, "False": False}.get(value, value)
    return value if value is None or isinstance(value, str) else yes if value else no


def _measured(
    where: Where, called: str, state: State, reduction: Reduction, basis: Basis, **facts: Any
) -> Measurement:
    """Return a measurement whose block follows from its state and the number of blocks."""
    blocks = facts.get("num_blocks")
    if blocks is not None and state not in ("copied", "unclear"):
        facts["block"] = blocks - (2 if state == "penultimate block" else 1)
    by_prompt: dict[str, float] = facts.pop("by_prompt", {})
    return Measurement(
        model=where.model,
        called=called,
        state=state,
        reduction=reduction,
        basis=basis,
        by_prompt={shown(key, 2_000): value for key, value in by_prompt.items()},
        **facts,
    )


class PromptRow(Part):
    """One prompt of one model."""

    Prompt: Text
    Last_Gain: Positive | None
    N_Layers: Count | None = None
    Family: Label | None = None


@shape(PromptRow, "Model", "Prompt", "Last_Gain")
def rows_of_prompts(entry: PromptRow, where: Where) -> Iterator[Record]:
    """A table with a row per model and prompt: hooks on blocks, last token."""
    if entry.Last_Gain is not None:
        yield _measured(
            where, "Last_Gain", "last block", "last_token", "notebook",
            num_blocks=entry.N_Layers, by_prompt={entry.Prompt: entry.Last_Gain},
            group=entry.Family,
        )  # fmt: skip


class PromptGains(Part):
    """All blocks of one prompt."""

    gains: Norms
    last_gain: Positive | None


@shape(PromptGains, "gains", "last_gain", "entropy", without=("norms",))
def gains_of_prompts(entry: PromptGains, where: Where) -> Iterator[Record]:
    """An object per prompt: hooks on blocks, Frobenius norm over all tokens."""
    if entry.last_gain is None:
        return
    prompts = where.root.get("prompts")
    described = prompts.get(where.key) if isinstance(prompts, dict) else None
    text = described.get("text") if isinstance(described, dict) else where.key
    yield from mismatch(where.key, entry.last_gain, entry.gains[-1])
    yield _measured(
        where, "last_gain", "last block", "frobenius", "notebook",
        num_blocks=len(entry.gains), by_prompt={str(text): entry.last_gain},
    )  # fmt: skip


class NormList(Part):
    """Norms and gains of all blocks on one prompt."""

    norms: Norms
    gains: Norms
    last_gain: Positive | None = None
    last_expands: bool | None = None


@shape(NormList, "norms", "gains", without=("residual",))
def norms_of_models(entry: NormList, where: Where) -> Iterator[Record]:
    """An object per model with its norms: hooks on blocks, Frobenius norm over all tokens."""
    before, after = entry.norms[-2:]
    recomputed = after / before if before and after else None
    stated = entry.last_gain or recomputed
    yield from mismatch(f"{where.model}: last_gain", entry.last_gain, recomputed)
    blocks = len(entry.norms) - 1
    known = NUM_BLOCKS.get(model_key(where.model), blocks)
    if known != blocks:
        yield Finding(place=f"{where.model}: number of gains", stated=blocks, recomputed=known)
    yield _measured(
        where, "last_gain", "last block", "frobenius", "notebook", num_blocks=known, stated=stated,
        says=_says(entry.last_expands, "expands", "contracts"),
    )  # fmt: skip


class HiddenStates(Part):
    """Gains from Hugging Face's hidden_states, last token."""

    n_layers: Count
    all_layer_gains: Norms | None = None
    gain_no_ln_mean: Positive | None = None
    residual_gain_mean: Positive | None = None
    last_layer_gain_mean: Positive | None = None
    gain_with_ln_mean: Positive | None = None
    residual_gain_all: Series = Field(default_factory=list)
    per_prompt_gains: dict[str, Positive | None] = Field(default_factory=dict)
    is_dampening: Word = None
    is_dampening_no_ln: Word = None


def _state_of(value: float | None, gains: Sequence[float | None] | None) -> tuple[State, Basis]:
    """Return which state a mean belongs to, by the entry of all_layer_gains that equals it.

    hidden_states has one entry more than there are blocks, and its last is after the final norm.
    """
    if value is not None and gains is not None:
        states: tuple[tuple[int, State], ...] = (
            (-1, "last block and final norm"),
            (-2, "penultimate block"),
        )
        for entry, state in states:
            if gains[entry] is not None and difference(value, gains[entry] or 0.0) < 1e-6:
                return state, "numbers"
    return "unclear", "none"


@shape(HiddenStates, "n_layers", "gain_with_ln_mean")
def hidden_states_without_final_norm(entry: HiddenStates, where: Where) -> Iterator[Record]:
    """hidden_states[-2] over [-3], called the last layer: the penultimate block."""
    called = "residual_gain_mean" if entry.gain_no_ln_mean is None else "gain_no_ln_mean"
    mean = entry.gain_no_ln_mean or entry.residual_gain_mean
    state, basis = _state_of(mean, entry.all_layer_gains)
    says = _says(
        entry.is_dampening if entry.is_dampening_no_ln is None else entry.is_dampening_no_ln
    )
    yield _measured(
        where, called, state, "last_token", basis, num_blocks=entry.n_layers, stated=mean,
        by_prompt=_numbered(entry.residual_gain_all), says=says,
    )  # fmt: skip
    state, basis = _state_of(entry.gain_with_ln_mean, entry.all_layer_gains)
    yield _measured(
        where, "gain_with_ln_mean", state, "last_token", basis,
        num_blocks=entry.n_layers, stated=entry.gain_with_ln_mean,
    )  # fmt: skip


@shape(HiddenStates, "n_layers", "last_layer_gain_mean")
@shape(HiddenStates, "n_layers", "residual_gain_mean", "residual_gain_all")
def hidden_states_with_final_norm(entry: HiddenStates, where: Where) -> Iterator[Record]:
    """hidden_states[-1] over [-2]: the last block times the final norm."""
    called = "residual_gain_mean" if entry.last_layer_gain_mean is None else "last_layer_gain_mean"
    mean = entry.last_layer_gain_mean or entry.residual_gain_mean
    by_prompt = {key: value for key, value in entry.per_prompt_gains.items() if value is not None}
    stated_in_file = "hidden_states[-1]" in str(where.root.get("methodology", ""))
    yield _measured(
        where, called, "last block and final norm", "last_token",
        "file" if stated_in_file else "notebook", num_blocks=entry.n_layers, stated=mean,
        by_prompt=by_prompt or _numbered(entry.residual_gain_all), says=_says(entry.is_dampening),
    )  # fmt: skip


def _numbered(values: Series) -> dict[str, float]:
    """Return values by the number of their prompt, without the unknown ones."""
    return {str(number): value for number, value in enumerate(values) if value is not None}


class SublayerGains(Part):
    """Ratios of two sublayers, per block."""

    attn_gains: Norms
    mlp_gains: Norms


@shape(SublayerGains, "attn_gains", "mlp_gains")
def gains_of_sublayers(entry: SublayerGains, where: Where) -> Iterator[Record]:
    """A sublayer's output over its own input, per block."""
    yield from _sublayers(entry.attn_gains, entry.mlp_gains, where)


class GainList(Part):
    """One list of gains."""

    gains: Norms


class SublayerObjects(Part):
    """Ratios of two sublayers, an object each."""

    attention: GainList
    mlp: GainList


@shape(SublayerObjects, "attention", "mlp", "combined")
def objects_of_sublayers(entry: SublayerObjects, where: Where) -> Iterator[Record]:
    """The same ratios as `gains_of_sublayers`, an object per sublayer."""
    yield from _sublayers(entry.attention.gains, entry.mlp.gains, where)


def _sublayers(attention: Norms, mlp: Norms, where: Where) -> Iterator[Record]:
    states: tuple[tuple[State, Norms], ...] = (("attention write", attention), ("mlp write", mlp))
    for state, gains in states:
        yield _measured(
            where, f"{state.split()[0]} gain", state, "unknown", "notebook",
            num_blocks=len(gains), stated=gains[-1],
        )  # fmt: skip


class HeadLayer(Part):
    """One block of the per-head analysis."""

    residual_ratio: Positive | None


class Heads(Part):
    """Norms of heads, and the residual ratio per block."""

    layers: Annotated[list[HeadLayer], Field(min_length=1, max_length=10_000)]
    last_layer_residual_ratio: Positive | None


@shape(Heads, "layers", "last_layer_residual_ratio")
def ratios_beside_heads(entry: Heads, where: Where) -> Iterator[Record]:
    """The residual ratio of the last block beside norms of heads: hooks on blocks, last token."""
    stated, last = entry.last_layer_residual_ratio, entry.layers[-1].residual_ratio
    yield from mismatch(f"{where.model}: last_layer_residual_ratio", stated, last)
    yield _measured(
        where, "last_layer_residual_ratio", "last block", "last_token", "notebook",
        num_blocks=len(entry.layers), stated=stated,
    )  # fmt: skip


class CopiedGain(Part):
    """A gain that the file takes over from elsewhere."""

    known_gain: Positive | None
    n_layers: Count | None = None
    behavior: Text | None = None


@shape(CopiedGain, "known_gain")
def copied_gains(entry: CopiedGain, where: Where) -> Iterator[Record]:
    """A gain named known_gain, which the file did not measure."""
    yield _measured(
        where, "known_gain", "copied", "unknown", "file",
        num_blocks=entry.n_layers, stated=entry.known_gain, says=entry.behavior,
    )  # fmt: skip


class Matrix(Part):
    """Norms of W_U or of the embedding."""

    shape: Annotated[list[Count], Field(min_length=2, max_length=2)]
    spectral_norm: Positive
    frobenius_norm: Positive
    mean_row_norm: Positive | None = None
    std_row_norm: Positive | None = None
    last_gain: Positive | None = None


@shape(Matrix, "shape", "spectral_norm", "frobenius_norm")
def matrices(entry: Matrix, where: Where) -> Iterator[Record]:
    """The norms of one matrix, checked against its row norms: |W|_F^2 = rows (mean^2 + sd^2)."""
    rows, columns = entry.shape
    called = "W_E" if where.key == "embedding" else "W_U"
    if entry.mean_row_norm is not None and entry.std_row_norm is not None:
        frobenius = math.sqrt(rows) * math.hypot(entry.mean_row_norm, entry.std_row_norm)
        if difference(frobenius, entry.frobenius_norm) > _ROUNDED:
            place = f"{where.model}: frobenius_norm of {called}"
            yield Finding(place=place, stated=entry.frobenius_norm, recomputed=frobenius)
    yield Spectrum(
        model=where.model, matrix=called, called=where.key, rows=rows, columns=columns,
        spectral_norms=(entry.spectral_norm,), frobenius_norms=(entry.frobenius_norm,),
    )  # fmt: skip
    if entry.last_gain is not None:
        yield _measured(where, "last_gain", "copied", "unknown", "notebook", stated=entry.last_gain)


class AttentionWeights(Part):
    """Spectra of attention's matrices, per block."""

    W_V_spectral_norm: Series
    W_V_frobenius_norm: Series = Field(default_factory=list)
    W_V_effective_rank: Series = Field(default_factory=list)
    W_O_spectral_norm: Series = Field(default_factory=list)
    W_O_frobenius_norm: Series = Field(default_factory=list)
    W_O_effective_rank: Series = Field(default_factory=list)
    W_Q_spectral_norm: Series = Field(default_factory=list)
    W_Q_frobenius_norm: Series = Field(default_factory=list)
    W_Q_effective_rank: Series = Field(default_factory=list)
    W_K_spectral_norm: Series = Field(default_factory=list)
    W_K_frobenius_norm: Series = Field(default_factory=list)
    W_K_effective_rank: Series = Field(default_factory=list)


@shape(AttentionWeights, "W_V_spectral_norm")
def attention_weights(entry: AttentionWeights, where: Where) -> Iterator[Record]:
    """Spectral norm, Frobenius norm and effective rank of W_Q, W_K, W_V and W_O per block."""
    values = entry.model_dump()
    for matrix in ("W_V", "W_O", "W_Q", "W_K"):
        if spectral := values[f"{matrix}_spectral_norm"]:
            yield Spectrum(
                model=where.model, matrix=matrix, called=f"{matrix}_spectral_norm",
                spectral_norms=tuple(spectral),
                frobenius_norms=tuple(values[f"{matrix}_frobenius_norm"]),
                effective_ranks=tuple(values[f"{matrix}_effective_rank"]),
            )  # fmt: skip


class ValueNorms(Part):
    """Spectral norms of W_V per block."""

    W_V_op_norms: Series


@shape(ValueNorms, "W_V_op_norms")
def value_norms(entry: ValueNorms, where: Where) -> Iterator[Record]:
    """Spectral norms of W_V alone, per block."""
    yield Spectrum(
        model=where.model, matrix="W_V", called="W_V_op_norms",
        spectral_norms=tuple(entry.W_V_op_norms),
    )  # fmt: skip


class MeanNorms(Part):
    """Means over blocks of two norms of W_V."""

    mean_spectral: Positive | None
    mean_frobenius: Positive | None


@shape(MeanNorms, "mean_spectral", "mean_frobenius")
def mean_value_norms(entry: MeanNorms, where: Where) -> Iterator[Record]:
    """Means over blocks of W_V's norms; the ratio of two means is no stable rank of a block."""
    yield Spectrum(
        model=where.model, matrix="W_V, mean over blocks", called="mean_spectral",
        spectral_norms=(entry.mean_spectral,),
    )  # fmt: skip


class StateRanks(Part):
    """Effective rank of hidden states over prompts, per state."""

    effective_rank: Series
    intrinsic_dim_ratio: Series


@shape(StateRanks, "effective_rank", "intrinsic_dim_ratio")
def ranks_of_states(entry: StateRanks, where: Where) -> Iterator[Record]:
    """Effective rank of hidden states, the last one after the final norm."""
    yield Spectrum(
        model=where.model, matrix="hidden states", called="effective_rank",
        effective_ranks=tuple(entry.effective_rank),
    )  # fmt: skip


def read_records(name: str, root: dict[str, Any]) -> tuple[list[str], list[Record]]:
    """Return the names of the shapes above that a document has, and all their records."""
    return read_entries(name, root)
