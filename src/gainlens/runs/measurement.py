"""Hold what `measure` returns, and answer questions about it with frames, arrays and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gainlens.claims.intervals import mean_intervals
from gainlens.core.messages import nearest
from gainlens.core.spec import RunSpec
from gainlens.core.table import Table
from gainlens.core.vocabulary import TokenClass
from gainlens.figures.ordering import Along
from gainlens.metrics.metric import Metric, OverTokens, column_metric, metric_values
from gainlens.metrics.prompts import reduce_metric
from gainlens.metrics.registry import METRICS, metric_named
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition
from gainlens.report.measurement import answer, shown_tables
from gainlens.runs.measured import Measured
from gainlens.runs.measurement_figures import draw_token_map, drawings_of
from gainlens.runs.measurement_frames import heads_frame, tokens_frame
from gainlens.runs.passes import with_passes

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Axis = Literal["tokens", "step"]


@dataclass(frozen=True)
class Measurement:
    """Hold what was measured of one model or many, without a claim."""

    measured: tuple[Measured, ...]
    """one per model, and per prompt length if there are several"""
    spec: RunSpec
    axis: Axis | None
    """what orders the measured models: prompt length or training step; None: nothing does"""
    positions: tuple[float, ...]
    """the prompt length or the step of each; empty if nothing orders them"""
    date: str
    """ISO 8601, UTC"""
    seconds: float
    """of loading and measuring"""
    environment: Mapping[str, str]
    command: str | None = None
    """the command line that asked for it; None if Python code did"""
    _with_passes: dict[int, Measured] = field(
        default_factory=dict[int, Measured], init=False, repr=False, compare=False
    )

    @property
    def reports(self) -> tuple[ModelReport, ...]:
        """Return one report per model, as the figures take them."""
        return tuple(one.report for one in self.measured)

    @property
    def along(self) -> Along | None:
        """Return what orders the measured models, as the figures take it."""
        return None if self.axis is None else Along(self.axis, self.positions)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models' names."""
        return tuple(report.checkpoint.name for report in self.reports)

    @cached_property
    def blocks(self) -> "pd.DataFrame":
        """Return a row per model and block: log gain and its parts in nats, gain, and its band.

        The tokens and the reduction are those of the spec's rule.  `low` and `high` are ends of the
        simultaneous band over blocks, as ratios.  A column `tokens` or `step` says the prompt
        length or the step if there are several.
        """
        import pandas as pd

        return pd.DataFrame(
            {"model": report.checkpoint.name, **self.position_of(place), **asdict(block)}
            for place, report in enumerate(self.reports)
            for block in report.blocks
        )

    @cached_property
    def tokens(self) -> "pd.DataFrame":
        """Return a row per model, token and block, with the token's text and the prompt's name.

        Columns of `extra`, and token_loss and skip_loss if they were measured, come last.
        """
        return tokens_frame(self)

    @cached_property
    def heads(self) -> "pd.DataFrame":
        """Return a row per model, block and head: its part of the log gain, nats, with an interval.

        The part is the mean over the prompts of the mean over their ordinary tokens.  `prompt`,
        `position`, `text` and `part_there` say on which ordinary token the head's part is largest
        in size.  Raises ValueError if the heads were not measured.
        """
        return heads_frame(self)

    def top_heads(self, n: int = 10) -> "pd.DataFrame":
        """Return the n rows of `heads` whose part of the log gain is largest in size."""
        order = np.argsort(-np.abs(self.heads["log_gain"].to_numpy()), kind="stable")
        return self.heads.iloc[order[:n]].reset_index(drop=True)

    def metric(
        self, name: str, tokens: TokenClass = "ordinary", over: OverTokens | None = None
    ) -> "xr.DataArray":
        """Return a metric as an array with the axes model, block and prompt.

        Args:
            name: of a metric, of a column that `extra` added, or `module:function`.
            tokens: the class of tokens that count: bos, massive, ordinary or all.
            over: how a prompt's tokens become one number; None: the metric's own way.

        A model that has fewer blocks, or lacks a prompt, has NaN there.  `attrs` holds the unit and
        the definition.  A metric that needs passes of its own (loss, skip_loss) runs the models
        again the first time; one that was given by name is loaded again for it.  Raises ValueError,
        with the nearest name, for an unknown metric.
        """
        import xarray as xr

        found = self._named(name)
        ids = list(dict.fromkeys(id for report in self.reports for id in report.prompts.ids))
        column = {id: place for place, id in enumerate(ids)}
        depth = max(len(report.blocks) for report in self.reports)
        values = np.full((len(self.measured), depth, len(ids)), np.nan)
        for place, one in enumerate(self.measured):
            columns = [column[id] for id in one.report.prompts.ids]
            own = reduce_metric(found, self._for_metric(place, found), tokens, over)
            values[place, : len(own), columns] = own.T
        coords: dict[str, Any] = {
            "model": list(self.models), "block": np.arange(depth), "prompt": ids
        }  # fmt: skip
        if self.axis is not None:
            coords[self.axis] = ("model", list(self.positions))
        return xr.DataArray(
            values,
            dims=("model", "block", "prompt"),
            coords=coords,
            name=found.name,
            attrs={"units": found.unit, "definition": found.definition, "tokens": tokens},
        )

    def difference(self, name: str = "log_gain", tokens: TokenClass = "ordinary") -> "pd.DataFrame":
        """Return the second model's metric minus the first's per block, paired over prompts.

        The interval is `low` to `high` in the metric's unit, over `n` prompts.  Models of different
        depth are compared in their last block alone.  Raises ValueError unless there are exactly
        two models that share at least one prompt.
        """
        import pandas as pd

        if len(self.measured) != 2:
            raise ValueError(
                f"a difference needs two models, not {len(self.measured)}: measure two together"
            )
        array = self.metric(name, tokens)
        depths = [len(report.blocks) for report in self.reports]
        blocks = list(range(depths[0])) if depths[0] == depths[1] else [-1]
        first, second = (
            array.values[place][[depth - 1] if blocks == [-1] else blocks]
            for place, depth in enumerate(depths)
        )
        rule = self.spec.rule
        intervals = mean_intervals(
            second - first, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
        )
        if not any(interval.n for interval in intervals):
            raise ValueError(
                "the two models have no prompt in common, so their difference cannot be paired"
            )
        return pd.DataFrame(
            {
                "metric": array.name,
                "block": block,
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
            }
            for block, interval in zip(blocks, intervals, strict=True)
        )

    @property
    def answer(self) -> str:
        """Return what was measured in one line."""
        return answer(self.reports, self.differences(), self.along)

    @property
    def shown_tables(self) -> list[Table]:
        """Return the tables that the terminal shows."""
        return shown_tables(self.reports, self.differences(), self.along)

    @property
    def further_tables(self) -> list[Table]:
        """Return the tables that the page shows before those of every measurement."""
        return []

    @property
    def badges(self) -> list[tuple[str, str]]:
        """Return every claim with its outcome, for the head of the page."""
        return []

    @property
    def frames(self) -> "dict[str, pd.DataFrame]":
        """Return the tables that are written as CSV beside those of every measurement."""
        return {}

    @property
    def document(self) -> dict[str, Any]:
        """Return what result.json holds beside the keys of every measurement."""
        return {}

    def differences(self, names: Sequence[str] = ("log_gain",)) -> list[dict[str, Any]]:
        """Return the rows of `difference` for several metrics; none unless there are two models."""
        if len(self.measured) != 2 or self.axis is not None:
            return []
        found = (self.difference(name, self.spec.rule.token_class) for name in names)
        return [row for frame in found for row in frame.to_dict("records")]

    @property
    def figures(self) -> tuple[str, ...]:
        """Return the names of the figures that can be drawn of this measurement."""
        return tuple(self.drawings())

    def figure(self, name: str = "gain_curve") -> "Axes | Figure":
        """Draw a figure by name; raise ValueError, with the nearest name, for an unknown one."""
        drawings = self.drawings()
        if name not in drawings:
            raise ValueError(f"no figure is called {name!r}; {nearest(name, drawings)}")
        return drawings[name]()

    def token_map(
        self,
        metric: str = "log_gain",
        prompt: str | int = 0,
        model: str | int = 0,
        *,
        interactive: bool = False,
    ) -> Any:
        """Draw a metric of every block and token of one prompt.

        Args:
            metric: the name of a metric that has a value per block and token.
            prompt: its name, or its place.
            model: its name, or its place.
            interactive: return a plotly figure (`pip install plotly`) instead of Axes.

        Raises ValueError, with the nearest name, if there is no such metric, prompt or model.
        """
        place = _place("model", model, self.models)
        one = self.measured[place]
        found = self._named(metric)
        if found.over != "block token":
            raise ValueError(f"{found.name} has no value per block and token; take another metric")
        index = _place("prompt", prompt, one.report.prompts.ids)
        values = metric_values(found, self._for_metric(place, found))
        return draw_token_map(one, found, values, index, interactive)

    def drawings(self) -> "dict[str, Callable[[], Axes | Figure]]":
        """Return every figure of this measurement by name, drawn when called."""
        return drawings_of(self)

    def _named(self, name: str) -> Metric:
        """Return a metric by name, or the column that `extra` added under it."""
        extras = (one.decomposition.capture.extra for one in self.measured)
        if name not in METRICS and all(name in extra for extra in extras):
            return column_metric(name)
        return metric_named(name)

    def _for_metric(self, place: int, metric: Metric) -> Decomposition:
        """Return one model's numbers with what the metric reads, measured now if it is missing."""
        one = self._with_passes.get(place, self.measured[place])
        self._with_passes[place] = with_passes(one, metric, self.spec)
        return self._with_passes[place].decomposition

    def position_of(self, place: int) -> dict[str, float]:
        """Return the column that says the prompt length or the step, if something orders them."""
        return {} if self.axis is None else {self.axis: self.positions[place]}


def _place(what: str, wanted: str | int, names: Sequence[str]) -> int:
    """Return the place of a name, or a place that there is."""
    if isinstance(wanted, str) and wanted in names:
        return list(names).index(wanted)
    if isinstance(wanted, int) and -len(names) <= wanted < len(names):
        return wanted % len(names)
    if isinstance(wanted, int):
        raise ValueError(f"there is no {what} {wanted}: there are {len(names)}")
    raise ValueError(f"no {what} is called {wanted!r}; {nearest(wanted, names)}")
