"""Test the catalogue's claims on models, and write the table.

    python scripts/claims.py                       # the twins
    python scripts/claims.py FILE.gguf DIR ...     # these models instead
    python scripts/claims.py FILE.gguf --claims sinks-dispensable influence-ranks-pruning
    python scripts/claims.py --seeds               # only the rows over training seeds anew

A model is measured once for all claims about one model.  Claims that change the model run it up to
16 times more, and `influence-ranks-pruning` once with each block left out.  The first and the last
twin stand for claims about a short and a long model; all four for claims about many.  Rows that
are not measured now are kept.  Rows over training seeds come from the table of the training
experiment (seed_claims.py).
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from seed_claims import seed_rows

import gainlens
from gainlens.claims.claim import catalogue
from gainlens.claims.sentences import interval_text
from gainlens.core.spec import MeasureSpec
from gainlens.records.claims import ClaimVerdict

TABLE = Path(__file__).parents[1] / "src/gainlens/data/claims.csv"
FIELDS: tuple[str, ...] = (
    "claim",
    "models",
    "outcome",
    "robust",
    "measured",
    "prompts",
    "reason",
    "command",
)
SHORT, LONG = "gainlens:context512-theta10k", "gainlens:context4096-theta500k"
SEEDS = "scripts/seed_claims.py"
TWINS = (SHORT, "gainlens:context512-theta500k", "gainlens:context4096-theta10k", LONG)


def main() -> None:
    """Measure, judge and write."""
    parser = argparse.ArgumentParser(description="Test the catalogue's claims on models.")
    parser.add_argument("models", nargs="*", help="checkpoints; the twins if none is given")
    parser.add_argument("--claims", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--dtype", help="of gainlens test; its default if not given")
    parser.add_argument("--seeds", action="store_true", help="only the rows over training seeds")
    asked = parser.parse_args()
    if asked.seeds:
        return merge([])
    claims = {name: catalogue()[name] for name in asked.claims or catalogue()}
    for model in asked.models or TWINS:
        names = [name for name, claim in claims.items() if claim.roles == ("model",)]
        shown = f"model={Path(model).name}" + (f" --dtype {asked.dtype}" if asked.dtype else "")
        judge_models(names, {"model": model}, shown, asked.dtype)
    if asked.models:
        return None
    of_pair = [name for name, claim in claims.items() if claim.roles == ("short", "long")]
    judge_models(of_pair, {"short": SHORT, "long": LONG}, f"short={SHORT} long={LONG}")
    of_many = [name for name, claim in claims.items() if claim.models == "many"]
    return judge_models(of_many, {"model": [*TWINS]}, " ".join(f"model={twin}" for twin in TWINS))


def judge_models(names: list[str], models: dict[str, Any], shown: str, dtype: Any = None) -> None:
    """Test claims on models and put their rows into the table; shown: the command's arguments."""
    spec = MeasureSpec(name="claims", models=(), dtype=dtype)
    if names:
        merge([row_of(one, shown) for one in gainlens.test(names, models, spec=spec).verdicts])


def merge(rows: list[dict[str, str]]) -> None:
    """Put rows into the table in place of those of the same claim and models."""
    measured = {(row["claim"], row["models"]) for row in rows}
    kept = [row for row in read_rows() if SEEDS not in row["command"]]
    kept = [row for row in kept if (row["claim"], row["models"]) not in measured]
    write_rows(rows + [row for row in kept if row["claim"] in catalogue()])


def read_rows() -> list[dict[str, str]]:
    """Return the rows of the table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write_rows(rows: list[dict[str, str]]) -> None:
    """Write the table with the rows over training seeds added, in the order of the claims."""
    rows = sorted(rows, key=lambda row: (row["claim"], order_of(row["models"])))
    rows = sorted([*rows, *seed_rows()], key=lambda row: row["claim"])
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        file.write("# made by scripts/claims.py\n")
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def order_of(name: str) -> tuple[int, str]:
    """Return where a model stands among the rows of a claim: the twins first, then by name."""
    twins = [twin.removeprefix("gainlens:") for twin in TWINS]
    return (twins.index(name), "") if name in twins else (len(twins), name)


def row_of(verdict: ClaimVerdict, models: str) -> dict[str, str]:
    """Return one row of the table."""
    shown = [interval_text(one.interval, verdict.unit) for one in verdict.estimates]
    return {
        "claim": verdict.claim,
        "models": " and ".join(verdict.models.values()),
        "outcome": verdict.outcome,
        "robust": "" if verdict.robust is None else "yes" if verdict.robust else "no",
        "measured": "; ".join(shown) if len(shown) <= 2 else f"{len(shown)} blocks",
        "prompts": str(max((one.interval.n for one in verdict.estimates), default=0)),
        "reason": verdict.reasons[0],
        "command": f"gainlens test {verdict.claim} {models}",
    }


if __name__ == "__main__":
    main()
