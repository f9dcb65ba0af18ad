"""Draw the figures of a measurement.  matplotlib is imported when the first one is drawn."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from gainlens import figures
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.metric import Metric
from gainlens.records.gains import Decomposition
from gainlens.runs.measured import Measured
from gainlens.runs.measurement_frames import head_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gainlens.runs.measurement import Measurement


def drawings_of(measurement: "Measurement") -> "dict[str, Callable[[], Axes | Figure]]":
    """Return every figure of a measurement by name, drawn when called."""
    reports, along = measurement.reports, measurement.along
    by_name = {one.report.checkpoint.name: one.decomposition for one in measurement.measured}

    def norms() -> "dict[str, figures.ClassNorms]":
        return {name: figures.class_norms(own) for name, own in by_name.items()}

    drawn: dict[str, Callable[[], Any]] = {
        "gain_curve": partial(figures.gain_curve, reports, along=along),
        "splits": partial(figures.splits, reports),
        "massive_lifecycle": lambda: figures.massive_lifecycle(reports, norms()),
        "gain_by_position": lambda: figures.gain_by_position(
            reports,
            {name: figures.position_quartiles(own) for name, own in by_name.items()},
            along=along,
        ),
    }
    if along is not None:
        drawn |= {
            "series": partial(figures.series, reports, along, rule=measurement.spec.rule),
            "splits": partial(figures.splits_along, reports, along),
            "massive_lifecycle": lambda: figures.lifecycle_along(reports, norms(), along),
        }
    weights = reports if along is None else along.once(reports)
    steps = along if measurement.axis == "step" else None
    if all(len(report.unembed.spectrum) for report in reports):
        drawn["unembed_spectrum"] = partial(figures.unembed_spectrum, weights, along=steps)
    if all(report.rope.rope_theta is not None for report in reports):
        drawn["rope_wavelengths"] = partial(figures.rope_wavelengths, weights, along=steps)
    drawn["token_map"] = (
        measurement.token_map if along is None else partial(_draw_last_block, measurement, along)
    )
    if all(one.decomposition.capture.heads is not None for one in measurement.measured):
        drawn["heads"] = partial(_draw_heads, measurement)
    sweeps = {r.checkpoint.name: r.interventions.sweep for r in reports}
    for how in sorted({effect.how for sweep in sweeps.values() for effect in sweep}):
        drawn[f"ablation_{how}"] = partial(
            figures.ablation_heatmap, reports, sweeps, how, along=along
        )
    doses = {r.checkpoint.name: r.interventions.theta_dose for r in reports}
    if any(doses.values()):
        drawn["theta_dose"] = partial(figures.theta_dose, reports, doses, along=along)
    return drawn


def draw_token_map(
    one: Measured,
    metric: Metric,
    values: Float64[np.ndarray, "block token"],
    prompt: int,
    interactive: bool,
) -> Any:
    """Draw a metric's values at every block and token of one prompt, given by its place."""
    tokens = prompt_slices(one.decomposition.prompt)[prompt]
    texts = one.decomposition.capture.token_text
    draw = figures.interactive_token_map if interactive else figures.token_map
    return draw(
        values[:, tokens],
        None if texts is None else list(texts[tokens]),
        metric=metric.name,
        neutral=metric.neutral,
    )


def _draw_heads(measurement: "Measurement") -> "Figure":
    parts = {
        one.report.checkpoint.name: np.nanmean(head_parts(one.decomposition), axis=2)
        for one in measurement.measured
    }
    along = measurement.along
    return figures.head_map(parts) if along is None else figures.heads_along(parts, along)


def _draw_last_block(measurement: "Measurement", along: "figures.Along") -> "Axes":
    """Draw the last block's log gain on the first prompt, a row per step or length."""
    places = next(iter(along.lines(measurement.models).values()))
    rows = [_first_prompt(measurement.measured[place].decomposition) for place in places]
    longest = max(len(values) for values, _ in rows)
    texts = rows[0][1]
    axes = figures.token_map(
        np.stack([np.pad(v, (0, longest - len(v)), constant_values=np.nan) for v, _ in rows]),
        texts if all(own == texts for _, own in rows) else None,
        along=along.of(places),
    )
    axes.set_title("last block")
    return axes


def _first_prompt(of: Decomposition) -> tuple[np.ndarray, list[str] | None]:
    """Return the last block's log gain on the first prompt, and the tokens' texts."""
    tokens = prompt_slices(of.prompt)[0]
    texts = of.capture.token_text
    return of.log_gain[-1, tokens], None if texts is None else list(texts[tokens])
