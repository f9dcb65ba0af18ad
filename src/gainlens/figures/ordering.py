"""Hold what orders a figure's reports: the training step, or the length of the prompts.  No
matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from gainlens.records.comparison import ModelReport

_LABELS: Final = {"tokens": "prompt length (tokens)", "step": "training step"}


@dataclass(frozen=True)
class Along:
    """Hold the training step or the prompt length of every report of a figure."""

    axis: Literal["tokens", "step"]
    positions: tuple[float, ...]
    """one per report"""

    @property
    def label(self) -> str:
        """Return the axis label."""
        return _LABELS[self.axis]

    @property
    def ticks(self) -> list[str]:
        """Return every position as text."""
        return [position_text(position) for position in self.positions]

    def lines(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Return the places of each model's reports, by the model's name.

        Names that agree up to an `@` are one model at several lengths.  All steps are one model.

        Raises ValueError if there is not one position per name.
        """
        if len(names) != len(self.positions):
            raise ValueError(
                f"got {len(names)} reports and {len(self.positions)} positions: give each one"
            )
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            model = "" if self.axis == "step" else name.rpartition("@")[0]
            places.setdefault(model, []).append(place)
        return places

    def once(self, reports: Sequence[ModelReport]) -> list[ModelReport]:
        """Return the reports, but one per model if only lengths differ: weights do not change."""
        if self.axis == "step":
            return list(reports)
        firsts = {name: reports[at[0]] for name, at in self.lines(names_of(reports)).items()}
        return [
            replace(report, checkpoint=replace(report.checkpoint, name=name))
            for name, report in firsts.items()
        ]

    def of(self, places: Sequence[int]) -> "Along":
        """Return the positions of some reports."""
        return replace(self, positions=tuple(self.positions[place] for place in places))


def position_text(position: float) -> str:
    """Write 4,000 as it is and 143,000 as 143k."""
    if position >= 10_000 and position % 100 == 0:
        return f"{position / 1000:g}k"
    return f"{position:,.0f}"


def names_of(reports: Sequence[ModelReport]) -> list[str]:
    """Return the models' names."""
    return [report.checkpoint.name for report in reports]
