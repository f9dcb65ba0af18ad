"""Every figure: what it shows, in which words, unclipped, without a warning, the same bytes twice.

`planting.drawings.DRAWINGS` draws every figure of a set of reports.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from planting.drawings import (
    DRAWINGS,
    boxes_of,
    decompositions,
    norms_of,
    quartiles_of,
    texts_of,
)
from planting.figure_reports import (
    EXTREMES,
    LLAMAS,
    LONG,
    NAN,
    SETS,
    SHORT,
    TWINS,
    effects,
    empty_capture,
    interval_of,
    report_of,
    training_table,
    verdict_of,
)

from gainlens import figures
from gainlens.core.glossary import GLOSSARY, Term
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import REDUCTIONS
from gainlens.figures.blocks import block_values
from gainlens.figures.dark import KEPT, PAPER, PARTNERS, dark_svg
from gainlens.figures.scales import log_axis, number
from gainlens.figures.style import (
    COMPONENTS,
    looks,
    name_of,
    root_figure,
)
from gainlens.notebook.published import REFERENCE_ROWS
from gainlens.records.gains import Decomposition

ALIKE = {"claim_interval", "importance", "attribution", "no attribution", "training_curves",
         "training_figure"}  # fmt: skip
"""Drawings of numbers that every set of reports shares."""
LEGENDS = {"gain_curve", "unembed_spectrum", "gain_by_position"}
WIDE = ("seven", "extremes", "llamas", "one block")
NARROW = ("extremes", "llamas")
"""Sets with the longest names: what holds them in one column holds the others."""
CASES = [
    (name, drawing, column)
    for column, names in ((nullcontext, WIDE), (figures.one_column, NARROW))
    for name, drawing in product(names, DRAWINGS)
    if name == "extremes" or drawing not in ALIKE
]


@pytest.mark.parametrize(("name", "drawing", "column"), CASES)
def test_every_figure_draws_without_a_warning_and_clips_no_text(name, drawing, column):
    """One column of a paper has 3.3 inches, and readable text at least 6 points."""
    with column():
        figure = root_figure(DRAWINGS[drawing](name))
    figure.draw_without_rendering()
    for artist, box in boxes_of(figure):
        low, high = figure.bbox.padded(1.0).get_points()  # rounding to pixels
        assert (box.get_points() >= low).all(), (artist, box, figure.bbox)
        assert (box.get_points() <= high).all(), (artist, box, figure.bbox)
    narrow = column is figures.one_column
    assert figure.get_figwidth() <= 3.3 or not narrow
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    assert min(sizes) >= 6
    if drawing == "splits":
        assert (figure.get_figwidth() <= 3.3) == narrow
    if drawing in LEGENDS and not narrow:
        (legend,) = figure.legends
        written = [text.get_text() for text in legend.get_texts()]
        assert [name_of(report) for report in SETS[name]] == written[: len(SETS[name])]


def test_the_check_for_clipped_text_sees_clipped_text():
    ax = figures.gain_curve(TWINS)
    ax.set_title("x" * 300)
    figure = root_figure(ax)
    figure.draw_without_rendering()
    assert any(box.x1 > figure.bbox.x1 + 1 for _, box in boxes_of(figure))


@pytest.mark.parametrize(
    ("drawing", "keys"),
    [
        ("gain_curve", ["gain", "layer"]),
        ("verdict_forest", ["gain"]),
        ("massive_lifecycle", ["norm", "gain", "layer"]),
        ("unembed_spectrum", ["spectrum", "rank"]),
        ("rope_wavelengths", ["wavelengths", "rotated_pair"]),
        ("headline", ["gain", "layer"]),
        ("attribution", ["effect"]),
        ("training_figure", ["gain", "last_gain", "loss", "trained_tokens"]),
        ("gain_by_position", ["gain", "position"]),
    ],
)
def test_labels_and_units_come_from_the_glossary(drawing, keys, monkeypatch):
    for key in keys:
        monkeypatch.setitem(GLOSSARY, key, Term(f"planted {key}", "furlongs", ""))
    texts = texts_of(DRAWINGS[drawing]("twins"))
    for key in keys:
        assert any(f"planted {key} (furlongs)" in text for text in texts), key


def test_names_of_parts_classes_and_reductions_come_from_the_glossary(monkeypatch):
    for key in ("attention", "log_gain", "massive", "frobenius"):
        monkeypatch.setitem(GLOSSARY, key, Term(f"planted {key}", "furlongs", ""))
    assert {"planted attention", "planted log_gain"} <= set(texts_of(figures.split(SHORT)))
    assert {"planted massive", "planted frobenius"} <= set(texts_of(figures.verdict_forest(TWINS)))


def test_gain_curve_draws_the_records_numbers():
    ax = figures.gain_curve([SHORT, LONG])
    curves = [line for line in ax.lines if len(line.get_xdata()) == 8]
    for line, report in zip(curves, (SHORT, LONG), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), block_values(report, "gain"))
    bands = [c for c in ax.collections if not isinstance(c, LineCollection)]
    edges = bands[0].get_paths()[0].vertices[:, 1]
    assert edges.min() == min(block_values(SHORT, "low"))
    assert edges.max() == max(block_values(SHORT, "high"))


def test_an_unknown_band_leaves_the_curve_and_no_band():
    ax = figures.gain_curve([report_of(half=NAN)])
    assert len(ax.lines[0].get_xdata()) == 8
    assert np.isfinite(ax.lines[0].get_ydata()).all()
    assert not any(len(path) for c in ax.collections for path in c.get_paths())


def test_split_bars_stack_to_the_log_gain():
    ax = figures.split(SHORT)
    signed = np.zeros(8)
    for bar in (bar for container in ax.containers for bar in container):
        signed[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    np.testing.assert_allclose(signed, block_values(SHORT, "log_gain"), atol=1e-12)
    up = np.clip(block_values(SHORT, "attention"), 0, None)
    mlp = block_values(SHORT, "mlp")
    bottoms = np.array([bar.get_y() for bar in ax.containers[1]])
    np.testing.assert_allclose(bottoms[mlp >= 0], up[mlp >= 0])


def test_a_remainder_that_can_be_seen_is_named_and_rounding_is_not():
    large = tuple(replace(b, remainder=0.1, mlp=b.mlp - 0.1) for b in SHORT.blocks)
    named = GLOSSARY["remainder"].label
    assert named in texts_of(figures.split(replace(SHORT, blocks=large)))
    assert named not in texts_of(figures.split(SHORT))


def test_headline_says_the_verdict_and_both_numbers():
    texts = texts_of(figures.headline(TWINS, verdict_of()))
    titles = [text.replace("\n", " ") for text in texts]
    assert "UNEXPECTED: both expand, so the claim is not supported" in titles
    for report in TWINS:
        assert f"{np.exp(report.blocks[-1].log_gain):.2f}" in texts
        assert f"{report.residual.last_gain:.2f}" in texts


def test_headline_draws_the_primary_cells_interval():
    ax = figures.headline([SHORT, LONG], verdict_of()).axes[2]
    drawn = [c.get_segments()[0] for c in ax.collections if isinstance(c, LineCollection)]
    for segment, last in zip(drawn, (0.085, 0.06), strict=True):
        np.testing.assert_allclose(np.log(segment[:, 0]), [last - 0.02, last + 0.02])


def test_headline_refuses_a_rule_that_the_run_was_not_judged_by():
    with pytest.raises(ValueError, match=r"pass the rule of its run as `rule`"):
        figures.headline(TWINS, verdict_of(), rule=Rule(reduction="median"))
    with pytest.raises(ValueError, match="at least one report"):
        figures.headline([], verdict_of())


def test_verdict_forest_draws_every_cell_once():
    frame = figures.verdict_forest(TWINS)
    for panel, after in zip(frame.child_axes, (False, True), strict=True):
        drawn = np.concatenate(
            [line.get_xdata() for line in panel.lines if len(line.get_xdata()) > 2]
        )
        cells = [c for r in (SHORT, LONG) for c in r.cells if c.after_final_norm is after]
        expected = np.exp([c.log_gain.estimate for c in cells])
        np.testing.assert_allclose(np.sort(drawn), np.sort(expected))
        segments = sum(
            len(c.get_segments()) for c in panel.collections if isinstance(c, LineCollection)
        )
        assert segments == sum(np.isfinite(c.log_gain.low) for c in cells)


def test_verdict_forest_shades_the_rules_row():
    shaded = {}
    for rule in (Rule(), Rule(token_class="all", reduction="median")):
        panel = figures.verdict_forest(TWINS, rule=rule).child_axes[0]
        shaded[rule] = panel.patches[0].get_y() + 0.5
        labels = dict(
            zip(panel.get_yticks(), [t.get_text() for t in panel.get_yticklabels()], strict=True)
        )
        assert labels[shaded[rule]] == GLOSSARY[rule.reduction].label
    assert len(set(shaded.values())) == 2


def test_lifecycle_counts_who_writes_and_who_erases():
    texts = texts_of(figures.massive_lifecycle([SHORT], norms_of("twins")))
    assert [text for text in texts if text in ("1", "9", "10")].count(
        "10"
    ) == 1  # written by the MLP
    assert {"1", "9"} <= set(texts)  # erased: position 0 by the MLP, nine by attention


def test_class_norms_are_medians_of_the_streams_between_blocks():
    decomposition = decompositions("twins")[SHORT.checkpoint.name]
    norms = figures.class_norms(decomposition)
    assert norms.ordinary.shape == (9,)
    ordinary = decomposition.is_ordinary
    assert norms.ordinary[3] == np.median(decomposition.norm_in[3, ordinary])
    assert norms.bos[-1] == np.median(decomposition.norm_out[-1, decomposition.is_bos])
    without = replace(decomposition, is_massive=np.zeros_like(decomposition.is_massive))
    assert np.isnan(figures.class_norms(without).massive).all()


@pytest.mark.parametrize("call", ["massive_lifecycle", "gain_by_position"])
def test_a_models_missing_numbers_are_named(call):
    with pytest.raises(
        ValueError, match=r"given for context512-theta10k; pass .* got the names none"
    ):
        getattr(figures, call)([SHORT], {})


def test_position_quartiles_in_doubling_bins():
    position = np.array([0, 1, 2, 3, 4, 7, 8])
    gain = np.array([0.5, 1.0, 2.0, 4.0, 3.0, 5.0, 9.0])
    nothing = np.zeros((1, 7))
    planted = Decomposition(
        capture=empty_capture(np.zeros(7, dtype=np.int64), position, 1),
        split="logmean",
        log_gain=np.log(gain)[None],
        attention=nothing,
        mlp=nothing,
        remainder=nothing,
        final_norm=nothing[0],
        norm_in=nothing,
        norm_out=nothing,
        is_bos=position == 0,
        is_massive=position == 8,
    )
    np.testing.assert_allclose(figures.position_quartiles(planted)[1], [0.5, 1.0, 3.0, 4.0])


def test_spectrum_is_over_the_root_of_the_vocabulary_and_drops_zeros():
    ax = figures.unembed_spectrum([SHORT])
    raw, centred = (line.get_ydata() for line in ax.lines[:2])
    assert raw[0] == pytest.approx(SHORT.unembed.sigma_per_sqrt_vocab)
    assert np.isnan(centred[-1])  # what rounding left of the direction that centring took away
    edge = ax.lines[2].get_ydata()[0]
    assert edge * SHORT.unembed.edge_ratio == pytest.approx(SHORT.unembed.sigma_per_sqrt_vocab)


def test_rope_wavelengths_names_both_thetas_and_a_model_without():
    gpt2 = EXTREMES[-1]
    texts = texts_of(figures.rope_wavelengths([LONG, gpt2]))
    assert "context4096-theta500k (long): theta 500,000" in texts
    other = replace(LONG, rope=replace(LONG.rope, measured_theta=1e4))
    said = "context4096-theta500k (long): theta 500,000, measured 10,000"
    assert said in texts_of(figures.rope_wavelengths(other))
    assert "gpt2 (reference): no RoPE" in texts
    assert "context 4,096" in texts
    assert "none of these models has RoPE" in texts_of(figures.rope_wavelengths([gpt2]))


def test_notebook_figure_keeps_the_notebooks_words_and_its_reference():
    figure = figures.notebook_figure([SHORT, LONG], REFERENCE_ROWS[:1])
    titles = [ax.get_title(loc="center") for ax in figure.axes]
    assert titles == [
        "Last Layer Gain Comparison\n(>1 = Expand, <1 = Contract)",
        "RoPE Theta Comparison\n(Higher = Longer Context Support)",
        "Unembedding Matrix Spectral Norm\n(Static Amplification Factor)",
        "Layer-wise Gains\n(Last layer highlighted)",
    ]
    labels = ["Last Layer Gain", "RoPE Theta", "W_U Spectral Norm (σ_max)", "Gain"]
    assert [ax.get_ylabel() for ax in figure.axes] == labels
    assert figure.axes[3].get_xlabel() == "Layer"
    heights = [[bar.get_height() for bar in ax.containers[0]] for ax in figure.axes[:3]]
    assert [row[2] for row in heights] == [1.37, 10_000, 16.14]
    assert heights[0][0] == SHORT.residual.last_gain
    assert any("reference" in text for text in texts_of(figure))
    np.testing.assert_array_equal(figure.axes[3].lines[0].get_ydata(), SHORT.residual.gains)


def test_attribution_draws_each_effect_or_says_why_there_is_none():
    ax = figures.attribution(verdict_of(effects()))
    drawn = [float(line.get_xdata()[0]) for line in ax.lines[: len(effects())]]
    assert drawn == [effect.log_gain.estimate for effect in effects()]
    assert "over seeds, at equal loss" in [t.get_text() for t in ax.get_yticklabels()]
    note = " ".join(texts_of(figures.attribution(verdict_of()))).replace("\n", " ")
    assert verdict_of().attribution_note in note


def test_an_effect_without_interval_says_so():
    lone = replace(effects()[0], log_gain=replace(interval_of(0.1, NAN, 1), status="one seed"))
    assert "n = 1, one seed" in texts_of(figures.attribution(verdict_of((lone,))))


def test_training_curves_end_at_the_mean_over_seeds():
    table = training_table()
    ax = figures.training_curves(table, against="loss", of="last_gain")
    cell = (table["context"] == 4096) & (table["theta"] == 5e5)
    end = cell & (table["tokens"] == table["tokens"].max())
    ends = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in ax.lines
        if len(line.get_xdata()) == 1
    ]
    wanted = (table["loss_4096"][end].mean(), table["notebook_last_gain"][end].mean())
    assert min(np.hypot(x - wanted[0], y - wanted[1]) for x, y in ends) < 1e-12
    assert ax.xaxis.get_inverted()


@pytest.mark.parametrize("missing", ["tokens", "log_gain_last_ordinary", "loss_4096"])
def test_a_training_table_without_a_column_is_refused_by_name(missing):
    table = training_table()
    del table[missing]
    with pytest.raises(ValueError, match=f"training table .*{missing}"):
        figures.training_curves(table)


SINGLE: Sequence[tuple[str, Callable[[Axes], Axes]]] = (
    ("gain_curve", lambda ax: figures.gain_curve(TWINS, ax=ax)),
    ("split", lambda ax: figures.split(SHORT, ax=ax)),
    ("verdict_forest", lambda ax: figures.verdict_forest(TWINS, ax=ax)),
    ("unembed_spectrum", lambda ax: figures.unembed_spectrum(TWINS, ax=ax)),
    ("rope_wavelengths", lambda ax: figures.rope_wavelengths(TWINS, ax=ax)),
    (
        "gain_by_position",
        lambda ax: figures.gain_by_position(TWINS, quartiles_of("twins"), ax=ax),
    ),
    ("attribution", lambda ax: figures.attribution(verdict_of(effects()), ax=ax)),
    ("training_curves", lambda ax: figures.training_curves(training_table(), ax=ax)),
)


@pytest.mark.parametrize("draw", [draw for _, draw in SINGLE], ids=[name for name, _ in SINGLE])
def test_draws_into_the_users_axes_and_touches_no_other(draw):
    figure = Figure(figsize=(9, 5), layout="constrained")
    mine, other = figure.subplots(1, 2)
    assert draw(mine) is mine
    assert mine.has_data() or mine.child_axes
    assert not other.has_data()
    assert figure.axes == [mine, other]
    assert not figure.legends
    figure.draw_without_rendering()


def test_the_users_rcparams_stay():
    names = [name for name in rcParams if name != "backend"]  # looking at it chooses one
    before = [rcParams[name] for name in names]
    figures.gain_curve(TWINS)
    assert [rcParams[name] for name in names] == before


def test_looks_stay_with_the_role_and_no_two_models_share_one():
    styles = looks(EXTREMES)
    assert len({look.marker for look in styles}) == len(styles)
    assert len({look.colour for look in styles}) == len(styles)
    assert looks([LONG])[0] == styles[1]
    assert not {look.colour for look in styles} & {colour for colour, _ in COMPONENTS.values()}
    many = looks([report_of("control")] * 8)
    assert len({look.colour for look in many}) == len({look.marker for look in many}) == 8
    crowd = looks([SHORT, LONG, *[report_of("reference")] * 90])
    assert len({(look.colour, look.marker) for look in crowd}) == 92


def test_attention_and_mlp_differ_in_grey():
    grey = {
        name: np.dot(to_rgb(c), (0.2126, 0.7152, 0.0722)) for name, (c, _) in COMPONENTS.items()
    }
    assert abs(grey["attention"] - grey["mlp"]) > 0.3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0.3, "0.3"),
        (-0.5, "−0.5"),
        (250, "250"),
        (1e4, "10⁴"),
        (3e5, "3·10⁵"),
        (1e-4, "10⁻⁴"),
    ],
)
def test_tick_numbers(value, text):
    assert number(float(value)) == text


@given(low=st.floats(-6, 5), span=st.floats(0.02, 9))
def test_a_logarithmic_axis_always_has_two_ticks_and_few(low, span):
    ax = Figure().add_subplot()
    ax.set_ylim(10**low, 10 ** (low + span))
    log_axis(ax.yaxis)
    bottom, top = ax.get_ylim()
    ticks = [tick for tick in ax.yaxis.get_majorticklocs() if bottom <= tick <= top]
    assert 2 <= len(ticks) <= 12


def test_an_svg_holds_text_a_title_and_a_hostile_name_as_it_is(tmp_path):
    _, path, _ = figures.save(figures.gain_curve(LLAMAS), tmp_path / "new", "curve")
    tree = ElementTree.parse(path)
    texts = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "x/$y$ <b>& (long)" in texts
    assert "gain |y|/|x| (ratio)" in texts
    assert tree.find("{http://www.w3.org/2000/svg}metadata") is not None
    assert tree.findtext("{http://www.w3.org/2000/svg}title") == "curve"


def test_saved_files_are_what_their_names_say(tmp_path):
    png, svg, pdf = figures.save(figures.headline(TWINS, verdict_of()), tmp_path, "headline")
    head = png.read_bytes()
    width, dots = int.from_bytes(head[16:20], "big"), head.index(b"pHYs")
    assert width == 1420  # 7.1 inches at 200 dpi
    assert int.from_bytes(head[dots + 4 : dots + 8], "big") == round(200 / 0.0254)
    assert svg.read_bytes().startswith(b"<?xml")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in pdf.read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_name_with_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plain file name"):
        figures.save(figures.gain_curve(TWINS), tmp_path, "../outside")
    assert not list(tmp_path.parent.glob("outside*"))


_ELSEWHERE = """
import sys
sys.modules["torch"] = None  # importing it raises
sys.path[:0] = {tests!r}
import gainlens.figures
assert "matplotlib" not in sys.modules, "importing gainlens.figures imports matplotlib"
from gainlens import figures
from planting.drawings import DRAWINGS
for name, draw in DRAWINGS.items():
    figures.save(draw("seven"), {folder!r}, name, ("svg",))
