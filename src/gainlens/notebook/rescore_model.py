"""Re-scoring one model of a result file: arithmetic on its norms, W_U numbers and RoPE numbers.

What the file does not hold is None with a reason beside it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gainlens.notebook.result_file import FileModel, FileUnembed
from gainlens.notebook.statistics import notebook_gains

ERASES_BELOW: Final = 0.8
"""A block erases where the mean norm falls by more than a fifth.  Blocks in mid-stack gain 1.00 to
1.06 (Heimersheim & Turner 2023: 1.045 in GPT2-XL; the published runs: 1.002 to 1.062); what takes
a fifth away takes it from a token that holds at least a fifth of the summed norm."""
WRITES_ABOVE: Final = 5.0
"""A block writes massive activations where the mean norm grows more than fivefold: above the 3 to 4
of a first block, which merely outgrows the embedding."""
MISMATCH: Final = 1e-6
"""Relative difference from which a stated number is not the recomputed one: float32's rounding."""
PLAUSIBLE_WEIGHT: Final = (0.1, 30.0)
"""Root mean square that a trained final norm's weight has; our choice, wide on purpose."""


@dataclass(frozen=True)
class BlockChange:
    """A block that changes the mean norm more than blocks do; gain as a ratio, notebook's mean."""

    layer: int
    gain: float


@dataclass(frozen=True)
class LastGainScore:
    """What the number called last_gain is."""

    value: float
    """last norm over the one before, recomputed"""
    normed_entry: int
    """index in `norms` of the state after the final norm"""
    norm_per_sqrt_width: float | None
    """that norm over sqrt(d_model): a weighted root mean square of the final norm's weight"""
    evidence: tuple[str, ...]
    what_it_is: str
    what_it_is_not: str
    block_gain: float | None
    """of the last block itself, mean |y| over mean |x|; only our own files have it"""
    final_norm_gain: float | None
    unknown: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TelescopeScore:
    """cumulative_energy against the ratio that it telescopes to."""

    cumulative_energy: float
    """product of the recomputed gains"""
    final_over_embedding: float
    difference: float
    """relative"""


@dataclass(frozen=True)
class UnembedScore:
    """W_U's largest singular value against what shape and Frobenius norm alone would give."""

    spectral_norm: float
    vocab_size: int
    hidden_dim: int
    sigma_per_sqrt_vocab: float
    edge: float
    """|W|_F (sqrt V + sqrt d) / sqrt(V d): a random matrix's largest singular value (Bai & Yin)"""
    edge_ratio: float
    energy_share: float
    """sigma_max^2 over the squared Frobenius norm"""


@dataclass(frozen=True)
class RopeScore:
    """Theta against the lower bound 0.0424 c^1.628 for context c (Men et al. 2024, 2405.14591)."""

    theta: float
    context: int
    theta_bound: float
    theta_over_bound: float
    scaled: bool
    """whether the config rescales frequencies besides theta: the bound then says less"""


@dataclass(frozen=True)
class ModelRescore:
    """One model of the file."""

    key: str
    num_layers: int
    last_gain: LastGainScore
    writes: BlockChange | None
    erases: tuple[BlockChange, ...]
    """blocks before the last entry; the last block too where the file has its gain"""
    telescope: TelescopeScore | None
    unembed: UnembedScore | None
    rope: RopeScore | None
    findings: tuple[str, ...]
    """where the file contradicts itself"""
    unknown: tuple[tuple[str, str], ...]
    """(field, reason) for every field that is None"""


