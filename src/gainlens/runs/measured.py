"""Hold what was measured of one model.  No torch: a process that draws needs none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition

if TYPE_CHECKING:
    from gainlens.models.loaded import LoadedModel


@dataclass(frozen=True)
class Measured:
    """One model's report with the numbers behind it."""

    report: ModelReport
    decomposition: Decomposition
    reopen: "Callable[[], LoadedModel] | None" = None
    """gives the model again, for a metric that needs passes of its own; None: there is none"""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the way back to the model out of a pickle: a model stays in its process."""
        return {**vars(self), "reopen": None}