assert "matplotlib.pyplot" not in sys.modules
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Every figure as another process draws it, which knows neither torch nor pyplot."""
    folder = tmp_path_factory.mktemp("elsewhere")
    code = _ELSEWHERE.format(tests=[str(Path(__file__).parents[1])], folder=str(folder))
    environment = os.environ | {"PYTHONHASHSEED": "2"}  # another order of every set of strings
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return folder


def named_in_order(svg: str) -> str:
    """Number the clip paths: their names hash the last bit of what the layout's solver found."""
    names = list(dict.fromkeys(re.findall(r"\bp[0-9a-f]{10}\b", svg)))
    return re.sub(r"\bp[0-9a-f]{10}\b", lambda found: f"clip{names.index(found[0])}", svg)


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_another_process_draws_the_same_in_colours_that_dark_paper_knows(
    drawing, elsewhere, tmp_path
):
    (path,) = figures.save(DRAWINGS[drawing]("seven"), tmp_path, drawing, ("svg",))
    text = path.read_text("utf-8")
    assert named_in_order(text) == named_in_order((elsewhere / path.name).read_text("utf-8"))
    if "map" not in drawing:
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) <= PARTNERS.keys() | KEPT
        assert "#222222" in text
        assert "#222222" not in dark_svg(text)


def test_a_figure_that_is_saved_again_has_the_same_bytes(tmp_path):
    drawn = figures.headline(TWINS, verdict_of())
    first, again = (
        [path.read_bytes() for path in figures.save(drawn, tmp_path, "one")] for _ in range(2)
    )
    assert first == again
    (other,) = figures.save(figures.gain_curve(TWINS), tmp_path, "one", ("svg",))
    assert other.read_bytes() not in first