def reasons_for(
    parts: Mapping[str, object], reasons: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    return tuple((name, reasons[name]) for name, value in parts.items() if value is None)


def score_model(key: str, model: FileModel) -> ModelRescore:
    residual = model.residual
    gains = notebook_gains(residual.norms)
    blocks = list(enumerate(gains[:-1]))
    writer = max(blocks, key=lambda block: block[1], default=(0, 0.0))
    if residual.true_last_gain is not None:
        blocks.append((len(gains) - 1, residual.true_last_gain))
    parts: dict[str, Any] = {
        "writes": BlockChange(*writer) if writer[1] > WRITES_ABOVE else None,
        "telescope": _telescope(residual.norms, gains),
        "unembed": None if model.w_u is None else _unembed(model.w_u),
        "rope": _rope(model),
    }
    reasons = {
        "writes": f"no gain before the last entry exceeds {WRITES_ABOVE:g}",
        "telescope": "a norm is 0, so the product says nothing",
        "unembed": "the file has no w_u for this model",
        "rope": "the file has no rope_theta or no max_position for this model (transformers 5 "
        "moved config.rope_theta, which the notebook reads)",
    }
    return ModelRescore(
        key=key,
        num_layers=len(gains),
        last_gain=_last_gain(model, gains),
        erases=tuple(BlockChange(*block) for block in blocks if block[1] < ERASES_BELOW),
        findings=_contradictions(model, gains),
        unknown=reasons_for(parts, reasons),
        **parts,
    )


def _last_gain(model: FileModel, gains: Sequence[float]) -> LastGainScore:
    residual, last = model.residual, len(gains) - 1
    width = None if model.w_u is None else model.w_u.hidden_dim
    parts = {
        "norm_per_sqrt_width": None if width is None else residual.norms[-1] / math.sqrt(width),
        "block_gain": residual.true_last_gain,
        "final_norm_gain": residual.final_norm_gain,
    }
    reasons = {
        "norm_per_sqrt_width": "the file has no w_u for this model, so no d_model",
        "block_gain": "the file has no norm between the last block and the final norm",
        "final_norm_gain": "the file has no norm between the last block and the final norm",
    }
    return LastGainScore(
        value=gains[-1],
        normed_entry=last + 1,
        evidence=_evidence(model.num_layers, gains, parts),
        what_it_is=(
            f"mean norm after the final norm (entry {last + 1}) over mean norm of what enters "
            f"block {last} (entry {last}): that block's gain times the final norm's"
        ),
        what_it_is_not=(
            f"block {last}'s gain: the final norm forgets its input's scale, so the block could "
            "multiply the stream by any factor and this number would not move"
        ),
        unknown=reasons_for(parts, reasons),
        **parts,
    )


def _evidence(
    num_layers: int | None, gains: Sequence[float], parts: Mapping[str, float | None]
) -> tuple[str, ...]:
    """Why the last entry is taken for the normed state: a convention, and what agrees with it."""
    blocks = "an unstated number of blocks" if num_layers is None else f"{num_layers} blocks"
    found = [
        f"{len(gains) + 1} entries for {blocks}; Hugging Face's hidden_states has one more than "
        "blocks, and takes the last after the final norm"
    ]
    per_width = parts["norm_per_sqrt_width"]
    if per_width is not None:
        low, high = PLAUSIBLE_WEIGHT
        agrees = "agrees with" if low <= per_width <= high else "does NOT agree with"
        found.append(
            f"its norm is {per_width:.3f} times sqrt(d_model), which {agrees} a trained norm "
            f"weight's root mean square ({low:g} to {high:g}); that alone would not prove it"
        )
    if len(gains) > 1:
        found.append(
            f"the step into it is {gains[-1]:.4f}, the median step before it "
            f"{statistics.median(gains[:-1]):.4f}"
        )
    block, norm = parts["block_gain"], parts["final_norm_gain"]
    if block is not None and norm is not None:
        found.append(
            f"measured: block {block:.4f} x final norm {norm:.4f} = {block * norm:.4f}, "
            f"last_gain {gains[-1]:.4f}"
        )
    return tuple(found)


def _telescope(norms: Sequence[float], gains: Sequence[float]) -> TelescopeScore | None:
    if not all(norms):
        return None
    product, ratio = math.prod(gains), norms[-1] / norms[0]
    return TelescopeScore(product, ratio, _difference(product, ratio))


def _difference(one: float, other: float) -> float:
    """Relative to the larger of two numbers that are not negative, so 0 to 1."""
    return abs(one - other) / max(one, other) if one != other else 0.0


def _unembed(w_u: FileUnembed) -> UnembedScore:
    rows, columns = math.sqrt(w_u.vocab_size), math.sqrt(w_u.hidden_dim)
    edge = w_u.frobenius_norm * (rows + columns) / (rows * columns)
    return UnembedScore(
        spectral_norm=w_u.spectral_norm,
        vocab_size=w_u.vocab_size,
        hidden_dim=w_u.hidden_dim,
        sigma_per_sqrt_vocab=w_u.spectral_norm / rows,
        edge=edge,
        edge_ratio=w_u.spectral_norm / edge,
        energy_share=(w_u.spectral_norm / w_u.frobenius_norm) ** 2,
    )


def _rope(model: FileModel) -> RopeScore | None:
    rope = model.rope
    if rope is None or rope.rope_theta is None or rope.max_position is None:
        return None
    bound = 0.0424 * rope.max_position**1.628
    return RopeScore(
        theta=rope.rope_theta,
        context=rope.max_position,
        theta_bound=bound,
        theta_over_bound=rope.rope_theta / bound,
        scaled=rope.rope_scaling is not None,
    )


def _contradictions(model: FileModel, gains: Sequence[float]) -> tuple[str, ...]:
    """Where a stated number is not what the stated norms give, or cannot be."""
    residual, found = model.residual, list[str]()
    if model.num_layers not in (None, len(gains)):
        found.append(f"num_layers is stated as {model.num_layers}, the norms give {len(gains)}")
    steps = list(zip(residual.gains or (), gains, strict=residual.gains is not None))
    if steps:
        worst = max(range(len(steps)), key=lambda step: _difference(*steps[step]))
        found += mismatch(f"gains[{worst}]", *steps[worst])
    found += mismatch("last_gain", residual.last_gain, gains[-1])
    found += mismatch("cumulative_energy", residual.cumulative_energy, math.prod(gains))
    if residual.true_last_gain is not None and residual.final_norm_gain is not None:
        product = residual.true_last_gain * residual.final_norm_gain
        found += mismatch("true_last_gain x final_norm_gain", product, gains[-1])
    return (*found, *_impossible_unembed(model.w_u))


def _impossible_unembed(w_u: FileUnembed | None) -> list[str]:
    if w_u is None:
        return []
    found = list[str]()
    if w_u.shape is not None and w_u.shape != [w_u.vocab_size, w_u.hidden_dim]:
        found.append(
            f"w_u.shape is not [vocab_size, hidden_dim] = [{w_u.vocab_size}, {w_u.hidden_dim}]"
        )
    rank = min(w_u.vocab_size, w_u.hidden_dim)
    low, high = w_u.frobenius_norm / math.sqrt(rank), w_u.frobenius_norm
    if not low * (1 - MISMATCH) <= w_u.spectral_norm <= high * (1 + MISMATCH):
        found.append(
            f"w_u.spectral_norm is {w_u.spectral_norm:g}, no matrix of this shape and Frobenius "
            f"norm has one outside {low:g} to {high:g}"
        )
    return found


def mismatch(name: str, stated: float | None, recomputed: float | None) -> list[str]:
    if stated is None:
        return []
    if recomputed is None:
        return [f"{name} is stated as {stated:g}, but the file has nothing to compute it from"]
    if _difference(stated, recomputed) <= MISMATCH:
        return []
    return [f"{name} is stated as {stated:.9g}, recomputed it is {recomputed:.9g}"]
