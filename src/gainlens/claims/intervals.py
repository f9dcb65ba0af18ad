"""Compute intervals for means over prompts and over seeds.  numpy and scipy only.

The unit is the prompt: tokens of one prompt are not independent, so each prompt enters as one
number.  The interval is a symmetric studentised bootstrap (Hall 1988, J. R. Stat. Soc. B 50: from
the quantile of |t|) in which a resample draws half as many prompts as there are (m out of n;
Bickel, Goetze & van Zwet 1997).  A small sample understates its own tails, and half-sized resamples
make up for it.  Coverage of 95 % intervals for the mean of 32 values, one set of 4,000 draws for
all rows:

    values                              normal  Student t(3)  exponential  lognormal(1)
    this one                            0.963   0.967         0.966        0.940
    same, full-sized resamples          0.955   0.956         0.950        0.917
    equal-tailed, half-sized            0.959   0.914         0.961        0.941
    equal-tailed, full-sized            0.951   0.915         0.950        0.927
    Student's t                         0.954   0.950         0.933        0.889

data/calibration.csv holds the coverage that scripts/calibrate.py measures on draws of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import stdtrit

from gainlens.records.interval import Interval, Problem

ROUNDING = 1e-12
"""Values that differ by less (nats) do not differ: float64 logs of ratios, summed over tokens."""
FEW = 12
"""Below this many prompts half of them are too few to resample: Student's t instead."""
LARGEST_T = 4000.0
"""A quantile of |t| beyond this comes from resamples without spread, so it says nothing."""
CONSTANT = "no interval: every value is the same, so their spread cannot be told"
UNSTABLE = "no interval: too few distinct values to resample"

RESAMPLES = 20_000
"""With these the half-width of a 95 % interval varies by 0.6 % over seeds; with 2,000 by 2 %."""

_METHOD = "symmetric studentised bootstrap over prompts, half-sized resamples"
_STUDENT = "Student's t"
_BLOCK = 128
"""Resamples are drawn, and cells treated, in blocks of this size: 20,000 |t| of a block of cells
take 20 MB."""
_KEPT_DRAWS = 2_000_000
"""Draws are kept if they are no more than so many numbers, 16 MB."""
Cells = Float64[np.ndarray, "cell prompt"]
Band = tuple[Float64[np.ndarray, " block"], Float64[np.ndarray, " block"]]
"""Low and high end of every block."""


def _seeded_draws(
    n: int, size: int, resamples: int, seed: int, side: int | None = None
) -> Iterable[Float64[np.ndarray, "resample prompt"]]:
    """Return what `draw_shares` yields for a seed; a run asks for the same some hundred times.

    side: 0 or 1, of a difference of two groups; None: there is one group.
    """
    if n * resamples <= _KEPT_DRAWS:
        return _kept_draws(n, size, resamples, seed, side)
    return draw_shares(n, size, resamples, _generator(seed, side))


@lru_cache(maxsize=4)
def _kept_draws(
    n: int, size: int, resamples: int, seed: int, side: int | None
) -> tuple[np.ndarray, ...]:
    return tuple(draw_shares(n, size, resamples, _generator(seed, side)))


def _generator(seed: int, side: int | None) -> np.random.Generator:
    rng = np.random.default_rng(seed)
    return rng if side is None else rng.spawn(2)[side]


def draw_shares(
    n: int, size: int, resamples: int, rng: np.random.Generator
) -> Iterator[Float64[np.ndarray, "resample prompt"]]:
    """Yield, in blocks of resamples, the share of `size` draws that falls on each of n prompts."""
    for start in range(0, resamples, _BLOCK):
        rows = min(_BLOCK, resamples - start)
        drawn: Int64[np.ndarray, "resample draw"] = rng.integers(0, n, (rows, size))
        flat = (drawn + n * np.arange(rows)[:, None]).ravel()
        yield np.bincount(flat, minlength=rows * n).reshape(rows, n) / size


def _moments(
    weights: np.ndarray, centred: Cells, size: int
) -> tuple[Float64[np.ndarray, "resample cell"], Float64[np.ndarray, "resample cell"]]:
    """Return mean and squared standard error of resamples of standardised values."""
    mean = weights @ centred.T
    variance = weights @ (centred**2).T - mean**2
    return mean, np.where(variance > ROUNDING, variance, 0.0) / (size - 1)