def test_an_unknown_figure_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute pie"):
        _ = figures.pie
    assert set(figures.__all__) == set(dir(figures))


# ------------------------------------------------------ scales, legends, rows, one model


def height_of(ax: Axes, low: float, high: float) -> float:
    """Return the share of the axis' height between two values."""
    bottom, top = (ax.transData.transform((0, value))[1] for value in (low, high))
    return (top - bottom) / ax.bbox.height


@pytest.mark.parametrize("draw", [figures.gain_curve, figures.splits])
def test_the_first_block_does_not_flatten_the_others(draw):
    ax = root_figure(draw(TWINS)).axes[0]
    rest = np.concatenate([block_values(report, "log_gain")[1:] for report in TWINS])
    ends = np.array([min(rest.min(), 0.0), rest.max()])
    ends = np.exp(ends) if draw is figures.gain_curve else ends
    assert height_of(ax, *ends) > 0.35
    first = float(block_values(SHORT, "gain" if draw is figures.gain_curve else "log_gain")[0])
    assert 0.8 < height_of(ax, ax.get_ylim()[0], first) < 1


def test_an_axis_without_a_far_first_block_is_not_broken():
    even = replace(SHORT, blocks=tuple(replace(SHORT.blocks[-1], block=i) for i in range(8)))
    assert figures.gain_curve(even).get_yscale() == "log"
    assert figures.gain_curve(SHORT).get_yscale() == "function"


