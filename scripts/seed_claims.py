"""Judge the catalogue's claims over all training seeds, by the table of the training experiment.

    python scripts/seed_claims.py NAME ...        # prints the rows of these claims, or of all

A run stands for what a prompt stands for elsewhere: one number per seed, and intervals over seeds,
so these rows speak of what training does.  Seeds of two cells pair, because they share initial
weights and data order.  A run's number is the mean over prompts at the end of training, so a median
over blocks is one of these means.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from gainlens.claims.claim import Claim, catalogue
from gainlens.claims.contrasts import contrast_of
from gainlens.claims.dose_response import SHIPPED
from gainlens.claims.engine import failed_premises
from gainlens.claims.outcomes import outcome_of_claim
from gainlens.claims.sentences import interval_text, subject_of
from gainlens.core.spec import Rule
from gainlens.metrics.registry import METRICS
from gainlens.records.claims import Evidence

Cell = tuple[int, float]
"""(training context in tokens, theta)"""
MEASURES: Final = {"angle": "angle", "log_gain": "log_gain", "sink_share": "sinking_heads"}
"""The table's name of each metric that it holds, on ordinary tokens."""
RULE: Final = Rule(min_prompts=3)
"""Three seeds are the fewest that carry an interval."""
CELLS: Final[tuple[Cell, ...]] = ((512, 1e4), (512, 5e5), (4096, 1e4), (4096, 5e5))
"""Those of the shipped twins."""
PAIRS: Final[tuple[tuple[Cell, Cell], ...]] = (
    *(((512, theta), (4096, theta)) for theta in (1e4, 5e5)),
    *(((256, theta), (8192, theta)) for theta in (1e4, 5e5)),
)
"""Cells that differ in context alone."""


def runs(metric: str, path: Path = SHIPPED) -> pd.DataFrame:
    """Return a metric of every run that began anew; a column per block."""
    table = pd.read_parquet(path)
    kept = (table["group"] == "dose") & (table["measure"] == MEASURES[metric])
    kept &= (table["positions"] == "") & (table["block"] >= 0) & (table["bos_every"] == 1)
    rows = table[kept]
    index = ["context", "theta", "step", "seed"]
    return rows.pivot(index=index, columns="block", values="value")


def evidence_at(
    table: pd.DataFrame, over: str, cell: Cell, role: str, step: int, seed: int | None = None
) -> Evidence:
    """Return one cell's runs as evidence: a number per block and seed, or those of one seed."""
    found = table.loc[(*cell, step)]
    found = found if seed is None else found.loc[[seed]]
    context, theta = cell
    return Evidence(
        role=role,
        name=cell_name(cell),
        facts={"context": float(context), "theta": theta, "layers": float(found.shape[1])},
        ids=tuple(map(str, found.index)),
        lengths=np.ones(len(found), dtype=np.int64),
        sha256="seeds",
        values={over: found.to_numpy(np.float64).T},
        step=float(step),
        seed=None if seed is None else float(seed),
    )


def cell_name(cell: Cell) -> str:
    """Write a cell as the twins are called."""
    return f"context{cell[0]}-theta{cell[1] / 1000:.0f}k"


def cases(claim: Claim, table: pd.DataFrame) -> Iterator[list[Evidence]]:
    """Yield the evidence of each row that the table has of a claim."""
    over = claim.estimand.reduction
    steps = sorted(set(table.index.get_level_values("step")))
    last = steps[-1]
    if claim.roles == ("model",):
        for cell in CELLS:
            yield [evidence_at(table, over, cell, "model", last)]
    elif claim.contrast.kind == "trend":
        for cell in CELLS:  # the logarithm of a step begins after the first
            yield [evidence_at(table, over, cell, "model", step) for step in steps if step > 0]
    elif claim.contrast.kind == "factorial":
        seeds = sorted(set(table.index.get_level_values("seed")))
        yield [
            evidence_at(table, over, cell, "model", last, seed) for cell in CELLS for seed in seeds
        ]
    elif claim.roles == ("short", "long"):
        signs = claim.contrast.kind == "signs"
        for pair in ((CELLS[0], CELLS[-1]),) if signs else PAIRS:
            yield [
                evidence_at(table, over, cell, role, last)
                for cell, role in zip(pair, claim.roles, strict=True)
            ]


def answerable(claim: Claim) -> bool:
    """Say if the table holds the numbers that a claim asks for."""
    of_metric = claim.estimand.metric in MEASURES and claim.estimand.tokens == "ordinary"
    several = {"trend", "factorial"} if claim.models else {"level", "signs", "difference", "trend"}
    of_roles = claim.roles in (("model",), ("short", "long"), ())
    return of_metric and of_roles and claim.contrast.kind in several


def row_over_seeds(claim: Claim, evidence: Sequence[Evidence]) -> dict[str, str]:
    """Return one row of the table of claims, with the seed as the unit."""
    facts = {
        role: [one.facts for one in evidence if one.role == role]
        for role in claim.roles or ("model",)
    }
    assert failed_premises(claim, facts) == ([], []), "the cells were chosen to meet the premise"
    found = contrast_of(claim, evidence, claim.estimand.reduction, RULE)
    unit = METRICS[claim.estimand.metric].unit
    shown = [interval_text(one.interval, unit) for one in found.estimates]
    measured = "; ".join(shown) if len(shown) <= 2 else f"{len(shown)} blocks"
    seeds = found.estimates[0].interval.n
    names = ", ".join(dict.fromkeys(one.name for one in evidence))
    predicted = f"; the claim predicts {claim.contrast.prediction}"
    return {
        "claim": claim.name,
        "models": f"{names}, {seeds} seeds",
        "outcome": outcome_of_claim(claim, found),
        "robust": "",
        "measured": measured,
        "prompts": "",
        "reason": f"Over {seeds} training seeds {subject_of(claim)} is {measured}"
        f"{predicted if claim.contrast.prediction else ''}.",
        "command": f"python scripts/seed_claims.py {claim.name}",
    }


def seed_rows(names: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return the rows over seeds of some claims of the catalogue, or of all that have any."""
    chosen = [catalogue()[name] for name in names or catalogue()]
    return [
        row_over_seeds(claim, evidence)
        for claim in chosen
        if answerable(claim)
        for evidence in cases(claim, runs(claim.estimand.metric))
    ]


if __name__ == "__main__":
    for row in seed_rows(sys.argv[1:]):
        print(row["claim"], row["models"], row["outcome"], row["measured"], sep=" | ")
