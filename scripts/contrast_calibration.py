"""Calibrate every contrast of a claim through the engine itself, on planted numbers per prompt.

A world plants an effect for one contrast.  The numbers of a prompt scatter about it with standard
deviation 1, so that effects are in standard deviations over prompts, runs or models.  Contrasts are
computed by `contrast_of` and judged by `outcome_of_claim` or `judge_claim`, with 2,000 resamples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from calibration import AT_LEAST, AT_MOST, MEASURED, WITHIN, Rate, rate_of
from jaxtyping import Float64

from gainlens.claims.claim import Claim, parse_claim
from gainlens.claims.conditions import CLUSTERS, OUTLIERS, SHAPES
from gainlens.claims.contrasts import contrast_of
from gainlens.claims.engine import judge_claim
from gainlens.claims.outcomes import outcome_of_claim
from gainlens.core.spec import Rule
from gainlens.records.claims import Evidence, Fact
from gainlens.records.interval import Interval

Random = np.random.Generator
Prompts = Float64[np.ndarray, " prompt"]
Noise = Callable[[Random, int], Prompts]

RULES: Final = tuple(Rule(resamples=2_000, seed=seed) for seed in range(50))
"""Repeats take turns, so that the luck of one set of resamples does not bias a rate."""
PER_GROUP: Final = 8
UNEQUAL: Final = "prompts of 2 to 512 tokens"
DECIDED: Final = ("SUPPORTED", "CONTRADICTED", "CONFIRMED", "REJECTED", "UNEXPECTED", "INVERTED")
SIZES: Final = (16, 32, 64)
VERDICT_SIZES: Final = (16, 32, 64, 96)
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
_SLACK: Final = 1e-9
"""Two rank correlations that differ by less are equal."""


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


def _random(*key: object) -> Random:
    return np.random.default_rng(list(repr(key).encode()))


def _intervals(
    world: World, n: int, effect: float, case: str, repeats: int, unit: str
) -> Iterator[list[Interval]]:
    """Yield the intervals of one repeat after the other."""
    rng = _random(world.claim.contrast.kind, n, effect, case, unit)
    for repeat in range(repeats):
        evidence = world.models(rng, n, effect, NOISES[case])
        found = contrast_of(world.claim, evidence, "mean", RULES[repeat % len(RULES)])
        if unit == "groups":
            yield [one.clustering.over_groups for one in found.estimates if one.clustering]
        else:
            yield [one.interval for one in found.estimates]


def contrast_coverage(
    name: str, n: int, case: str, repeats: int = 2_000, effect: float = 0.0, unit: str = ""
) -> Rate:
    """How often a contrast's intervals hold what was planted; several count one by one.

    unit: groups, to take the intervals over groups of 8 prompts; else the world's own.
    """
    world = WORLDS[name]
    truths = world.truths(effect)

    def holds(intervals: Sequence[Interval]) -> list[bool]:
        pairs = zip(intervals, truths, strict=True)
        held = [bool(one.low - _SLACK <= truth <= one.high + _SLACK) for one, truth in pairs]
        return [all(held)] if world.jointly else held

    held = [
        one
        for intervals in _intervals(world, n, effect, case, repeats, unit)
        for one in holds(intervals)
    ]
    enough = n >= 32 if world.unit == "prompts" else case == SHAPES[0]
    plain = case in (*SHAPES, UNEQUAL) and enough and not unit
    wider = case == SHAPES[3] or name.startswith("rank")  # may be wider than it need be
    stated = MEASURED if not plain else AT_LEAST if wider else WITHIN
    size = n // PER_GROUP if unit == "groups" else n
    planted_effect = f"{effect:.3g}" if effect else ""
    return rate_of(
        sum(held), len(held), "coverage", case, size, stated, planted_effect,
        contrast=name, unit=unit or world.unit,
    )  # fmt: skip


def _outcomes(world: World, n: int, effect: float, case: str, repeats: int) -> Iterator[str]:
    rng = _random(world.claim.contrast.kind, n, effect, case, "outcome")
    for repeat in range(repeats):
        evidence = world.models(rng, n, effect, NOISES[case])
        found = contrast_of(world.claim, evidence, "mean", RULES[repeat % len(RULES)])
        yield outcome_of_claim(world.claim, found)


def contrast_false_claims(name: str, n: int, case: str, repeats: int = 1_000) -> Rate:
    """How often a contrast decides although there is no effect."""
    contrast, world, effect = NULLS[case] if case in NULLS else (name, WORLDS[name], 0.0)
    shape = SHAPES[0] if case in NULLS else case
    hits = sum(outcome in DECIDED for outcome in _outcomes(world, n, effect, shape, repeats))
    return rate_of(
        hits, repeats, "false claim", case, n, AT_MOST, contrast=contrast, unit=world.unit
    )


def contrast_power(name: str, n: int, effect: float, repeats: int = 500) -> Rate:
    """How often a contrast gives the outcome that the planted effect calls for."""
    world = WORLDS[name]
    hits = sum(one == world.right for one in _outcomes(world, n, effect, SHAPES[0], repeats))
    return rate_of(
        hits, repeats, "power", SHAPES[0], n, MEASURED, f"{effect:.3g}",
        contrast=name, unit=world.unit,
    )  # fmt: skip


def verdict_rates(name: str, n: int, effect: float, repeats: int = 200) -> Iterator[Rate]:
    """How often the whole verdict is right, and how often it is robust.

    The effect is planted in every analysis; the median scatters by 1.2 and the last token by 2
    standard deviations.
    """
    world = WORLDS[name]
    rng = _random(world.claim.contrast.kind, n, effect, "verdict")

    def widened(model: Evidence) -> Evidence:
        values = model.values["mean"]
        ways = {"median": 0.7, "last_token": 1.7}
        more = {way: values + sd * rng.normal(size=values.shape) for way, sd in ways.items()}
        return planted(values, model.role, step=model.step, ways=more)

    right = robust = 0
    for repeat in range(repeats):
        evidence = [widened(one) for one in world.models(rng, n, effect, NOISES[SHAPES[0]])]
        verdict = judge_claim(world.claim, evidence, RULES[repeat % len(RULES)])
        right += verdict.outcome == world.right
        robust += verdict.robust is True
    for check, hits in (("right outcome", right), ("robust", robust)):
        yield rate_of(hits, repeats, check, SHAPES[0], n, MEASURED, f"{effect:.3g}", contrast=name)


def calibrate_contrasts() -> Iterator[Rate]:
    """Every rate of the contrasts, in the table's order."""
    for name, world in WORLDS.items():
        ranks = name.startswith("rank")
        for case in world.shapes:
            for n in world.sizes:
                for effect in world.effects if ranks else (0.0,):
                    yield contrast_coverage(name, n, case, effect=effect)
    for case in (one for one in NOISES if one.startswith("groups")):
        for n in (32, 64, 128):
            if not case.endswith("skewed"):
                yield contrast_coverage("level", n, case)
            yield contrast_coverage("level", n, case, unit="groups")
    for name, world in WORLDS.items():
        for case in world.shapes[:2]:
            for n in world.sizes:
                yield contrast_false_claims(name, n, case)
    for case, (name, world, _) in NULLS.items():
        for n in world.sizes:
            yield contrast_false_claims(name, n, case)
    for name, world in WORLDS.items():
        for n in world.sizes:
            for effect in world.effects:
                yield contrast_power(name, n, effect)
    for name in ("level", "signs", "difference", "trend"):
        for effect in EFFECTS:
            for n in VERDICT_SIZES:
                yield from verdict_rates(name, n, effect)