def test_panels_of_one_quantity_share_its_scale():
    for drawing, panels in (("massive_lifecycle", (0, 2, 4, 6)), ("splits", (0, 1, 2, 3))):
        axes = root_figure(DRAWINGS[drawing]("twins")).axes
        assert len({axes[place].get_ylim() for place in panels}) == 1


def test_the_lifecycles_legend_names_only_what_is_drawn():
    plain = [replace(report, massive=()) for report in TWINS]
    norms = {key: replace(n, massive=n.massive * NAN) for key, n in norms_of("twins").items()}
    (legend,) = figures.massive_lifecycle(plain, norms).legends
    names = " ".join(text.get_text() for text in legend.get_texts())
    assert "massive" not in names
    assert "written" not in names
    assert GLOSSARY["ordinary"].label in names


def test_the_forest_leaves_out_empty_rows_and_joins_equal_ones():
    def planted(report):
        value = {"bos": -0.5, "massive": NAN}
        return replace(report, cells=tuple(
            replace(cell, log_gain=interval_of(value[cell.token_class], NAN))
            if cell.token_class in value else cell
            for cell in report.cells
        ))  # fmt: skip

    panel = figures.verdict_forest([planted(SHORT), planted(LONG)]).child_axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["every reduction", *[GLOSSARY[r].label for r in REDUCTIONS] * 2]
    assert GLOSSARY["massive"].label not in [text.get_text() for text in panel.texts]


