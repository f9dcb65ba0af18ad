"""Hold what `gainlens.layers` returns: what each block does, and what skipping it costs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float64

from gainlens import figures
from gainlens.claims.intervals import mean_intervals
from gainlens.claims.removal import agreements, removal_of
from gainlens.core.table import Table
from gainlens.metrics.registry import METRICS
from gainlens.records.importance import Agreement, Removal
from gainlens.report.importance import importance_table, removal_answer
from gainlens.runs.measurement import Measurement

if TYPE_CHECKING:
    import pandas as pd

MEASURES: Final = (
    "influence", "angle", "attention_write", "mlp_write", "write", "skip_loss",
)  # fmt: skip


@dataclass(frozen=True)
class Layers(Measurement):
    """Hold one model's measurement, with what each block does and what skipping it costs."""

    @cached_property
    def layers(self) -> "pd.DataFrame":
        """Return a row per block: every measure's mean over prompts with its interval.

        The columns are block, place, and for each measure its name, NAME_low and NAME_high, in the
        measure's unit.  `place` counts from 1 for the blocks that cost least to skip; blocks that
        tie share it; it is NaN if the order is withheld.
        """
        import pandas as pd

        places = {
            block: float(place)
            for place, group in enumerate(self.removal.groups, start=1)
            for block in group
        }
        rows: dict[str, Any] = {"block": range(self._values["skip_loss"].shape[0])}
        rows["place"] = [places.get(block, np.nan) for block in rows["block"]]
        for name, ends in self._ends.items():
            rows |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        return pd.DataFrame(rows)

    @cached_property
    def removal(self) -> Removal:
        """Return the blocks in the order of what skipping each costs, as far as it is known."""
        return removal_of(self._values["skip_loss"], self.spec.rule)

    @cached_property
    def agreement(self) -> tuple[Agreement, ...]:
        """Return how far each measure ranks the blocks as their skip loss does."""
        means = {name: ends[0] for name, ends in self._ends.items()}
        return agreements(means, means.pop("skip_loss"), self.spec.rule)

    @property
    def answer(self) -> str:
        """Return which blocks cost least, or why that cannot be said, in one line."""
        return removal_answer(
            self.models[0], self.removal, len(self.reports[0].prompts.ids), len(self.layers)
        )

    @property
    def shown_tables(self) -> list[Table]:
        """Return the tables that the terminal shows."""
        return [importance_table(self.layers.to_dict("records"), self.agreement, shown=True)]

    @property
    def further_tables(self) -> list[Table]:
        """Return the tables that the page shows before those of every measurement."""
        return [importance_table(self.layers.to_dict("records"), self.agreement)]

    @property
    def frames(self) -> "dict[str, pd.DataFrame]":
        """Return the tables that are written as CSV beside those of every measurement."""
        import pandas as pd

        agreed = [{**asdict(one), "beyond_chance": one.beyond_chance} for one in self.agreement]
        return {"layers": self.layers, "agreement": pd.DataFrame(agreed)}

    @property
    def document(self) -> dict[str, Any]:
        """Return what result.json holds beside the keys of every measurement."""
        records = {name: frame.to_dict("records") for name, frame in self.frames.items()}
        return {**records, "removal": {**asdict(self.removal), "order": self.removal.order}}

    def drawings(self) -> "dict[str, Callable[[], Any]]":
        """Return every figure by name, that of the measures first."""
        return {"importance": self._draw_importance} | super().drawings()

    def _draw_importance(self) -> Any:
        return figures.importance(
            self._ends,
            {name: METRICS[name].unit for name in MEASURES},
            {one.measure: one.spearman for one in self.agreement},
        )

    @cached_property
    def _values(self) -> Mapping[str, Float64[np.ndarray, "block prompt"]]:
        tokens = self.spec.rule.token_class
        return {name: self.metric(name, tokens).values[0] for name in MEASURES}

    @cached_property
    def _ends(self) -> Mapping[str, Float64[np.ndarray, "end block"]]:
        """Return each measure's mean, low and high end per block."""
        rule = self.spec.rule
        ends: dict[str, np.ndarray] = {}
        for name, values in self._values.items():
            intervals = mean_intervals(
                values, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
            )
            ends[name] = np.array([(one.estimate, one.low, one.high) for one in intervals]).T
        return ends
