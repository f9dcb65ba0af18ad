"""Read the notebook's JSON and our own result.json, which has the same keys, and recompute.

Each class holds what the file states, and computes from it what follows.
"""

import math
import statistics
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, computed_field

from gainlens.core.formulas import random_edge, theta_bound
from gainlens.notebook.documents import Count, Label, Norm, Part, Positive, Stated
from gainlens.notebook.record import Finding, Record
from gainlens.notebook.statistics import notebook_gains

SCHEMA: Final = 1
"""Newest schema of our own files that this module reads."""
ERASES_BELOW: Final = 0.8
"""A block erases if the mean norm falls by more than a fifth.  Blocks in mid-stack gain 1.00 to
1.06 (Heimersheim & Turner 2023: 1.045 in GPT2-XL; the published runs: 1.002 to 1.062); what takes
a fifth away takes it from a token that holds at least a fifth of the summed norm."""
WRITES_ABOVE: Final = 5.0
"""A block writes massive activations if the mean norm grows more than fivefold: above the 3 to 4
of a first block, which merely outgrows the embedding."""
MISMATCH: Final = 1e-6
"""Relative difference from which a stated number is not the recomputed one: float32's rounding."""
PLAUSIBLE_WEIGHT: Final = (0.1, 30.0)
"""Root mean square that a trained final norm's weight has; our choice, wide on purpose."""

_NO_INNER_NORM: Final = "the file has no norm between the last block and the final norm"


class BlockChange(Record):
    """Name a block that changes the mean norm more than most blocks do."""

    layer: int
    gain: float
    """ratio of mean norms"""


class Residual(Part):
    """Hold the notebook's residual half.  Norms are L2; the last is after the final norm."""

    WHY_UNKNOWN: ClassVar = {
        "true_last_gain": _NO_INNER_NORM,
        "final_norm_gain": _NO_INNER_NORM,
        "writes": f"no gain before the last entry exceeds {WRITES_ABOVE:g}",
        "final_over_embedding": "a norm is 0, so the product says nothing",
    }
    norms: Annotated[list[Norm], Field(min_length=2, fail_fast=True)]
    gains: Annotated[list[Stated], Field(fail_fast=True)] | None = None
    last_gain: Stated | None = None
    cumulative_energy: Stated | None = None
    true_last_gain: Stated | None = None
    """of our own files: mean |y| over mean |x| at the last block"""
    final_norm_gain: Stated | None = None

    @cached_property
    def recomputed(self) -> tuple[float, ...]:
        """Return the ratios of neighbouring norms."""
        return notebook_gains(self.norms)

    @cached_property
    def product(self) -> float:
        """Return the product of the recomputed gains, the notebook's cumulative_energy."""
        return math.prod(self.recomputed)

    @computed_field
    @property
    def normed_entry(self) -> int:
        """Return the index in norms of the state after the final norm."""
        return len(self.norms) - 1

    @computed_field
    @property
    def median_gain(self) -> float | None:
        """Return the median of the gains before the last entry."""
        return statistics.median(self.recomputed[:-1]) if len(self.recomputed) > 1 else None

    @computed_field
    @property
    def final_over_embedding(self) -> float | None:
        """Return the ratio that cumulative_energy telescopes to."""
        return self.norms[-1] / self.norms[0] if all(self.norms) else None

    @computed_field
    @property
    def writes(self) -> BlockChange | None:
        """Return the block before the last entry with the largest gain, if above WRITES_ABOVE."""
        before = self.recomputed[:-1]
        gain = max(before, default=0.0)
        if gain <= WRITES_ABOVE:
            return None
        return BlockChange(layer=before.index(gain), gain=gain)

    @computed_field
    @property
    def erases(self) -> tuple[BlockChange, ...]:
        """Return the blocks below ERASES_BELOW; the last one only if the file has its gain."""
        last = () if self.true_last_gain is None else (self.true_last_gain,)
        gains = (*self.recomputed[:-1], *last)
        return tuple(
            BlockChange(layer=block, gain=gain)
            for block, gain in enumerate(gains)
            if gain < ERASES_BELOW
        )


class Unembedding(Part):
    """Hold W_U as the notebook measures it; L2 norms."""

    vocab_size: Count
    hidden_dim: Count
    frobenius_norm: Positive
    spectral_norm: Positive
    mean_row_norm: Norm | None = None
    shape: Annotated[list[Count], Field(min_length=2, max_length=2, fail_fast=True)] | None = None

    @computed_field
    @property
    def sigma_per_sqrt_vocab(self) -> float:
        """Return the spectral norm over sqrt(vocabulary)."""
        return self.spectral_norm / math.sqrt(self.vocab_size)

    @computed_field
    @property
    def edge(self) -> float:
        """Return the spectral norm of a random matrix of this shape and Frobenius norm."""
        return random_edge(self.frobenius_norm, self.vocab_size, self.hidden_dim)

    @computed_field
    @property
    def edge_ratio(self) -> float:
        """Return the spectral norm over the edge."""
        return self.spectral_norm / self.edge

    @computed_field
    @property
    def energy_share(self) -> float:
        """Return squared spectral norm over squared Frobenius norm."""
        return (self.spectral_norm / self.frobenius_norm) ** 2