@pytest.mark.parametrize(
    "draw",
    [
        figures.gain_curve,
        figures.splits,
        figures.verdict_forest,
        figures.unembed_spectrum,
        figures.rope_wavelengths,
        figures.headline,
        lambda reports: figures.massive_lifecycle(reports, norms_of("twins")),
        lambda reports: figures.gain_by_position(reports, quartiles_of("twins")),
        lambda reports: figures.notebook_figure(reports, ()),
    ],
)
def test_a_figure_takes_one_model_as_it_takes_many(draw):
    assert texts_of(draw(SHORT)) == texts_of(draw([SHORT]))


# --------------------------------------------------------------------------------------------- maps


def test_heads_are_named_by_block_and_head_and_ranked_by_size():
    values = np.zeros((6, 3))
    values[4, 0], values[2, 1], values[5, 2] = -0.5, 0.3, np.nan
    assert figures.top_heads(values, 2) == [("L4H0", -0.5), ("L2H1", 0.3)]
    assert {"L4H0", "L2H1", "−0.5", "+0.3"} <= set(texts_of(figures.head_map(values, top=2)))
    with pytest.raises(ValueError, match="heads=True"):
        figures.head_map({})


def test_heads_of_all_models_share_one_scale():
    figure = figures.head_map({"small": np.full((2, 2), 0.1), "large": np.full((2, 2), 3.0)})
    scales = {(image.norm.vmin, image.norm.vmax) for ax in figure.axes for image in ax.images}
    assert len(scales) == 1


