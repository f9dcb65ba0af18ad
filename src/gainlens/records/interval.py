"""Define an estimate with its interval, or with the reason why there is none."""

from dataclasses import dataclass
from typing import Literal

Problem = Literal["too few", "constant", "unstable", "one value", "no tokens"]
"""Why an interval is not to be used: too few units, units without spread, units that a resample
cannot stand for, position 0 (the same number in every prompt), or no token of the class."""


@dataclass(frozen=True)
class Interval:
    """Hold an estimate with its interval, in the unit of what was averaged."""

    estimate: float
    low: float
    """NaN if no interval can be given; `status` says why"""
    high: float
    n: int
    """how many independent units it rests on"""
    confidence: float
    method: str
    status: str = "ok"
    """`ok`, or one sentence for the reader on what is wrong; nothing parses it"""
    problem: Problem | None = None

    @property
    def known(self) -> bool:
        """Return whether the interval may be used."""
        return self.status == "ok"

    @property
    def excludes_zero(self) -> bool:
        """Return whether the interval is known and leaves out 0."""
        return self.known and bool(self.low > 0 or self.high < 0)
