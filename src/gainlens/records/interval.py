"""Define an estimate with its interval."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """Hold an estimate with its interval."""

    estimate: float
    low: float
    """NaN if no interval can be given; `status` says why"""
    high: float
    n: int
    """how many independent units it rests on"""
    confidence: float
    method: str
    status: str = "ok"

    @property
    def known(self) -> bool:
        """Return whether there is an interval."""
        return self.status == "ok"
