"""TODO: records.interval."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with its doubt."""

    estimate: float
    low: float
    """NaN where no interval can be given; `status` says why"""
    high: float
    n: int
    """independent units behind it"""
    confidence: float
    method: str
    status: str = "ok"

    @property
    def known(self) -> bool:
        return self.status == "ok"
