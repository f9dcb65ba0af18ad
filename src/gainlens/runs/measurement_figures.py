"""Draw the figures of a measurement.  matplotlib is imported when the first one is drawn."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from gainlens import figures
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.metric import Metric
from gainlens.runs.measured import Measured
from gainlens.runs.measurement_frames import head_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gainlens.runs.measurement import Measurement


def drawings_of(measurement: "Measurement") -> "dict[str, Callable[[], Axes | Figure]]":
    """Return every figure of a measurement by name, drawn when called."""
    reports = measurement.reports
    by_name = {one.report.checkpoint.name: one.decomposition for one in measurement.measured}
    drawn: dict[str, Callable[[], Any]] = {"gain_curve": partial(figures.gain_curve, reports)}
    if measurement.axis is not None:
        drawn["series"] = partial(_draw_series, measurement)
    drawn |= {
        "splits": partial(figures.splits, reports),
        "massive_lifecycle": lambda: figures.massive_lifecycle(
            reports, {name: figures.class_norms(own) for name, own in by_name.items()}
        ),
        "gain_by_position": lambda: figures.gain_by_position(
            reports, {name: figures.position_quartiles(own) for name, own in by_name.items()}
        ),
    }
    if all(len(report.unembed.spectrum) for report in reports):
        drawn["unembed_spectrum"] = partial(figures.unembed_spectrum, reports)
    if all(report.rope.rope_theta is not None for report in reports):
        drawn["rope_wavelengths"] = partial(figures.rope_wavelengths, reports)
    drawn["token_map"] = measurement.token_map
    if all(one.decomposition.capture.heads is not None for one in measurement.measured):
        drawn["heads"] = partial(_draw_heads, measurement)
    sweeps = {r.checkpoint.name: r.interventions.sweep for r in reports}
    for how in sorted({effect.how for sweep in sweeps.values() for effect in sweep}):
        drawn[f"ablation_{how}"] = partial(figures.ablation_heatmap, reports, sweeps, how)
    doses = {r.checkpoint.name: r.interventions.theta_dose for r in reports}
    if any(doses.values()):
        drawn["theta_dose"] = partial(figures.theta_dose, reports, doses)
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
    return figures.head_map(
        {
            one.report.checkpoint.name: np.nanmean(head_parts(one.decomposition), axis=2)
            for one in measurement.measured
        }
    )


def _draw_series(measurement: "Measurement") -> "Axes":
    assert measurement.axis is not None
    rule = measurement.spec.rule
    return figures.series(measurement.reports, measurement.positions, measurement.axis, rule=rule)
