"""The heat map of a sweep and the dose-response of theta: what they show."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from planting.drawings import texts_of
from planting.figure_reports import TWINS
from planting.sweeps import change_of, doses_of, sweeps_of

from gainlens import figures
from gainlens.core.glossary import GLOSSARY
from gainlens.figures.style import name_of


def test_the_heat_map_writes_every_change_and_frames_what_flips():
    effects = sweeps_of(TWINS)
    figure = figures.ablation_heatmap(TWINS, effects)
    gain, notebook, loss = figure.axes
    for column, name in enumerate(report.checkpoint.name for report in TWINS):
        for row, effect in enumerate(effects[name]):
            for ax, value in (
                (gain, effect.change.delta_log_gain.estimate),
                (loss, effect.change.delta_loss.estimate),
            ):
                wanted = f"{value:+.2f}".replace("-", "−")
                (text,) = (t for t in ax.texts if t.get_position() == (column, row))
                assert text.get_text() == wanted
    frames = [patch for patch in gain.patches if isinstance(patch, Rectangle)]
    flips = [
        e for found in effects.values() for e in found if e.change.after.behaviour != "EXPANDS"
    ]
    assert len(frames) == len(flips) > 0
    assert not (*notebook.patches, *loss.patches)
    assert [tick.get_text() for tick in gain.get_yticklabels()][:3] == [
        "last, attention", "last, MLP", "2nd last, attention"
    ]  # fmt: skip
    written = " ".join(texts_of(figure)).replace("\n", " ")
    for key in ("delta_log_gain", "delta_last_gain", "delta_loss"):
        assert f"{GLOSSARY[key].label} ({GLOSSARY[key].unit})" in written


def test_theta_dose_draws_the_intervals_and_marks_the_own_base():
    found = doses_of(TWINS)
    figure = figures.theta_dose(TWINS, found)
    gain = figure.axes[0]
    segments = [
        segment
        for collection in gain.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]
    assert len(segments) == 4 * 4  # the own base has no interval
    own = [line for line in gain.lines if line.get_markersize() == 7.0]
    own_bases = sorted(float(line.get_xdata()[0]) for line in own)
    np.testing.assert_allclose(own_bases, [1e4, 1e4, 5e5, 5e5], rtol=0.2)  # they stand aside
    (legend,) = figure.legends
    models = [name_of(report) for report in TWINS]
    named = [text.get_text() for text in legend.get_texts()]
    assert named == [*models, "base that the model was trained with"]
    joined = [line for line in gain.lines if line.get_linestyle() != "None"]
    assert len(joined) == 1  # the line at 0: nothing was measured between two bases


def test_all_panels_of_a_heat_map_share_one_scale_of_colours():
    figure = figures.ablation_heatmap(TWINS, sweeps_of(TWINS))
    scales = [(image.norm.vmin, image.norm.vmax) for ax in figure.axes for image in ax.images]
    assert len(scales) == 3
    assert len(set(scales)) == 1


def test_the_legend_of_a_heat_map_names_only_marks_that_occur():
    same = {
        name: tuple(replace(effect, change=change_of(0.3)) for effect in swept)
        for name, swept in sweeps_of(TWINS, 1).items()
    }
    for effects, occurs in ((same, False), (sweeps_of(TWINS), True)):
        written = texts_of(figures.ablation_heatmap(TWINS, effects))
        assert any("becomes another" in text for text in written) is occurs


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no ablation by mean"):
        figures.ablation_heatmap(TWINS, sweeps_of(TWINS, 1), how="mean")
    with pytest.raises(ValueError, match="no dose of theta"):
        figures.theta_dose(TWINS, {})
