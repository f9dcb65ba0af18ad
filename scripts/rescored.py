"""Re-score folders of published result files: docs/rescored.md and src/gainlens/data/rescored.csv.

    git clone https://github.com/buk81/uniformity-asymmetry && cd uniformity-asymmetry
    git checkout e3c7f94
    python scripts/rescored.py uniformity-asymmetry/paper3/Results

The page and the CSV hold facts with their source; the files themselves stay where they are.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from gainlens.core.table import Table, column, fill
from gainlens.notebook.across_files import origins, side_by_side
from gainlens.notebook.definitions import REDUCTIONS
from gainlens.notebook.rescore_tables import (
    difference_table,
    finding_table,
    limits,
    measurement_table,
    origin_table,
    side_by_side_table,
    spectrum_table,
    state_table,
)
from gainlens.notebook.rescored import Rescore
from gainlens.notebook.rescoring import rescore

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/rescored.md"
DATA = ROOT / "src/gainlens/data/rescored.csv"
SOURCE = "buk81/uniformity-asymmetry@e3c7f94 (MIT), paper3/Results"
HEAD = """# Published files, re-scored

The notebook that gainlens grew out of has neighbours: result files that state gains of the last
block of real models. This page says what each number is. The files are those of
`buk81/uniformity-asymmetry@e3c7f94` (MIT), `paper3/Results`. `python scripts/rescored.py FOLDER`
writes this page and `src/gainlens/data/rescored.csv`. Intervals are 95 %, with prompts as the unit
(Student's t on log gains). You can read every file alone:

```sh
gainlens rescore FILE...
```

- A number called the last block's is the penultimate block's in every file named NO_FINAL_LN, and
  the last block's times the final norm's in others. Two files may disagree and both be right.
- One file concludes that a model's gain survives instruction tuning. In its own numbers Gemma-7B's
  gain falls from 2.287 to 1.153.
- One lab's models are said to dampen. On the last token, GPT-J-6B of that lab expands.
- The gain that one file gives for Gemma 2 9B equals, after rounding, Gemma 7B's in another file.
"""
COLUMNS: tuple[str, ...] = (
    "kind", "file", "model", "called", "number_of", "block", "blocks", "tokens", "unit", "value",
    "low", "high", "prompts", "p", "file_says", "known_by", "source",
)  # fmt: skip


def data_rows(score: Rescore) -> Iterator[dict[str, Any]]:
    """Yield the rows of the CSV of one file: gains, paired differences, spectra."""
    file: dict[str, Any] = {"file": Path(score.source).name, "source": SOURCE}
    for row in score.measurements:
        yield file | {
            "kind": "gain", "model": row.model, "called": row.called, "number_of": row.state,
            "block": row.block, "blocks": row.num_blocks, "tokens": row.reduction, "unit": "ratio",
            "value": row.value, "low": row.low, "high": row.high, "prompts": row.prompts,
            "file_says": row.says, "known_by": row.basis,
        }  # fmt: skip
    for pair in score.differences:
        yield file | {
            "kind": "paired difference", "model": f"{pair.model} minus {pair.minus}",
            "called": pair.called, "number_of": pair.state, "unit": "nats", "value": pair.nats,
            "low": pair.low, "high": pair.high, "prompts": pair.prompts, "p": pair.p,
            "file_says": pair.says,
        }  # fmt: skip
    for spectrum in score.spectra:
        matrix: dict[str, Any] = file | {
            "kind": "spectrum",
            "model": spectrum.model,
            "number_of": spectrum.matrix,
        }
        values = {"over random edge": spectrum.edge_ratio, "stable rank": spectrum.stable_rank}
        yield from (matrix | {"called": name, "value": value} for name, value in values.items())


def markdown(table: Table, level: int = 2) -> str:
    """Return a table under its title."""
    lines = [f"{'#' * level} {table.title[0].upper()}{table.title[1:]}\n"]
    lines += [_line([each.head for each in table.columns]), _line(["---"] * len(table.columns))]
    return "\n".join([*lines, *map(_line, table.rows)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def file_table(scores: Sequence[Rescore], refused: Sequence[str]) -> Table:
    """Return one row per file: what it holds, its own verdict, and what cannot follow."""
    rows = [
        (
            Path(score.source).name,
            ", ".join(dict.fromkeys(row.state for row in score.measurements))
            or ", ".join(dict.fromkeys(row.matrix for row in score.spectra)),
            ", ".join(dict.fromkeys(REDUCTIONS[row.reduction] for row in score.measurements)),
            str(max((row.prompts for row in score.measurements), default=0) or ""),
            "; ".join(_verdicts(score)),
            "; ".join(limits(score)),
        )
        for score in scores
    ]
    rows += [(name, "no gains, norms or spectra", "", "", "", "") for name in refused]
    heads = ("file", "numbers of", "tokens", "prompts", "its own verdict", "cannot be concluded")
    columns = [column(head, itemgetter(index)) for index, head in enumerate(heads)]
    return fill("files", "the files", "", columns, sorted(rows))


def _verdicts(score: Rescore) -> Iterator[str]:
    if score.pair is not None:
        yield f"verdict: {score.pair.stated_verdict}"
    for statement in score.statements:
        if "verdict" in statement.place or "conclusion" in statement.place:
            yield f"{statement.place}: {statement.text}"


def main(folders: Sequence[str]) -> None:
    """Write page and data from every JSON file of the folders."""
    scores: list[Rescore] = []
    refused: list[str] = []
    for path in sorted(path for folder in folders for path in Path(folder).glob("*.json")):
        try:
            scores.append(rescore(path))
        except ValueError:
            refused.append(path.name)
    measured = [row for score in scores for row in score.measurements if row.behaviour]
    parts = [
        HEAD,
        markdown(file_table(scores, refused)),
        markdown(state_table(scores)),
        markdown(measurement_table(measured, "Gains of the last block with an interval")),
        *(
            markdown(difference_table(score.differences, f"paired, {Path(score.source).name}"))
            for score in scores
            if any(row.state == "last block" for row in score.differences)
        ),
        markdown(origin_table(origins(scores))),
        markdown(finding_table([row for score in scores for row in score.findings])),
        markdown(spectrum_table([row for score in scores for row in score.spectra])),
        markdown(side_by_side_table(side_by_side(scores))),
    ]
    PAGE.write_text("\n".join(parts), "utf-8")
    with DATA.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for score in scores for row in data_rows(score))


if __name__ == "__main__":
    main(sys.argv[1:])
