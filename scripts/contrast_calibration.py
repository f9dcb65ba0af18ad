"""Calibrate every contrast of a claim through the engine itself, on planted numbers per prompt.

Contrasts are computed by the engine's functions and judged by `outcome_of_claim` or `judge_claim`,
with 2,000 resamples.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from calibration import AT_LEAST, AT_MOST, MEASURED, RESAMPLES, WITHIN, Rate, rate_of
from contrast_worlds import (
    EFFECTS,
    NOISES,
    NULLS,
    PER_GROUP,
    UNEQUAL,
    WORLDS,
    Random,
    World,
    planted,
)

from gainlens.claims.claim import Claim
from gainlens.claims.clusters import clustering_of
from gainlens.claims.conditions import SHAPES
from gainlens.claims.contrasts import Contrasted, contrast_of
from gainlens.claims.engine import judge_claim
from gainlens.claims.intervals import mean_intervals
from gainlens.claims.numbers import numbers_of
from gainlens.claims.outcomes import outcome_of_claim
from gainlens.core.spec import Rule
from gainlens.records.claims import Estimate, Evidence
from gainlens.records.interval import Interval

RULES: Final = tuple(Rule(resamples=RESAMPLES, seed=seed) for seed in range(50))
"""Repeats take turns, so that the luck of one set of resamples does not bias a rate."""
_BATCH: Final = 20
DECIDED: Final = ("SUPPORTED", "CONTRADICTED", "CONFIRMED", "REJECTED", "UNEXPECTED", "INVERTED")
VERDICT_SIZES: Final = (16, 32, 64, 96)
_SLACK: Final = 1e-9
"""Two rank correlations that differ by less are equal."""


def _random(*key: object) -> Random:
    return np.random.default_rng(list(repr(key).encode()))


def contrasted(claim: Claim, repeats: Sequence[Sequence[Evidence]], rule: Rule) -> list[Contrasted]:
    """Return what `contrast_of` gives of each repeat; means over prompts share their resamples."""
    one_mean = claim.estimand.blocks != "each" or claim.contrast.kind == "trend"
    if claim.contrast.kind in ("rank", "factorial") or not one_mean:
        return [contrast_of(claim, evidence, "mean", rule) for evidence in repeats]
    numbers = [numbers_of(claim, one, [own.values["mean"] for own in one]) for one in repeats]
    values = np.array([one.values for of_repeat in numbers for one in of_repeat])
    intervals = mean_intervals(values, resamples=rule.resamples, seed=rule.seed)
    found = iter(intervals)
    return [
        Contrasted(
            tuple(
                Estimate(one.of, next(found), clustering_of(one.values, one.groups, 0.95))
                for one in of_repeat
            ),
            numbers=of_repeat,
        )
        for of_repeat in numbers
    ]


def _contrasts(
    world: World, n: int, effect: float, case: str, repeats: int, use: str
) -> Iterator[Contrasted]:
    """Yield the contrast of one repeat after the other; every twenty repeats share a rule."""
    rng = _random(world.claim.contrast.kind, n, effect, case, use)
    for start in range(0, repeats, _BATCH):
        batch = range(start, min(start + _BATCH, repeats))
        evidence = [world.models(rng, n, effect, NOISES[case]) for _ in batch]
        yield from contrasted(world.claim, evidence, RULES[start // _BATCH % len(RULES)])


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

    def intervals(found: Contrasted) -> list[Interval]:
        if unit == "groups":
            return [one.clustering.over_groups for one in found.estimates if one.clustering]
        return [one.interval for one in found.estimates]

    held = [
        one
        for found in _contrasts(world, n, effect, case, repeats, f"coverage {unit}")
        for one in holds(intervals(found))
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


def _outcomes(world: World, n: int, effect: float, case: str, repeats: int) -> list[str]:
    contrasts = _contrasts(world, n, effect, case, repeats, "outcome")
    return [outcome_of_claim(world.claim, found) for found in contrasts]


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