def test_a_token_map_keeps_small_numbers_apart_beside_a_large_block():
    values = np.vstack([np.full((1, 5), 3.0), np.full((3, 5), 0.1)])
    ax = figures.token_map(values, list("abcde"), metric="log_gain")
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), values)
    middle = image.norm(0.0)
    assert image.norm(0.1) - middle > 0.05  # a linear scale gives 0.017
    assert [label.get_text() for label in ax.get_xticklabels()] == list("abcde")
    with pytest.raises(ValueError, match="one text each"):
        figures.token_map(values, ["a"])


def test_an_interactive_map_has_the_static_ones_colours_and_the_numbers():
    values = np.array([[3.0, -0.25, np.nan], [0.1, 0.2, -0.1]])
    still = figures.token_map(values, ["a", "<b>", "c"]).images[0]
    (heat,) = figures.interactive_token_map(values, ["a", "<b>", "c"]).data
    np.testing.assert_allclose(heat.z, np.clip(still.norm(values).filled(np.nan), 0, 1))
    assert list(heat.text[0]) == ["3", "-0.25", "nan"]
    assert heat.customdata[0][1] == "&#x27;&lt;b&gt;&#x27;, position 1"


def test_without_plotly_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ValueError, match="pip install plotly"):
        figures.interactive_token_map(np.zeros((2, 2)))


def test_a_metric_without_a_neutral_value_has_a_scale_of_one_colour():
    image = figures.token_map(np.arange(6.0).reshape(2, 3), metric="norm", neutral=None).images[0]
    assert image.get_cmap().name == "viridis"


# -------------------------------------------------------------------------------------- dark paper


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)
        ]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_partners_can_be_read_on_dark_paper():
    for colour, partner in PARTNERS.items():
        if contrast(colour, "#ffffff") >= 4.5:  # used for text
            assert contrast(partner, PAPER) >= 4.5, colour
        elif contrast(colour, "#ffffff") >= 3:
            assert contrast(partner, PAPER) >= 3, colour
