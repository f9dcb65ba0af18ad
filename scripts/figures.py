"""Redraw figures/ of this repository from a committed run and the tables in src/gainlens/data.

    python scripts/figures.py               # from figures/run.json: no model is loaded
    python scripts/figures.py runs/twins    # first put this run's numbers into figures/run.json

figures/run.json holds what a comparison's figures are drawn from.  It has no tokens: of them, only
the medians and quartiles that a figure shows are kept.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark.figure import bench_figure, throughput_figure
from benchmark.table import DATA, BenchRow, ThroughputRow, read_rows
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from real_checkpoints import real_checkpoints_figure, real_rows, twin_rows

from gainlens import figures
from gainlens.claims.dose_response import cell_intervals, read_design
from gainlens.core.spec import ComparisonSpec
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
        )
        for key, one in document["drawn"].items()
    }
    return run, drawn


def all_drawings() -> dict[str, Callable[[], Axes | Figure]]:
    """Return the functions that draw figures/, by file name."""
    found = drawings(*kept())
    return found | {
        "bench": lambda: bench_figure(read_rows(DATA / "bench.csv", BenchRow)),
        "throughput": lambda: throughput_figure(read_rows(DATA / "throughput.csv", ThroughputRow)),
        "dose_response": _dose_response,
        "real_checkpoints": _real_checkpoints,
    }


def _real_checkpoints() -> Figure:
    """Draw the twins and the real checkpoints by the notebook's rule and before the final norm."""
    run, _ = kept()
    return real_checkpoints_figure([*twin_rows(run.reports), *real_rows()])


def _dose_response() -> Figure:
    """Draw the training experiment: all ordinary tokens, the first ones, and those from 128 on."""
    bins = {"all ordinary tokens": "", "positions 4 to 15": "4-15", "from position 128 on": "128-"}
    designs = {title: read_design(positions=positions) for title, positions in bins.items()}
    one = designs["all ordinary tokens"]
    cells = {title: cell_intervals(design) for title, design in designs.items()}
    return figures.dose_response(one.contexts, one.thetas, cells)


def file_names() -> set[str]:
    """Return the names of the files that figures/ holds, figures/run.json among them."""
    return {RUN.name} | {f"{name}.{kind}" for name in all_drawings() for kind in FORMATS}


def main() -> None:
    """Keep the run of a folder if one is given, draw every figure, and remove all other files."""
    flags = argparse.ArgumentParser(description="Draw the repository's figures again.")
    flags.add_argument("folder", type=Path, nargs="?", help="a run folder to draw from henceforth")
    folder = flags.parse_args().folder
    if folder is not None:
        try:
            keep(folder)
        except ValueError as refused:
            flags.error(str(refused))
    for name, draw in all_drawings().items():
        figures.save(draw(), FOLDER, name, FORMATS)
    for path in FOLDER.iterdir():
        if path.name not in file_names():
            path.unlink()


if __name__ == "__main__":
    main()
