"""The shapes of the neighbours' files that hold gains: what each number of an entry is.

A shape is one class: the keys by which an entry is known, the fields that are read, and `records`,
which says what they are.  A new shape also goes into `neighbours.SHAPES`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

from pydantic import Field

from gainlens.core.messages import shown
from gainlens.notebook.definitions import Basis, Reduction, State, model_key
from gainlens.notebook.documents import Count, Label, Norms, Part, Positive, Series, Text
from gainlens.notebook.record import Finding, Record
from gainlens.notebook.rescored import Measurement
from gainlens.notebook.result_file import difference, mismatch
from gainlens.notebook.shapes import Shape, Where

Word = bool | Text | None

NUM_BLOCKS: Final = {"mistral7b": 32}
"""Blocks of models whose files disagree about it, from the models' own configs."""


def measured(
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


def _says(value: Word, yes: str = "dampening", no: str = "not dampening") -> str | None:
    """Return the file's own word for a model, for true and false the words given."""
    if isinstance(value, str):
        value = {"True": True, "False": False}.get(value, value)
    return value if value is None or isinstance(value, str) else yes if value else no


class PromptRow(Shape):
    """A table with one row per model and prompt: hooks on blocks, last token."""

    NAME: ClassVar = "rows of prompts"
    KEYS: ClassVar = {"Model", "Prompt", "Last_Gain"}
    Prompt: Text
    Last_Gain: Positive | None
    N_Layers: Count | None = None
    Family: Label | None = None

    def records(self, where: Where) -> Iterator[Record]:
        if self.Last_Gain is not None:
            yield measured(
                where, "Last_Gain", "last block", "last_token", "notebook",
                num_blocks=self.N_Layers, by_prompt={self.Prompt: self.Last_Gain},
                group=self.Family,
            )  # fmt: skip


class PromptGains(Shape):
    """An object per prompt with the gains of all blocks: Frobenius norm over all tokens."""

    NAME: ClassVar = "gains of prompts"
    KEYS: ClassVar = {"gains", "last_gain", "entropy"}
    WITHOUT: ClassVar = {"norms"}
    gains: Norms
    last_gain: Positive | None

    def records(self, where: Where) -> Iterator[Record]:
        if self.last_gain is None:
            return
        prompts = where.root.get("prompts")
        described = prompts.get(where.key) if isinstance(prompts, dict) else None
        text = described.get("text") if isinstance(described, dict) else where.key
        yield from mismatch(where.key, self.last_gain, self.gains[-1])
        yield measured(
            where, "last_gain", "last block", "frobenius", "notebook",
            num_blocks=len(self.gains), by_prompt={str(text): self.last_gain},
        )  # fmt: skip


class ModelNorms(Shape):
    """An object per model with norms and gains of one prompt: Frobenius norm over all tokens."""

    NAME: ClassVar = "norms of models"
    KEYS: ClassVar = {"norms", "gains"}
    WITHOUT: ClassVar = {"residual"}
    norms: Norms
    gains: Norms
    last_gain: Positive | None = None
    last_expands: bool | None = None

    def records(self, where: Where) -> Iterator[Record]:
        before, after = self.norms[-2:]
        recomputed = after / before if before and after else None
        yield from mismatch(f"{where.model}: last_gain", self.last_gain, recomputed)
        blocks = len(self.norms) - 1
        known = NUM_BLOCKS.get(model_key(where.model), blocks)
        if known != blocks:
            yield Finding(place=f"{where.model}: number of gains", stated=blocks, recomputed=known)
        yield measured(
            where, "last_gain", "last block", "frobenius", "notebook", num_blocks=known,
            stated=self.last_gain or recomputed,
            says=_says(self.last_expands, "expands", "contracts"),
        )  # fmt: skip


class HiddenStates(Shape):
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


class StatesBeforeNorm(HiddenStates):
    """hidden_states[-2] over [-3], called the last layer: the penultimate block."""

    NAME: ClassVar = "hidden states without final norm"
    KEYS: ClassVar = {"n_layers", "gain_with_ln_mean"}

    def records(self, where: Where) -> Iterator[Record]:
        called = "residual_gain_mean" if self.gain_no_ln_mean is None else "gain_no_ln_mean"
        mean = self.gain_no_ln_mean or self.residual_gain_mean
        state, basis = _state_of(mean, self.all_layer_gains)
        says = self.is_dampening if self.is_dampening_no_ln is None else self.is_dampening_no_ln
        yield measured(
            where, called, state, "last_token", basis, num_blocks=self.n_layers, stated=mean,
            by_prompt=_numbered(self.residual_gain_all), says=_says(says),
        )  # fmt: skip
        state, basis = _state_of(self.gain_with_ln_mean, self.all_layer_gains)
        yield measured(
            where, "gain_with_ln_mean", state, "last_token", basis,
            num_blocks=self.n_layers, stated=self.gain_with_ln_mean,
        )  # fmt: skip


class StatesAfterNorm(HiddenStates):
    """hidden_states[-1] over [-2]: the last block times the final norm."""

    NAME: ClassVar = "hidden states with final norm"
    KEYS: ClassVar = {"n_layers", "last_layer_gain_mean"}

    def records(self, where: Where) -> Iterator[Record]:
        mean = self.last_layer_gain_mean or self.residual_gain_mean
        called = (
            "residual_gain_mean" if self.last_layer_gain_mean is None else "last_layer_gain_mean"
        )
        by_prompt = {key: gain for key, gain in self.per_prompt_gains.items() if gain is not None}
        stated_in_file = "hidden_states[-1]" in str(where.root.get("methodology", ""))
        yield measured(
            where, called, "last block and final norm", "last_token",
            "file" if stated_in_file else "notebook", num_blocks=self.n_layers, stated=mean,
            by_prompt=by_prompt or _numbered(self.residual_gain_all),
            says=_says(self.is_dampening),
        )  # fmt: skip


class ResidualStatesAfterNorm(StatesAfterNorm):
    """The same under other keys."""

    KEYS: ClassVar = {"n_layers", "residual_gain_mean", "residual_gain_all"}


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


def _numbered(values: Series) -> dict[str, float]:
    """Return values by the number of their prompt, without the unknown ones."""
    return {str(number): value for number, value in enumerate(values) if value is not None}


class SublayerGains(Shape):
    """The output of each sublayer over its own input, per block."""

    NAME: ClassVar = "gains of sublayers"
    KEYS: ClassVar = {"attn_gains", "mlp_gains"}
    attn_gains: Norms
    mlp_gains: Norms

    def records(self, where: Where) -> Iterator[Record]:
        yield from _sublayers(self.attn_gains, self.mlp_gains, where)


class GainList(Part):
    """One list of gains."""

    gains: Norms


class SublayerObjects(Shape):
    """The same ratios as `SublayerGains`, one object per sublayer."""

    NAME: ClassVar = "objects of sublayers"
    KEYS: ClassVar = {"attention", "mlp", "combined"}
    attention: GainList
    mlp: GainList

    def records(self, where: Where) -> Iterator[Record]:
        yield from _sublayers(self.attention.gains, self.mlp.gains, where)


def _sublayers(attention: Norms, mlp: Norms, where: Where) -> Iterator[Record]:
    states: tuple[tuple[State, Norms], ...] = (("attention write", attention), ("mlp write", mlp))
    for state, gains in states:
        yield measured(
            where, f"{state.split()[0]} gain", state, "unknown", "notebook",
            num_blocks=len(gains), stated=gains[-1],
        )  # fmt: skip


class HeadLayer(Part):
    """One block of the per-head analysis."""

    residual_ratio: Positive | None


class Heads(Shape):
    """The residual ratio of the last block beside norms of heads: hooks on blocks, last token."""

    NAME: ClassVar = "ratios beside heads"
    KEYS: ClassVar = {"layers", "last_layer_residual_ratio"}
    layers: list[HeadLayer] = Field(min_length=1, max_length=10_000)
    last_layer_residual_ratio: Positive | None

    def records(self, where: Where) -> Iterator[Record]:
        stated, last = self.last_layer_residual_ratio, self.layers[-1].residual_ratio
        yield from mismatch(f"{where.model}: last_layer_residual_ratio", stated, last)
        yield measured(
            where, "last_layer_residual_ratio", "last block", "last_token", "notebook",
            num_blocks=len(self.layers), stated=stated,
        )  # fmt: skip


class CopiedGain(Shape):
    """A gain named known_gain: the file copied it and did not measure it."""

    NAME: ClassVar = "copied gains"
    KEYS: ClassVar = {"known_gain"}
    known_gain: Positive | None
    n_layers: Count | None = None
    behavior: Text | None = None

    def records(self, where: Where) -> Iterator[Record]:
        yield measured(
            where, "known_gain", "copied", "unknown", "file",
            num_blocks=self.n_layers, stated=self.known_gain, says=self.behavior,
        )  # fmt: skip
