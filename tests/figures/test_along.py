"""Figures of a series: each has a step or length axis, and no two models share a mark or colour."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from matplotlib.text import Text
from planting.drawings import boxes_of, texts_of
from planting.figure_reports import decomposition_of, report_of
from planting.sweeps import doses_of, sweeps_of

from gainlens import figures
from gainlens.figures.along import looks_along
from gainlens.figures.dark import PARTNERS
from gainlens.figures.style import root_figure

STEPS = figures.Along("step", (0.0, 1e3, 4e3, 8e3, 1.6e4, 6.4e4, 1.43e5))
CHECKPOINTS = [
    report_of("model", f"pythia@step{step:.0f}", last=0.02 * place, seed=place)
    for place, step in enumerate(STEPS.positions)
]
LENGTHS = figures.Along("tokens", (64.0, 256.0, 1024.0) * 2)
TWO_MODELS = [
    report_of("model", f"{name}@{length}", last=0.03 * place, seed=place)
    for place, (name, length) in enumerate(product(("base", "tuned"), (64, 256, 1024)))
]
SERIES = {"steps": (CHECKPOINTS, STEPS), "lengths of two": (TWO_MODELS, LENGTHS)}


def named(reports, function):
    return {report.checkpoint.name: function(report) for report in reports}


def heads(report):
    return np.random.default_rng(len(report.checkpoint.name)).normal(0, 0.03, (8, 4))


DRAWINGS = {
    "gain_curve": lambda reports, along: figures.gain_curve(reports, along=along),
    "series": figures.series,
    "splits": figures.splits_along,
    "heads": lambda reports, along: figures.heads_along(named(reports, heads), along),
    "massive_lifecycle": lambda reports, along: figures.lifecycle_along(
        reports, named(reports, lambda r: figures.class_norms(decomposition_of(r))), along
    ),
    "gain_by_position": lambda reports, along: figures.gain_by_position(
        reports,
        named(reports, lambda r: figures.position_quartiles(decomposition_of(r))),
        along=along,
    ),
    "token_map": lambda reports, along: figures.token_map(
        np.random.default_rng(0).normal(size=(len(reports), 20)), along=along
    ),
    "unembed_spectrum": lambda reports, along: figures.unembed_spectrum(reports, along=along),
    "rope_wavelengths": lambda reports, along: figures.rope_wavelengths(reports, along=along),
    "ablation": lambda reports, along: figures.ablation_heatmap(
        reports, sweeps_of(reports, 2), along=along
    ),
    "theta_dose": lambda reports, along: figures.theta_dose(
        reports, doses_of(reports), along=along
    ),
}
CASES = list(product(SERIES, DRAWINGS))


@pytest.mark.parametrize("column", [nullcontext, figures.one_column])
@pytest.mark.parametrize(("name", "drawing"), CASES)
def test_every_figure_of_a_series_has_its_axis_in_readable_text_and_clips_none(
    name, drawing, column
):
    reports, along = SERIES[name]
    with column():
        figure = root_figure(DRAWINGS[drawing](reports, along))
    figure.draw_without_rendering()
    assert along.label in texts_of(figure)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6
    for artist, box in boxes_of(figure):
        low, high = figure.bbox.padded(1.0).get_points()
        assert (box.get_points() >= low).all(), (artist, box, figure.bbox)
        assert (box.get_points() <= high).all(), (artist, box, figure.bbox)


@pytest.mark.parametrize("name", SERIES)
def test_no_two_reports_share_a_mark_or_a_colour_and_each_has_a_dark_partner(name):
    looks = looks_along(*SERIES[name])
    assert len({look.marker for look in looks}) == len(looks)
    assert len({look.colour for look in looks}) == len(looks)
    assert len({PARTNERS[look.colour] for look in looks}) == len(looks)


def test_a_models_colour_grows_stronger_along_the_series():
    looks = looks_along(CHECKPOINTS, STEPS)
    sums = [sum(int(look.colour[at : at + 2], 16) for at in (1, 3, 5)) for look in looks]
    assert sums == sorted(sums, reverse=True)
    dark = [PARTNERS[look.colour] for look in looks]
    sums = [sum(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in dark]
    assert sums == sorted(sums)


def test_a_map_of_a_series_holds_the_records_numbers_by_step():
    figure = figures.splits_along(CHECKPOINTS, STEPS)
    log_gain, attention, mlp = (axes.images[0].get_array() for axes in figure.axes)
    assert log_gain.shape == (8, len(CHECKPOINTS))
    assert log_gain[5, 3] == CHECKPOINTS[3].blocks[5].log_gain
    np.testing.assert_allclose(attention + mlp, log_gain, atol=1e-12)


def test_the_heads_of_a_series_are_those_of_largest_size_at_any_step():
    early, late = np.zeros((2, 3)), np.zeros((2, 3))
    early[1, 2], late[0, 1] = -0.5, 0.2
    along = figures.Along("step", (1.0, 2.0))
    (axes,) = figures.heads_along({"a": early, "b": late}, along, top=2).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["L0H1", "L1H2"]  # upwards
    assert axes.images[0].get_array().tolist() == [[0.0, 0.2], [-0.5, 0.0]]


def test_weights_are_drawn_once_where_only_the_length_differs():
    assert [report.checkpoint.name for report in LENGTHS.once(TWO_MODELS)] == ["base", "tuned"]
    assert STEPS.once(CHECKPOINTS) == CHECKPOINTS


def test_the_strip_marks_every_step_where_it_lies():
    axes = figures.gain_curve(CHECKPOINTS, along=STEPS)
    (strip,) = axes.child_axes
    marks = [line.get_xdata()[0] for line in strip.lines[1:]]
    assert marks == list(STEPS.positions)


def test_a_missing_position_is_said():
    with pytest.raises(ValueError, match="6 positions"):
        figures.series(CHECKPOINTS, replace(STEPS, positions=STEPS.positions[1:]))
