"""Does the verdict's machinery keep what it states?  Planted truths, many times over.

Coverage of the intervals, false claims under a planted null, and power on planted effects; each a
rate with its own binomial interval.  Here the intervals themselves are calibrated;
contrast_calibration.py has the contrasts of claims.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64
from scipy.stats import binomtest

from gainlens.claims.behaviour import behaviour_of
from gainlens.claims.intervals import (
    difference_interval,
    halves_interval,
    mean_intervals,
    simultaneous_band,
)
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.records.capture import Capture
from gainlens.records.interval import Interval

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

DISTRIBUTIONS: Final[dict[str, tuple[Draw, float]]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "Student's t, 3 degrees of freedom": (lambda rng, size: rng.standard_t(3, size=size), 0.0),
    "exponential, skewness 2": (lambda rng, size: rng.exponential(size=size), 1.0),
    "minus exponential, skewness -2": (lambda rng, size: -rng.exponential(size=size), -1.0),
    "lognormal 0.5, skewness 1.8": (
        lambda rng, size: rng.lognormal(0, 0.5, size),
        float(np.exp(0.125)),
    ),
    "lognormal 1, skewness 6.2": (lambda rng, size: rng.lognormal(0, 1, size), float(np.exp(0.5))),
    "difference of two lognormal 1": (
        lambda rng, size: rng.lognormal(0, 1, size) - rng.lognormal(0, 1, size),
        0.0,
    ),
}
"""Per-prompt values and their true mean."""
HEAVY: Final = ("Student's t, 3 degrees of freedom", "difference of two lognormal 1")
"""Symmetric with heavy tails: there the interval may be wider than it need be."""
SIZES: Final = (16, 32, 64)
RESAMPLES: Final = 2_000
"""A tenth of the default: a half-width then varies by 2 % over seeds, which no rate shows."""
EFFECTS: Final = (2.0, 5.0, 10.0)
"""per cent"""
PROMPT_SPREAD: Final = 0.1
"""standard deviation over prompts of a difference of two models' log gains, nats; skewed"""


@dataclass(frozen=True)
class Rate:
    """How often something happened, beside what is stated."""

    contrast: str
    """what is calibrated: the interval itself, or a contrast of claims"""
    check: str
    """coverage, false claim, power, right outcome or robust"""
    case: str
    unit: str
    """prompts, groups, seeds or models"""
    n: int
    """how many of them"""
    effect: str
    """what is planted; empty if nothing is"""
    repeats: int
    rate: float
    low: float
    """of the exact binomial 95 % interval for the rate"""
    high: float
    stated: str
    met: str
    """whether the rate is as stated, yes or no; empty if nothing is stated"""


MEASURED: Final = "measured"
WITHIN: Final = "0.93 to 0.97"
AT_LEAST: Final = "at least 0.93"
AT_MOST: Final = "at most 0.05"


def rate_of(
    hits: int,
    repeats: int,
    check: str,
    case: str,
    n: int,
    stated: str,
    effect: str = "",
    *,
    contrast: str = "interval",
    unit: str = "prompts",
) -> Rate:
    """A count as a rate with its Clopper-Pearson interval.

    A rate of at most 5 % may lie two binomial standard errors above it.
    """
    interval = binomtest(hits, repeats).proportion_ci(0.95)
    ends = round(float(interval.low), 4), round(float(interval.high), 4)
    rate = round(hits / repeats, 4)
    error = np.sqrt(0.05 * 0.95 / repeats)
    bounds = {WITHIN: (0.93, 0.97), AT_LEAST: (0.93, 1.0), AT_MOST: (0.0, 0.05 + 2 * error)}
    met = ""
    if stated != MEASURED:
        met = "yes" if bounds[stated][0] <= rate <= bounds[stated][1] else "no"
    return Rate(contrast, check, case, unit, n, effect, repeats, rate, *ends, stated, met)


