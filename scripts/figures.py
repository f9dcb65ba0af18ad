"""Redraw figures/ of this repository from a committed run and the tables in src/gainlens/data.

    python scripts/figures.py               # from figures/run.json: no model is loaded
    python scripts/figures.py runs/twins    # first put this run's numbers into figures/run.json

figures/run.json holds what a comparison's figures are drawn from.  It has no tokens: of them, only
the medians and quartiles that a figure shows are kept.
"""

import csv
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark.figure import bench_figure
from benchmark.table import read_rows
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gainlens import figures
from gainlens.claims.dose_response import cell_intervals, read_design
from gainlens.core.spec import ComparisonSpec
from gainlens.figures.scales import log_axis
from gainlens.figures.style import (
    INK,
    SMALL,
    TWO_COLUMNS,
    Style,
    legend_above,
    look,
    new_figure,
    styled,
    threshold,
)
from gainlens.records.comparison import Comparison, HypothesisTest, ModelReport
from gainlens.records.verdict import Verdict
from gainlens.results.reading import read_run
from gainlens.results.values import from_json, to_json
from gainlens.runs.writing import Drawn, drawings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "figures"
RUN = FOLDER / "run.json"
REAL = ROOT / "src/gainlens/data/real_models.csv"
FORMATS = ("png", "svg")


def keep(folder: Path) -> None:
    """Write what the figures of a run folder are drawn from into figures/run.json."""
    run = read_run(folder)
    drawn = {
        key: {
            "norms": figures.class_norms(decomposition),
            "quartiles": figures.position_quartiles(decomposition),
        }
        for key, decomposition in run.decompositions.items()
    }
    document = {
        "spec": run.spec.model_dump(mode="json"),
        "date": run.date,
        "reports": [_portable(report) for report in run.reports],
        "hypothesis_test": run.test,
        "verdict": run.verdict,
        "drawn": drawn,
    }
    RUN.write_text(json.dumps(to_json(document), separators=(",", ":")) + "\n", "utf-8")


def _portable(report: ModelReport) -> ModelReport:
    """Return a report without its tokens, and without the folder that the model was loaded from."""
    config = {name: v for name, v in report.checkpoint.config.items() if name != "_name_or_path"}
    return replace(
        report,
        prompts=replace(report.prompts, tokens=()),
        checkpoint=replace(report.checkpoint, config=config),
    )


def kept() -> tuple[Comparison, Mapping[str, Drawn]]:
    """Read figures/run.json."""
    document: dict[str, Any] = json.loads(RUN.read_text("utf-8"))

    def part(kind: Any, key: str) -> Any:
        return from_json(kind, document[key], key)

    run = Comparison(
        spec=ComparisonSpec.model_validate(document["spec"]),
        date=part(str, "date"),
        seconds=float("nan"),
        reports=part(tuple[ModelReport, ...], "reports"),
        captures={},
        decompositions={},
        test=part(HypothesisTest, "hypothesis_test"),
        verdict=part(Verdict, "verdict"),
        environment={},
    )
    drawn = {
        key: Drawn(
            norms=from_json(figures.ClassNorms, one["norms"], "norms"),
            quartiles=np.array(
                from_json(tuple[Float64[np.ndarray, " bin"], ...], one["quartiles"], "quartiles")
            ),
            explored={},
            sink=None,
        )
        for key, one in document["drawn"].items()
    }
    return run, drawn


def all_drawings() -> dict[str, Callable[[], Axes | Figure]]:
    """Return the functions that draw figures/, by file name."""
    found = drawings(*kept())
    return found | {
        "bench": lambda: bench_figure(read_rows()),
        "dose_response": _dose_response,
        "real_models": real_models,
    }


def _dose_response() -> Figure:
    """Draw the training experiment: all ordinary tokens, the first ones, and those from 128 on."""
    bins = {"all ordinary tokens": "", "positions 4 to 15": "4-15", "from position 128 on": "128-"}
    designs = {title: read_design(positions=positions) for title, positions in bins.items()}
    one = designs["all ordinary tokens"]
    cells = {title: cell_intervals(design) for title, design in designs.items()}
    return figures.dose_response(one.contexts, one.thetas, cells)


@styled
def real_models() -> Figure:
    """Draw the last block of the real checkpoints, and the number that the notebook's rule reads.

    The rows are those of src/gainlens/data/real_models.csv, one per checkpoint.
    """
    with REAL.open(encoding="utf-8", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    figure = new_figure(TWO_COLUMNS, 0.9 + 0.3 * len(rows))
    ax = figure.add_subplot()
    for height, row in enumerate(rows.values()):
        own = look(height)
        mark: Style = {
            "color": own.colour,
            "marker": own.marker,
            "linestyle": "",
            "markersize": 5.5,
        }
        gain, notebook = float(row["last_block_gain"]), float(row["notebook_last_gain"])
        ax.hlines(height, float(row["low"]), float(row["high"]), color=own.colour, linewidth=2.2)
        ax.plot(gain, height, **mark)
        ax.plot(notebook, height, markerfacecolor="white", **mark)
        left = min(gain, notebook)
        for value, text in ((gain, f"{gain:.2f}"), (notebook, f"{notebook:.2g}")):
            side: Style = {"xytext": (-6, 0), "ha": "right"} if value == left else {
                "xytext": (6, 0), "ha": "left"
            }  # fmt: skip
            ax.annotate(text, (value, height), textcoords="offset points", va="center",
                        fontsize=SMALL, bbox={"facecolor": "white", "linewidth": 0, "pad": 0.6},
                        **side)  # fmt: skip
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.grid(visible=False, axis="y")
    threshold(ax, 1.0, along="y")
    ax.margins(x=0.3)
    log_axis(ax.xaxis)
    ax.set_xlabel("gain (ratio): above 1 the stream grows")
    legend = (("last block, ordinary tokens, 95% interval", INK), ("notebook's last_gain", "white"))
    handles = [
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=5.5, markerfacecolor=face)
        for _, face in legend
    ]
    legend_above(ax, outside=True, handles=handles, names=[name for name, _ in legend])
    return figure


def file_names() -> set[str]:
    """Return the names of the files that figures/ holds, figures/run.json among them."""
    return {RUN.name} | {f"{name}.{kind}" for name in all_drawings() for kind in FORMATS}


def main() -> None:
    """Keep the run of a folder if one is given, draw every figure, and remove all other files."""
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    for name, draw in all_drawings().items():
        figures.save(draw(), FOLDER, name, FORMATS)
    for path in FOLDER.iterdir():
        if path.name not in file_names():
            path.unlink()


if __name__ == "__main__":
    main()
