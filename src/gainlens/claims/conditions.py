"""Say if intervals fell short in calibration under the conditions of a run.

data/calibration.csv holds how often 95 % intervals covered a planted truth, under conditions that
users have: few prompts, outliers, prompts that come in groups.  If the rate was below 93 % a run
under that condition says so.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.clusters import CLUSTERED
from gainlens.records.groups import Clustering
from gainlens.records.interval import Interval

TABLE: Final = Path(__file__).parents[1] / "data" / "calibration.csv"
LEAST: Final = 0.93
"""If 95 % intervals covered less often than this, the run says so."""
EACH: Final = "level of each block"
"""The table's name of a level whose intervals hold for all blocks at once."""
SHAPES: Final = (
    "normal", "skewed (exponential)", "very skewed (lognormal 1)", "heavy-tailed (Student's t, 3)",
)  # fmt: skip
"""Distributions over prompts of which the table has a row at every number of prompts."""
OUTLIERS: Final = "5 % outliers"
CLUSTERS: Final = {0.2: "groups of 8, correlation 0.2", 0.5: "groups of 8, correlation 0.5"}
"""Cases of prompts in groups, by their intraclass correlation."""
_FAR: Final = 6.0
"""An outlier lies so many robust standard deviations from the median ..."""
_SHARE: Final = 0.025
"""... and a run has outliers if so many of its prompts are: half of the calibrated share."""
_ROBUST: Final = 1.4826
"""Standard deviations of a normal distribution per median absolute deviation."""


@dataclass(frozen=True)
class Coverage:
    """Hold how often 95 % intervals covered a planted mean in one condition."""

    case: str
    unit: str
    n: int
    rate: float


@cache
def coverages(contrast: str = "level") -> tuple[Coverage, ...]:
    """Return the coverage of one contrast's intervals, from the shipped calibration table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Coverage(row["case"], row["unit"], int(row["n"]), float(row["rate"]))
            for row in csv.DictReader(file)
            if (row["contrast"], row["check"]) == (contrast, "coverage")
        )


def _least(
    n: int, unit: str, wanted: Callable[[str], bool], contrast: str = "level"
) -> Coverage | None:
    """Return the lowest coverage among some cases, at the largest size that is not above n.

    If n is below every size, it is that at the smallest.
    """
    rows = [row for row in coverages(contrast) if row.unit == unit and wanted(row.case)]
    if not rows:
        return None
    size = max((row.n for row in rows if row.n <= n), default=min(row.n for row in rows))
    return min((row for row in rows if row.n == size), key=lambda row: row.rate)


def count_outliers(values: Float64[np.ndarray, " prompt"]) -> int:
    """Return how many values lie more than 6 robust standard deviations from the median."""
    distance = np.abs(values - np.median(values))
    return int(np.count_nonzero(distance > _FAR * _ROBUST * np.median(distance)))


def shortfall(values: Float64[np.ndarray, " prompt"], contrast: str = "level") -> str | None:
    """Say in one sentence if the interval for the mean of such values may be too narrow.

    values: one per prompt, NaN if unknown; contrast: the kind of contrast, or EACH.  None if
    calibration found no shortfall.
    """
    known = values[~np.isnan(values)]
    n = len(known)
    if n < 2:
        return None
    outliers = count_outliers(known)
    if outliers >= _SHARE * n:
        found = _least(n, "prompts", lambda case: case == OUTLIERS, contrast)
        if found is not None and found.rate < LEAST:
            return (
                f"{outliers} of {n} prompts are outliers: with {found.case} intervals of 95 % "
                f"covered {found.rate:.1%} in calibration."
            )
    found = _least(n, "prompts", SHAPES.__contains__, contrast)
    if found is None or found.rate >= LEAST:
        return None
    return (
        f"{n} prompts: intervals of 95 % over {found.n} prompts covered {found.rate:.1%} in "
        f"calibration if values are {found.case}."
    )


def clustered(
    clustering: Clustering | None, shown: Callable[[Interval], str], subject: str = "it"
) -> str | None:
    """Say in one sentence what groups of similar prompts do to an interval; None if nothing.

    shown: writes an interval; subject: what the interval is of.
    """
    if clustering is None or not clustering.correlation >= CLUSTERED:
        return None
    case = CLUSTERS[min(CLUSTERS, key=lambda icc: abs(icc - clustering.correlation))]
    over_prompts = _least(0, "prompts", lambda name: name == case)
    over_groups = _least(clustering.groups, "groups", lambda name: name.startswith(case))
    said = (
        "Prompts of one group resemble one another (intraclass correlation "
        f"{clustering.correlation:.2f})"
    )
    if over_prompts is not None and over_prompts.rate < LEAST:
        said += f", so intervals over prompts are too narrow ({over_prompts.rate:.0%} covered)"
    said += f": over {clustering.groups} groups {subject} is {shown(clustering.over_groups)}"
    if over_groups is not None and over_groups.rate < LEAST:
        skewed = " if groups are skewed" if over_groups.case.endswith("skewed") else ""
        said += f" (such intervals covered {over_groups.rate:.0%} in calibration{skewed})"
    return f"{said}."
