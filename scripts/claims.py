"""Test the catalogue's claims on the shipped twins and on further models; write the table.

    python scripts/claims.py                       # the twins
    python scripts/claims.py FILE.gguf DIR ...     # and these models
    python scripts/claims.py --seeds               # only the rows over training seeds anew

A model is measured once for all claims about one model.  Claims that need the loss with each block
left out are tested on the twins alone: a model of 24 blocks would run 12 times as long.  The first
and the last twin stand for claims about a short and a long model; all four for claims about many.
Rows of models that are not measured now are kept.  Rows over training seeds come from the table of
the training experiment (seed_claims.py).
"""

import csv
import sys
from pathlib import Path

from seed_claims import seed_rows

import gainlens
from gainlens.claims.claim import catalogue
from gainlens.claims.sentences import interval_text
from gainlens.records.claims import ClaimVerdict

TABLE = Path(__file__).parents[1] / "src/gainlens/data/claims.csv"
FIELDS = ("claim", "models", "outcome", "robust", "measured", "prompts", "reason", "command")
SHORT, LONG = "gainlens:context512-theta10k", "gainlens:context4096-theta500k"
PRUNING = "influence-ranks-pruning"
SEEDS = "scripts/seed_claims.py"
TWINS = (SHORT, "gainlens:context512-theta500k", "gainlens:context4096-theta10k", LONG)


def main(models: list[str]) -> None:
    """Measure, judge and write."""
    if models == ["--seeds"]:
        return write_rows([row for row in read_rows() if SEEDS not in row["command"]])
    of_one = [name for name, claim in catalogue().items() if claim.roles == ("model",)]
    of_many = [name for name, claim in catalogue().items() if claim.models == "many"]
    of_pair = [name for name, claim in catalogue().items() if claim.roles == ("short", "long")]
    rows: list[dict[str, str]] = []
    for model in [*TWINS, *models]:
        names = [name for name in of_one if model in TWINS or name != PRUNING]
        found = gainlens.test(names, {"model": model}).verdicts
        rows += [row_of(one, f"model={Path(model).name}") for one in found]
    pair = gainlens.test(of_pair, {"short": SHORT, "long": LONG}).verdicts
    rows += [row_of(one, f"short={SHORT} long={LONG}") for one in pair]
    many = gainlens.test(of_many, {"model": list(TWINS)}).verdicts
    rows += [row_of(one, " ".join(f"model={twin}" for twin in TWINS)) for one in many]
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
    main(sys.argv[1:])