class Rope(Part):
    """Hold RoPE from the config."""

    WHY_UNKNOWN: ClassVar = {
        "rope_theta": "the file has no rope_theta (transformers 5 moved config.rope_theta, which "
        "the notebook reads)",
        "max_position": "the file has no max_position",
        "theta_bound": "the file has no max_position",
        "theta_over_bound": "the file lacks rope_theta or max_position (transformers 5 moved "
        "config.rope_theta, which the notebook reads)",
    }
    rope_theta: Positive | None = None
    rope_scaling: dict[str, object] | None = Field(default=None, exclude=True)
    max_position: Count | None = None

    @computed_field
    @property
    def scaled(self) -> bool:
        """Return whether the config rescales frequencies too; the bound then says less."""
        return self.rope_scaling is not None

    @computed_field
    @property
    def theta_bound(self) -> float | None:
        """Return the lower bound of Men et al. 2024 for the context."""
        return None if self.max_position is None else theta_bound(self.max_position)

    @computed_field
    @property
    def theta_over_bound(self) -> float | None:
        """Return theta over its lower bound."""
        if self.rope_theta is None or self.theta_bound is None:
            return None
        return self.rope_theta / self.theta_bound


class FileModel(Part):
    """Hold one model of a file."""

    WHY_UNKNOWN: ClassVar = {
        "w_u": "the file has no w_u for this model",
        "rope": "the file has no rope for this model",
        "norm_per_sqrt_width": "the file has no w_u for this model, so no d_model",
    }
    residual: Residual
    num_layers: Count | None = None
    role: Label | None = None
    hf_name: Label | None = None
    w_u: Unembedding | None = None
    rope: Rope | None = None

    @computed_field
    @property
    def norm_per_sqrt_width(self) -> float | None:
        """Return the last norm over sqrt(d_model), near the final norm's typical weight."""
        if self.w_u is None:
            return None
        return self.residual.norms[-1] / math.sqrt(self.w_u.hidden_dim)

    @property
    def theta(self) -> float | None:
        """Return RoPE's theta, None if the file does not give it."""
        return None if self.rope is None else self.rope.rope_theta

    @property
    def facts(self) -> Mapping[str, object]:
        """Return what the file holds of the model apart from its gains."""
        rope, w_u = self.rope, self.w_u
        return {
            "RoPE theta": rope and rope.rope_theta,
            "RoPE scaling": rope and bool(rope.rope_scaling),
            "context": rope and rope.max_position,
            "vocabulary": w_u and w_u.vocab_size,
            "width": w_u and w_u.hidden_dim,
            "blocks": self.residual.normed_entry,
        }

    @computed_field
    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Return stated numbers that the stated norms do not give, or that are impossible."""
        return tuple(_contradictions(self))


class FileTest(Part):
    """Hold the verdict that the file states."""

    verdict: Label | None = None
    theta_ratio: Stated | None = None
    gain_ratio: Stated | None = None
    wu_ratio: Stated | None = None


class Stamp(Part):
    """Mark a file as written by gainlens."""

    schema_number: Annotated[int, Field(alias="schema")]


class Head(Part):
    """Hold the document around its models."""

    models: dict[str, Any]
    hypothesis_test: FileTest | None = None
    gainlens: Stamp | None = None


def difference(one: float, other: float) -> float:
    """Return the difference relative to the larger of two numbers that are not negative, 0 to 1."""
    return abs(one - other) / max(one, other) if one != other else 0.0


def mismatch(place: str, stated: float | None, recomputed: float | None) -> Iterator[Finding]:
    """Yield a finding if a number is stated and the recomputed one differs or is unknown."""
    if stated is None:
        return
    if recomputed is None or difference(stated, recomputed) > MISMATCH:
        yield Finding(place=place, stated=stated, recomputed=recomputed)


def _contradictions(model: FileModel) -> Iterator[Finding]:
    residual = model.residual
    gains = residual.recomputed
    if model.num_layers is not None and model.num_layers != len(gains):
        yield Finding(place="num_layers", stated=model.num_layers, recomputed=len(gains))
    if residual.gains:
        steps = [difference(*step) for step in zip(residual.gains, gains, strict=True)]
        worst = steps.index(max(steps))
        yield from mismatch(f"gains[{worst}]", residual.gains[worst], gains[worst])
    yield from mismatch("last_gain", residual.last_gain, gains[-1])
    yield from mismatch("cumulative_energy", residual.cumulative_energy, residual.product)
    if residual.true_last_gain is not None and residual.final_norm_gain is not None:
        product = residual.true_last_gain * residual.final_norm_gain
        yield from mismatch("true_last_gain x final_norm_gain", product, gains[-1])
    if model.w_u is not None:
        yield from _impossible_unembedding(model.w_u)


def _impossible_unembedding(w_u: Unembedding) -> Iterator[Finding]:
    shape = [w_u.vocab_size, w_u.hidden_dim]
    if w_u.shape is not None and w_u.shape != shape:
        yield Finding(place="w_u.shape", stated=str(w_u.shape), recomputed=str(shape))
    low, high = w_u.frobenius_norm / math.sqrt(min(shape)), w_u.frobenius_norm
    if not low * (1 - MISMATCH) <= w_u.spectral_norm <= high * (1 + MISMATCH):
        yield Finding(
            place="w_u.spectral_norm",
            stated=w_u.spectral_norm,
            recomputed=f"a number from {low:g} to {high:g}, by the shape and the Frobenius norm",
        )
