"""Plant an effect for each contrast of a claim.

Numbers scatter about the effect with standard deviation 1, so that effects are in standard
deviations over prompts, training runs or models.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.claim import Claim, parse_claim
from gainlens.claims.conditions import CLUSTERS, OUTLIERS, SHAPES
from gainlens.records.claims import Evidence, Fact

Random = np.random.Generator
Prompts = Float64[np.ndarray, " prompt"]
Noise = Callable[[Random, int], Prompts]

PER_GROUP: Final = 8
UNEQUAL: Final = "prompts of 2 to 512 tokens"
SIZES: Final = (16, 32, 64)
EFFECTS: Final = (0.2, 0.5, 1.0)


def unequal(rng: Random, n: int) -> Prompts:
    """A prompt's own effect, and tokens' scatter that averages out in long prompts."""
    lengths = np.exp(rng.uniform(np.log(2), np.log(512), n))
    return 0.7 * rng.normal(size=n) + 2.0 * rng.normal(size=n) / np.sqrt(lengths)


def outlying(rng: Random, n: int) -> Prompts:
    """One prompt in twenty lies 8 standard deviations above the others; the mean is 0."""
    return rng.normal(size=n) + 8.0 * (rng.random(n) < 0.05) - 0.4


def grouped(rng: Random, n: int, correlation: float, *, skewed: bool = False) -> Prompts:
    """Groups of 8 prompts with this intraclass correlation."""
    groups = n // PER_GROUP
    effect = rng.exponential(size=groups) - 1 if skewed else rng.normal(size=groups)
    own = rng.normal(size=n)
    return np.sqrt(correlation) * np.repeat(effect, PER_GROUP) + np.sqrt(1 - correlation) * own


_DRAWS: Final[tuple[Noise, ...]] = (
    lambda rng, n: rng.normal(size=n),
    lambda rng, n: rng.exponential(size=n) - 1,
    lambda rng, n: rng.lognormal(0, 1, n) - np.exp(0.5),
    lambda rng, n: rng.standard_t(3, size=n),
)
NOISES: Final[dict[str, Noise]] = dict(zip(SHAPES, _DRAWS, strict=True)) | {
    UNEQUAL: unequal, OUTLIERS: outlying,
    **{name: partial(grouped, correlation=icc) for icc, name in CLUSTERS.items()},
    **{f"{name}, skewed": partial(grouped, correlation=icc, skewed=True)
       for icc, name in CLUSTERS.items()},
}  # fmt: skip
"""Scatter over prompts about a mean of 0."""


def planted(
    values: np.ndarray,
    role: str = "model",
    *,
    facts: Mapping[str, Fact] | None = None,
    groups: tuple[str, ...] = (),
    others: np.ndarray | None = None,
    step: float | None = None,
    seed: float | None = None,
    ways: Mapping[str, np.ndarray] | None = None,
) -> Evidence:
    """The evidence that a model would give; values: [block, prompt]."""
    n = values.shape[1]
    return Evidence(
        role=role,
        name=role,
        facts=facts or {},
        ids=tuple(map(str, range(n))),
        lengths=np.arange(2, n + 2, dtype=np.int64),
        sha256="same",
        values={"mean": values, **(ways or {})},
        with_values=others,
        step=step,
        seed=seed,
        groups=groups,
    )


@dataclass(frozen=True)
class World:
    """An effect planted for one contrast."""

    claim: Claim
    models: Callable[[Random, int, float, Noise], list[Evidence]]
    truths: Callable[[float], Sequence[float]]
    """what each interval should hold, given the effect"""
    right: str = "SUPPORTED"
    """the outcome that the effect calls for"""
    unit: str = "prompts"
    sizes: tuple[int, ...] = SIZES
    effects: tuple[float, ...] = EFFECTS
    shapes: tuple[str, ...] = (*SHAPES, UNEQUAL, OUTLIERS)
    jointly: bool = False
    """whether the intervals hold all at once"""


def claim_of(text: str, *, blocks: str = "last", models: str = 'roles = ["model"]') -> Claim:
    """A claim about an angle, whose margin is 0, with this contrast."""
    return parse_claim(
        f'name = "c"\nstatement = "s"\n{models}\n[estimand]\nmetric = "angle"\n'
        f'blocks = "{blocks}"\n[contrast]\n{text}'
    )


def _level(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    names = tuple(f"group {place // PER_GROUP}" for place in range(n))
    return [planted(effect + noise(rng, n)[None], groups=names)]


def _each(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    return [planted(effect + 0.7 * noise(rng, n) + 0.7 * rng.normal(size=(8, n)))]


def _signs(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    return [
        planted(sign * effect + noise(rng, n)[None], role)
        for role, sign in (("short", 1), ("long", -1))
    ]


def _one_sign(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    return [
        planted(level + effect + noise(rng, n)[None], role)
        for role, level in (("short", 5.0), ("long", 0.0))
    ]


def _difference(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    shared = rng.normal(size=(1, n))
    return [planted(shared, "short"), planted(shared + effect + noise(rng, n), "long")]


def _trend(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    shared, slope = rng.normal(size=(1, n)), effect + noise(rng, n)
    return [planted(shared + step * slope, step=float(step)) for step in range(1, 5)]


def _block_trend(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    return [planted(np.arange(1.0, 7.0)[:, None] * (effect + noise(rng, n)))]


def _factorial(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    shared = rng.normal(size=n)
    return [
        planted(
            np.array([[shared[seed] + (theta > 1e4) * effect + noise(rng, 1)[0]]]),
            facts={"context": context, "theta": theta},
            seed=float(seed),
        )
        for context in (512.0, 4096.0) for theta in (1e4, 5e5) for seed in range(n)
    ]  # fmt: skip


ORDERS: Final = {
    1 - 192 / 504: (2, 3, 0, 1, 6, 7, 4, 5), 1 - 48 / 504: (1, 0, 3, 2, 5, 4, 7, 6),
    1.0: tuple(range(8)),
}  # fmt: skip
"""Orders of 8 blocks, by their rank correlation with 0 to 7."""


def _block_rank(
    rng: Random, n: int, effect: float, noise: Noise, gap: float = 1.0
) -> list[Evidence]:
    order = np.array(ORDERS[effect]) if effect else rng.permutation(8)
    means = gap * np.arange(8.0)[:, None]
    scatter = np.array([noise(rng, n) for _ in range(8)])
    return [planted(means + scatter, others=means[order] + rng.normal(size=(8, n)))]


def _model_rank(rng: Random, n: int, effect: float, noise: Noise) -> list[Evidence]:
    """Two normal numbers per model, whose rank correlation is `effect` (Pearson 1907)."""
    product = 2 * np.sin(np.pi * effect / 6)
    width = rng.normal(size=n)
    level = product * width + np.sqrt(1 - product**2) * rng.normal(size=n)
    return [
        planted(np.full((1, 4), own), facts={"d_model": float(fact)})
        for own, fact in zip(level, width, strict=True)
    ]


ABOVE: Final = 'prediction = "> 0"'
PAIR: Final = 'roles = ["short", "long"]'
_SIGNS: Final = claim_of(
    'kind = "signs"\noutcomes = { "+-" = "CONFIRMED", "--" = "REJECTED", "++" = "UNEXPECTED", '
    '"-+" = "INVERTED" }',
    models=PAIR,
)
_ANGLES: Final = f'kind = "rank"\nwith = "influence"\n{ABOVE}'
WORLDS: Final[dict[str, World]] = {
    "level": World(claim_of(f'kind = "level"\n{ABOVE}'), _level, lambda e: [e]),
    "level of each block": World(
        claim_of(f'kind = "level"\n{ABOVE}', blocks="each"), _each, lambda e: [e] * 8, jointly=True
    ),
    "signs": World(_SIGNS, _signs, lambda e: [e, -e], right="CONFIRMED"),
    "difference": World(
        claim_of(f'kind = "difference"\n{ABOVE}', models=PAIR), _difference, lambda e: [e]
    ),
    "trend": World(
        claim_of(f'kind = "trend"\nx = "step"\n{ABOVE}', models='models = "series"'),
        _trend, lambda e: [e],
    ),
    "trend over blocks": World(
        claim_of(f'kind = "trend"\nx = "block"\n{ABOVE}', blocks="each"),
        _block_trend, lambda e: [e],
    ),
    "factorial": World(
        claim_of(
            f'kind = "factorial"\nfactors = ["theta", "context"]\neffect = "theta"\n{ABOVE}',
            models='models = "many"',
        ),
        _factorial, lambda e: [e, 0.0], unit="seeds", sizes=(3, 4, 8), effects=(1.0, 2.0, 4.0),
        shapes=SHAPES[:2], jointly=True,
    ),
    "rank of blocks": World(
        claim_of(_ANGLES, blocks="each"), _block_rank, lambda e: [e],
        effects=tuple(ORDERS), shapes=SHAPES[:2],
    ),
    "rank of close blocks": World(
        claim_of(_ANGLES, blocks="each"), partial(_block_rank, gap=0.1), lambda e: [e],
        effects=tuple(ORDERS), shapes=SHAPES[:1],
    ),
    "rank of models": World(
        claim_of(f'kind = "rank"\nwith = "d_model"\n{ABOVE}', models='models = "many"'),
        _model_rank, lambda e: [e], unit="models", sizes=(8, 16, 32), effects=(0.5, 0.7, 0.9),
        shapes=SHAPES[:1],
    ),
}  # fmt: skip
NULLS: Final[dict[str, tuple[str, World, float]]] = {
    "one of two signs": ("signs", World(_SIGNS, _one_sign, lambda e: [5.0, 0.0]), 0.0),
    "= 0 within 0.3, at 0.3": (
        "difference",
        World(
            claim_of('kind = "difference"\nprediction = "= 0"\nmargin = 0.3', models=PAIR),
            _difference, lambda e: [e],
        ),
        0.3,
    ),
}  # fmt: skip
"""Further worlds in which every decision is false, with the effect that is planted."""
