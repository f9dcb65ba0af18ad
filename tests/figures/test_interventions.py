"""The heat map of a sweep and the dose-response of theta: what they show, unclipped."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from planting.drawings import boxes_of, texts_of
from planting.figure_reports import NAN, TWINS, interval_of

from gainlens import figures
from gainlens.core.glossary import GLOSSARY
from gainlens.figures.style import name_of
from gainlens.records.interventions import AblationEffect, Change, LastBlock, ThetaDose


def last_block(log_gain: float, behaviour: str | None = "EXPANDS") -> LastBlock:
    return LastBlock(interval_of(log_gain, 0.02), 3.8, interval_of(2.4, 0.1), behaviour)


def change_of(delta: float, half: float = 0.01, behaviour: str | None = "EXPANDS") -> Change:
    return Change(
        last_block(0.09), last_block(0.09 + delta, behaviour),
        interval_of(delta, half), interval_of(delta / 2, half),
    )  # fmt: skip


def sweep(blocks: int, seed: int, heads: int = 0) -> tuple[AblationEffect, ...]:
    rng = np.random.default_rng(seed)
    found = []
    for back in range(1, blocks + 1):
        for site in ("hook_attn_out", "hook_mlp_out", *(f"attn.hook_z[{h}]" for h in range(heads))):
            delta = float(rng.normal(0, 0.1))
            behaviour = "CONTRACTS" if delta < -0.09 else "EXPANDS"
            found.append(
                AblationEffect(
                    f"blocks.-{back}.{site}", "zero", change_of(delta, 0.05, behaviour), np.zeros(3)
                )
            )
    return tuple(found)


def names():
    return [report.checkpoint.name for report in TWINS]


def sweeps(blocks=8, heads=0):
    return {name: sweep(blocks, seed, heads) for seed, name in enumerate(names())}


def doses():
    own = dict(zip(names(), (1e4, 5e5, 5e5, 1e4), strict=True))
    return {
        name: tuple(
            ThetaDose(theta, theta == own[name],
                      change_of(*(0.0, NAN) if theta == own[name] else (place * 0.01, 0.02)),
                      np.zeros(3))
            for place, theta in enumerate((1e3, 1e4, 1e5, 5e5, 5e6))
        )
        for name in own
    }  # fmt: skip


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.ablation_heatmap(TWINS, sweeps()),
        lambda: figures.ablation_heatmap(TWINS, sweeps(1)),
        lambda: figures.ablation_heatmap(TWINS[:2], sweeps(2, heads=4)),
        lambda: figures.theta_dose(TWINS, doses()),
    ],
)
def test_no_text_is_clipped(draw):
    figure = draw()
    figure.draw_without_rendering()
    for artist, box in boxes_of(figure):
        low, high = figure.bbox.padded(1.0).get_points()
        assert (box.get_points() >= low).all(), (artist, box, figure.bbox)
        assert (box.get_points() <= high).all(), (artist, box, figure.bbox)


def test_the_heat_map_writes_every_change_and_frames_what_flips():
    effects = sweeps()
    figure = figures.ablation_heatmap(TWINS, effects)
    gain, notebook, loss = figure.axes
    for column, name in enumerate(names()):
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
    found = doses()
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
    figure = figures.ablation_heatmap(TWINS, sweeps())
    scales = [(image.norm.vmin, image.norm.vmax) for ax in figure.axes for image in ax.images]
    assert len(scales) == 3
    assert len(set(scales)) == 1


def test_the_legend_of_a_heat_map_names_only_marks_that_occur():
    same = {
        name: tuple(replace(effect, change=change_of(0.3)) for effect in swept)
        for name, swept in sweeps(1).items()
    }
    assert not any(
        "becomes another" in text for text in texts_of(figures.ablation_heatmap(TWINS, same))
    )
    assert any(
        "becomes another" in text for text in texts_of(figures.ablation_heatmap(TWINS, sweeps()))
    )


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no ablation by mean"):
        figures.ablation_heatmap(TWINS, sweeps(1), how="mean")
    with pytest.raises(ValueError, match="no dose of theta"):
        figures.theta_dose(TWINS, {})
