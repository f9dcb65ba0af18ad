"""Say what the terminal and the page need of a run, with a claim or without."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from gainlens.records.comparison import ModelReport


@runtime_checkable  # beartype checks it in tests
class Run(Protocol):
    """A comparison, or a measurement that tests no claim."""

    @property
    def reports(self) -> tuple[ModelReport, ...]:
        """Return one report per model."""
        ...

    @property
    def spec(self) -> Any:
        """Return what was asked for; its `rule` names the estimand."""
        ...

    @property
    def date(self) -> str:
        """Return the date, ISO 8601, UTC."""
        ...

    @property
    def seconds(self) -> float:
        """Return how long loading and measuring took."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the versions and the machine."""
        ...

    @property
    def command(self) -> str | None:
        """Return the command line that asked for it; None if Python code did."""
        ...