def planted_capture(
    ordinary: Float64[np.ndarray, " prompt"],
    rng: np.random.Generator,
    *,
    first: float = 0.0,
    massive: float | None = None,
    normed: float = 0.0,
    token_spread: float = 0.2,
    shortest: int = 8,
) -> Capture:
    """A one-block capture whose log gains are chosen, nats.

    A prompt's ordinary tokens have mean log gain `ordinary` exactly, position 0 has `first` in
    every prompt, token 1 (thirty times as large) has `massive` where given.  |ln_final(y)| is
    exp(normed) times |x|.  Prompts have `shortest` tokens and one more each, up to 24 more.
    """
    lengths = shortest + np.arange(len(ordinary)) % 25
    prompt = np.repeat(np.arange(len(ordinary)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    special = (position == 0) | ((position == 1) & (massive is not None))
    noise = np.where(special, 0.0, rng.normal(scale=token_spread, size=len(prompt)))
    noise -= np.where(
        special, 0, (np.bincount(prompt, noise) / np.bincount(prompt, ~special))[prompt]
    )
    log_gain = ordinary[prompt] + noise
    size = np.exp(0.3 * rng.normal(size=len(prompt)))
    if massive is not None:
        log_gain[position == 1] = massive
        size[position == 1] = 30.0
    log_gain[position == 0], size[position == 0] = first, 20.0
    direction = rng.normal(size=(2, len(prompt), 8))
    direction[1] = direction[0] + 0.5 * direction[1]
    direction[:, position == 0] = np.eye(8)[:2, None]
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    x = size[:, None] * direction[0]
    y = (size * np.exp(log_gain))[:, None] * direction[1]
    attention, mlp = 0.4 * (y - x), 0.6 * (y - x)
    pairs = ((x, x), (attention, attention), (mlp, mlp), (x, attention), (x, mlp))
    pairs += ((attention, mlp), (y, y), (x + attention, x + attention), (x + mlp, x + mlp))
    return Capture(
        prompt=prompt,
        position=position,
        token_id=np.where(position == 0, 1, 2),
        gram=np.stack([(left * right).sum(-1) for left, right in pairs])[:, None],
        top_value=np.zeros((1, len(prompt), 4)),
        top_index=np.zeros((1, len(prompt), 4), dtype=np.int64),
        normed=size * np.exp(normed),
    )


def last_block(capture: Capture) -> Float64[np.ndarray, " prompt"]:
    """The primary estimand of every prompt, through the same code as a real capture; nats."""
    return reduce_gains(decompose(capture)).log_gain[-1]


def coverage(case: str, prompts: int, repeats: int, seed: int = 0) -> Rate:
    """How often the 95 % interval of a mean holds the true mean."""
    draw, truth = DISTRIBUTIONS[case]
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, repeats, 20):  # each twenty data sets share their resamples
        values = draw(rng, (min(20, repeats - start), prompts))
        hits += sum(
            found.low <= truth <= found.high
            for found in mean_intervals(values, resamples=RESAMPLES, seed=start)
        )
    stated = MEASURED if prompts < 32 else AT_LEAST if case in HEAVY else WITHIN
    return rate_of(hits, repeats, "coverage", case, prompts, stated)


def band_coverage(prompts: int, repeats: int, seed: int = 0, share: int = 1) -> Rate:
    """How often the band holds all of eight correlated layers' true means; `share` as below."""
    rng = np.random.default_rng(seed)
    hits = 0
    for repeat in range(repeats):
        shared, own = rng.exponential(size=(1, prompts)), rng.normal(size=(8, prompts))
        low, high = simultaneous_band(
            shared + own, resamples=RESAMPLES, seed=repeat - repeat % share
        )
        hits += bool(((low <= 1) & (high >= 1)).all())
    case = "band over 8 layers, skewed and correlated"
    stated = MEASURED if prompts < 32 else WITHIN
    return rate_of(hits, repeats, "coverage", case, prompts, stated)


def claims(interval: Interval) -> bool:
    """Whether a difference is claimed: the interval leaves out 0."""
    return bool(interval.low > 0 or interval.high < 0)


def _pair(
    rng: np.random.Generator, prompts: int, effect: float
) -> tuple[Float64[np.ndarray, " prompt"], Float64[np.ndarray, " prompt"]]:
    """Two models on the same texts: shared and own prompt effects, skewed, of mean 0."""
    shared, *own = rng.exponential(size=(3, prompts)) - 1
    spread = PROMPT_SPREAD / np.sqrt(2)
    gains = [0.1 + PROMPT_SPREAD * shared + spread * part for part in own]
    long, short = gains[0] + np.log1p(effect / 100), gains[1]
    return last_block(planted_capture(long, rng)), last_block(planted_capture(short, rng))


def _paired(rng: np.random.Generator, prompts: int, seed: int, effect: float = 0.0) -> bool:
    return claims(
        difference_interval(
            *_pair(rng, prompts, effect), paired=True, resamples=RESAMPLES, seed=seed
        )
    )


def _unpaired(rng: np.random.Generator, prompts: int, seed: int, effect: float = 0.0) -> bool:
    long, short = _pair(rng, prompts, effect)[0], _pair(rng, prompts, 0.0)[1]
    return claims(difference_interval(long, short, paired=False, resamples=RESAMPLES, seed=seed))


def _same_twice(rng: np.random.Generator, prompts: int, seed: int) -> bool:
    values = _pair(rng, prompts, 0.0)[0]
    return claims(difference_interval(values, values, paired=True, resamples=RESAMPLES, seed=seed))


def _same_on_halves(rng: np.random.Generator, prompts: int, seed: int) -> bool:
    return claims(halves_interval(_pair(rng, 2 * prompts, 0.0)[0], resamples=RESAMPLES, seed=seed))


def _gain_of_one(rng: np.random.Generator, prompts: int, seed: int) -> bool:
    gains = PROMPT_SPREAD * (rng.exponential(size=prompts) - 1)
    values = last_block(planted_capture(gains, rng))
    (interval,) = mean_intervals(values[None], resamples=RESAMPLES, seed=seed)
    return behaviour_of(interval, 2.0**-24) != "FLAT"


NULLS: Final[dict[str, Callable[[np.random.Generator, int, int], bool]]] = {
    "same model twice, same prompts": _same_twice,
    "same model on disjoint halves of the prompts": _same_on_halves,
    "two models of one planted gain, paired": _paired,
    "two models of one planted gain, other prompts": _unpaired,
    "one model of gain 1 said to expand or contract": _gain_of_one,
}


def false_claims(case: str, prompts: int, repeats: int, seed: int = 0, share: int = 1) -> Rate:
    """How often a difference is claimed where none is planted.

    share: so many data sets share their resamples, which takes less time.
    """
    rng = np.random.default_rng(seed)
    hits = sum(NULLS[case](rng, prompts, repeat - repeat % share) for repeat in range(repeats))
    return rate_of(hits, repeats, "false claim", case, prompts, AT_MOST)


def power(
    effect: float, prompts: int, repeats: int, *, paired: bool, seed: int = 0, share: int = 1
) -> Rate:
    """How often a planted difference of gains, in per cent, is found; `share` as above."""
    rng = np.random.default_rng(seed)
    find = partial(_paired if paired else _unpaired, effect=effect)
    hits = sum(find(rng, prompts, repeat - repeat % share) for repeat in range(repeats))
    case = f"two models, {'paired' if paired else 'other prompts'}, {PROMPT_SPREAD} nats"
    return rate_of(hits, repeats, "power", case, prompts, MEASURED, f"{effect:g} %")


def calibrate(repeats: int = 4000, claims_repeats: int = 1000) -> Iterator[Rate]:
    """Every rate of the table, in its order."""
    for prompts in SIZES:
        for case in DISTRIBUTIONS:
            yield coverage(case, prompts, repeats)
        yield band_coverage(prompts, repeats)
    for prompts in SIZES:
        for case in NULLS:
            yield false_claims(case, prompts, claims_repeats)
    for prompts in SIZES:
        for effect in EFFECTS:
            for paired in (True, False):
                yield power(effect, prompts, claims_repeats, paired=paired)


def write_rates(path: Path, rates: Iterable[Rate]) -> None:
    """Measure everything, print each rate when it is known, and write the table."""
    rows: list[dict[str, object]] = []
    for rate in rates:
        rows.append(asdict(rate))
        print(*rows[-1].values(), flush=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Rate)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