def _studentised(mean: np.ndarray, squared_error: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without spread: +-inf, or 0
        t = mean / np.sqrt(squared_error)
    t[np.isnan(t)] = 0.0
    return t


def _standardise(values: Cells) -> tuple[Cells, Float64[np.ndarray, " cell"]]:
    """Return values of mean 0 and standard deviation 1, and the standard errors of the means."""
    deviation = values.std(axis=1, ddof=1)
    centred = (values - values.mean(axis=1, keepdims=True)) / deviation[:, None]
    return centred, deviation / np.sqrt(values.shape[1])


def _half_widths(
    values: Cells, confidence: float, resamples: int, seed: int
) -> Float64[np.ndarray, " cell"]:
    """Return half the interval's width of each cell, in standard errors of its mean."""
    n = values.shape[1]
    if n < FEW:
        return np.full(len(values), stdtrit(n - 1, (1 + confidence) / 2))
    centred, _ = _standardise(values)
    t = [
        _studentised(*_moments(weights, centred, n // 2))
        for weights in _seeded_draws(n, n // 2, resamples, seed)
    ]
    return _quantile(np.concatenate(t), confidence)


def _quantile(
    t: Float64[np.ndarray, "resample cell"], probability: float
) -> Float64[np.ndarray, " cell"]:
    """Return the quantile of |t| over resamples; NaN if it lies among resamples without spread."""
    quantile = np.quantile(np.abs(t), probability, axis=0, method="higher")
    return np.where(quantile < LARGEST_T, quantile, np.nan)


def _unknown(
    estimate: float, n: int, confidence: float, method: str, problem: Problem, status: str
) -> Interval:
    return Interval(estimate, np.nan, np.nan, n, confidence, method, status, problem)


def _too_few(values: np.ndarray, confidence: float, unit: str) -> Interval:
    """Return an interval without ends, for fewer than two values."""
    n = len(values)
    estimate = float(values[0]) if n else np.nan
    status = f"no interval: {n} {unit}{'' if n == 1 else 's'}, at least 2 are needed"
    return _unknown(estimate, n, confidence, "none", "too few", status)


def mean_intervals(
    values: Cells, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, ...]:
    """Return a two-sided interval for the mean over prompts of each cell, in the values' unit.

    Shape: [cell, prompt].  NaN marks a prompt without tokens of the class: it is left out, and `n`
    counts the rest.  Cells with equally many prompts share their resamples.  If there is no
    interval (fewer than 2 prompts, no spread), the ends are NaN and the status says why.
    """
    assert not np.isinf(values).any(), "a log gain is finite or unknown"
    counts = (~np.isnan(values)).sum(axis=1)
    intervals: dict[int, Interval] = {}
    for n in np.unique(counts):
        cells = np.flatnonzero(counts == n)
        known = values[cells][~np.isnan(values[cells])].reshape(len(cells), n)
        for start in range(0, len(cells), _BLOCK):
            part = slice(start, start + _BLOCK)
            part_intervals = _equal_sized(known[part], confidence, resamples, seed)
            intervals.update(zip(cells[part].tolist(), part_intervals, strict=True))
    return tuple(intervals[cell] for cell in range(len(values)))


def _equal_sized(values: Cells, confidence: float, resamples: int, seed: int) -> list[Interval]:
    n = values.shape[1]
    if n < 2:
        return [_too_few(row, confidence, "prompt") for row in values]
    method = _METHOD if n >= FEW else f"{_STUDENT} over prompts"
    means = values.mean(axis=1)
    spread = np.ptp(values, axis=1) > ROUNDING
    half = np.full(len(values), np.nan)
    if spread.any():
        width = _half_widths(values[spread], confidence, resamples, seed)
        half[spread] = width * _standardise(values[spread])[1]
    return [
        _interval(float(means[cell]), float(half[cell]), n, confidence, method, bool(spread[cell]))
        for cell in range(len(values))
    ]


def _interval(
    estimate: float, half: float, n: int, confidence: float, method: str, varies: bool = True
) -> Interval:
    if not varies:
        return _unknown(estimate, n, confidence, method, "constant", CONSTANT)
    if np.isnan(half):
        return _unknown(estimate, n, confidence, method, "unstable", UNSTABLE)
    return Interval(estimate, estimate - half, estimate + half, n, confidence, method)


def mean_interval(
    values: Float64[np.ndarray, " prompt"],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval for the mean of one value per prompt, in the values' unit."""
    (interval,) = mean_intervals(
        values[None], confidence=confidence, resamples=resamples, seed=seed
    )
    return interval


def difference_interval(
    long: Float64[np.ndarray, " prompt"],
    short: Float64[np.ndarray, " prompt_of_short"],
    *,
    paired: bool,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return mean of `long` minus mean of `short` with its interval, in the values' unit.

    Paired: both hold the same prompts in the same order, and the prompts' differences are the
    values.  Unpaired: prompts are drawn from either side on its own, with Welch's standard error.
    """
    if paired:
        assert len(long) == len(short), "paired values: one per prompt on either side"
        return mean_interval(long - short, confidence=confidence, resamples=resamples, seed=seed)
    sides = [side[~np.isnan(side)][None] for side in (long, short)]
    n = sum(side.shape[1] for side in sides)
    fewest = min(sides, key=lambda side: side.shape[1])
    if fewest.shape[1] < 2:
        return _too_few(fewest[0], confidence, "prompt")
    estimate = float(sides[0].mean() - sides[1].mean())
    if not any(np.ptp(side) > ROUNDING for side in sides):
        return _unknown(estimate, n, confidence, "Welch's t", "constant", CONSTANT)
    width, method = _welch_half_width(sides, confidence, resamples, seed)
    error = float(np.sqrt(sum(side.var(ddof=1) / side.shape[1] for side in sides)))
    return _interval(estimate, width * error, n, confidence, method)


def _welch_half_width(
    sides: Sequence[np.ndarray], confidence: float, resamples: int, seed: int
) -> tuple[float, str]:
    """Return half the width in standard errors of the difference, and the method's name."""
    if min(side.shape[1] for side in sides) < FEW:
        parts = np.array([side.var(ddof=1) / side.shape[1] for side in sides])
        free = np.array([side.shape[1] - 1 for side in sides])
        degrees = parts.sum() ** 2 / (parts**2 / free).sum()
        return float(stdtrit(degrees, (1 + confidence) / 2)), "Welch's t over prompts"
    scale = max(float(side.std(ddof=1)) for side in sides)
    centred = [(side - side.mean()) / scale for side in sides]
    sizes = [side.shape[1] // 2 for side in sides]
    streams = [
        _seeded_draws(values.shape[1], size, resamples, seed, side)
        for side, (values, size) in enumerate(zip(sides, sizes, strict=True))
    ]
    t: list[np.ndarray] = []
    for weights in zip(*streams, strict=True):
        (mean, error), (other, other_error) = map(_moments, weights, centred, sizes)
        t.append(_studentised(mean - other, error + other_error))
    method = f"{_METHOD}, drawn on either side on its own"
    return float(_quantile(np.concatenate(t), confidence)[0]), method


def halves_interval(
    values: Float64[np.ndarray, " prompt"],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compare a model with itself on disjoint halves of the prompts, drawn at random.

    Its truth is 0; an interval that leaves 0 out is a false alarm, as often as stated.
    """
    order = np.random.default_rng(seed).permutation(len(values))
    halves = [values[order[start::2]] for start in (0, 1)]
    return difference_interval(
        *halves, paired=False, confidence=confidence, resamples=resamples, seed=seed
    )


def seed_interval(
    values: Float64[np.ndarray, " seed"], *, confidence: float = 0.95, unit: str = "seed"
) -> Interval:
    """Return Student's t interval for the mean over seeds, or over another handful of units."""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return _too_few(values, confidence, unit)
    estimate, method = float(values.mean()), f"{_STUDENT} over {unit}s"
    if np.ptp(values) <= ROUNDING:
        return _unknown(estimate, len(values), confidence, method, "constant", CONSTANT)
    half = stdtrit(len(values) - 1, (1 + confidence) / 2) * values.std(ddof=1)
    half = float(half / np.sqrt(len(values)))
    return Interval(estimate, estimate - half, estimate + half, len(values), confidence, method)


def simultaneous_band(
    values: Float64[np.ndarray, "block prompt"],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Band:
    """Return a band (low, high) that holds every block's mean with the stated confidence.

    Bootstrap of the largest |t| over blocks, prompts drawn whole, so that the blocks' correlation
    counts (full-sized resamples: half-sized ones covered 97 %).  Prompts that lack the class are
    left out.  The band is NaN if a block has no spread or there are fewer than 2 prompts.  Below 12
    prompts it is Student's t with Bonferroni's correction.
    """
    return simultaneous_bands([values], confidence=confidence, resamples=resamples, seed=seed)[0]


def simultaneous_bands(
    grids: Sequence[Float64[np.ndarray, "block _prompt"]],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Band]:
    """Return the `simultaneous_band` of each grid; grids of as many prompts share their draws.

    Grids may differ in their number of prompts, so `_prompt` binds no size.  With thousands of
    prompts the draws take most of the time.
    """
    grids = [values[:, ~np.isnan(values).any(axis=0)] for values in grids]
    varying = [
        np.ptp(values, axis=1) > ROUNDING if values.shape[1] >= 2 else np.zeros(len(values), bool)
        for values in grids
    ]
    scaled = {
        place: _standardise(values[varies])
        for place, (values, varies) in enumerate(zip(grids, varying, strict=True))
        if varies.any()
    }
    largest: dict[int, list[np.ndarray]] = {place: [] for place in scaled}
    for n in {grids[place].shape[1] for place in scaled if grids[place].shape[1] >= FEW}:
        alike = [place for place in scaled if grids[place].shape[1] == n]
        for weights in _seeded_draws(n, n, resamples, seed):
            for place in alike:
                t = _studentised(*_moments(weights, scaled[place][0], n))
                largest[place].append(np.abs(t).max(axis=1, keepdims=True))
    bands: list[Band] = []
    for place, (values, varies) in enumerate(zip(grids, varying, strict=True)):
        low, high = np.full((2, len(values)), np.nan)
        if place in scaled:
            centred, error = scaled[place]
            if largest[place]:
                half = _quantile(np.concatenate(largest[place]), confidence)[0]
            else:
                tail = (1 - confidence) / 2 / len(centred)
                half = float(stdtrit(values.shape[1] - 1, 1 - tail))
            means = values[varies].mean(axis=1)
            low[varies], high[varies] = means - half * error, means + half * error
        bands.append((low, high))
    return bands
