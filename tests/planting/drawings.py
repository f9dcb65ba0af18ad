"""Draw every figure of a set of planted reports, and read texts and boxes off a figure."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from planting.evidence import RULE, intervened
from planting.figure_reports import SETS, decomposition_of, effects, training_table, verdict_of
from planting.sweeps import doses_of, sweeps_of

from gainlens import figures
from gainlens.claims.claim import catalogue
from gainlens.claims.engine import judge_claim
from gainlens.figures.style import root_figure
from gainlens.notebook.published import REFERENCE_ROWS
from gainlens.records.claims import ClaimVerdict
from gainlens.records.gains import Decomposition


@cache
def decompositions(name: str) -> dict[str, Decomposition]:
    return {report.checkpoint.name: decomposition_of(report) for report in SETS[name]}


def norms_of(name: str) -> dict[str, figures.ClassNorms]:
    return {key: figures.class_norms(value) for key, value in decompositions(name).items()}


def quartiles_of(name: str) -> dict[str, np.ndarray]:
    return {key: figures.position_quartiles(value) for key, value in decompositions(name).items()}


def heads_of(name: str) -> dict[str, np.ndarray]:
    """Return planted parts of heads, nats, [block, head], by model key."""
    return {
        report.checkpoint.name: np.random.default_rng(place).normal(0, 0.03, (8, 4))
        for place, report in enumerate(SETS[name][:4])
    }


def importance_of() -> dict[str, np.ndarray]:
    """Return planted measures, [end, block]; block 0 is far off, and one block has no interval."""
    rng = np.random.default_rng(0)
    names = ("influence", "attention_write", "write", "skip_loss")
    measures = {
        name: rng.uniform(0.1, 0.2, 8) + np.array([[0.0], [-0.02], [0.03]]) for name in names
    }
    measures["write"][:, 0] += 9.0
    measures["skip_loss"][1:, 2] = np.nan
    return measures


def claim_verdict(outcome: str = "CONTRADICTED") -> ClaimVerdict:
    """Return the verdict on a claim whose change is 1.2 and whose control's change is 0.1."""
    evidence = intervened(1.2, 0.1, beyond=False, between=0.05)
    claim = catalogue()["sinks-dispensable"]
    return replace(judge_claim(claim, [evidence], RULE), outcome=outcome)


DRAWINGS: dict[str, Callable[[str], Axes | Figure]] = {
    "gain_curve": lambda name: figures.gain_curve(SETS[name]),
    "split": lambda name: figures.split(SETS[name][-1]),
    "splits": lambda name: figures.splits(SETS[name]),
    "headline": lambda name: figures.headline(SETS[name], verdict_of()),
    "headline of one": lambda name: figures.headline(SETS[name][0]),
    "claim_interval": lambda name: figures.claim_interval(claim_verdict()),
    "token_map": lambda name: figures.token_map(
        decompositions(name)[SETS[name][0].checkpoint.name].log_gain[:, :40], ["token"] * 40
    ),
    "importance": lambda name: figures.importance(
        importance_of(), {"influence": "1", "write": "ratio"}, {"attention_write": -0.45}
    ),
    "head_map": lambda name: figures.head_map(heads_of(name)),
    "verdict_forest": lambda name: figures.verdict_forest(SETS[name]),
    "ablation_heatmap": lambda name: figures.ablation_heatmap(SETS[name], sweeps_of(SETS[name])),
    "ablation_heatmap of heads": lambda name: figures.ablation_heatmap(
        SETS[name][:2], sweeps_of(SETS[name][:2], 2, heads=4)
    ),
    "theta_dose": lambda name: figures.theta_dose(SETS[name], doses_of(SETS[name])),
    "massive_lifecycle": lambda name: figures.massive_lifecycle(SETS[name], norms_of(name)),
    "unembed_spectrum": lambda name: figures.unembed_spectrum(SETS[name]),
    "rope_wavelengths": lambda name: figures.rope_wavelengths(SETS[name]),
    "gain_by_position": lambda name: figures.gain_by_position(SETS[name], quartiles_of(name)),
    "notebook_figure": lambda name: figures.notebook_figure(SETS[name], REFERENCE_ROWS[:1]),
    "attribution": lambda _: figures.attribution(verdict_of(effects())),
    "no attribution": lambda _: figures.attribution(verdict_of()),
    "training_curves": lambda _: figures.training_curves(training_table()),
    "training_figure": lambda _: figures.training_figure(training_table()),
}


def texts_of(drawn: Axes | Figure) -> list[str]:
    return [text.get_text() for text in root_figure(drawn).findobj(Text) if text.get_text()]


def boxes_of(figure: Figure) -> Iterator[tuple[object, Bbox]]:
    """Every text that is drawn (an axis' tick labels and label as one), with its place."""
    for ax in figure.axes:
        for panel in (ax, *ax.child_axes):
            for text in (*panel.texts, panel.title, panel._left_title):
                if text.get_text():
                    yield text, text.get_window_extent()
            for axis in (panel.xaxis, panel.yaxis):
                box = axis.get_tightbbox() if panel.axison and axis.get_visible() else None
                if box is not None:
                    yield axis, box
            if panel.get_legend():
                yield panel.get_legend(), panel.get_legend().get_window_extent()
    for artist in (*figure.texts, *figure.legends):
        yield artist, artist.get_window_extent()
