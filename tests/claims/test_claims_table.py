"""data/claims.csv holds what the catalogue and the code say today."""

import csv
import re

import numpy as np
import pytest
from claims import FIELDS, SEEDS, TABLE, TWINS, row_of
from scipy import stats
from seed_claims import answerable, runs, seed_rows

import gainlens
from gainlens.claims.claim import catalogue


@pytest.fixture(scope="module")
def rows():
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def test_every_claim_about_one_model_has_a_row_per_twin(rows):
    assert tuple(rows[0]) == FIELDS
    assert {row["claim"] for row in rows} <= set(catalogue())
    twins = {twin.removeprefix("gainlens:") for twin in TWINS}
    for name, claim in catalogue().items():
        if claim.roles == ("model",):
            assert twins <= {row["models"] for row in rows if row["claim"] == name}, name


@pytest.mark.slow
def test_a_row_is_what_the_code_gives(rows):
    name = "second-half-writes-less"
    verdict = gainlens.test(name, {"model": TWINS[0]}).verdicts[0]
    made = row_of(verdict, f"model={TWINS[0].removeprefix('gainlens:')}")
    (kept,) = [row for row in rows if (row["claim"], row["models"]) == (name, made["models"])]
    assert {key: made[key] for key in FIELDS if key != "command"} == {
        key: kept[key] for key in FIELDS if key != "command"
    }


def test_the_rows_over_seeds_are_what_the_training_table_gives(rows):
    kept = [row for row in rows if SEEDS in row["command"]]
    assert kept == sorted(seed_rows(), key=lambda row: row["claim"])
    assert {row["claim"] for row in kept} >= {
        "sinks-grow-with-context", "theta-raises-last-gain", "final-block-jump-grows",
        "long-context-contracts",
    }  # fmt: skip


def test_a_row_over_seeds_is_a_mean_over_runs_with_students_t():
    """By hand: the paired difference of two cells, and the slope of each seed over log steps."""
    shares, angles = runs("sink_share").mean(axis=1), runs("angle")
    short, long = ((context, 1e4, 15000) for context in (512, 4096))
    paired = (shares.loc[long] - shares.loc[short]).to_numpy(np.float64)
    assert_row("sinks-grow-with-context", "context512-theta10k, context4096-theta10k", paired)
    jump = angles[7] - angles[[2, 3, 4, 5]].median(axis=1)
    of_cell = jump.loc[(512, 1e4)].unstack("seed").iloc[1:]
    slopes = np.polyfit(np.log(of_cell.index.to_numpy(float)), of_cell.to_numpy(float), 1)[0]
    assert_row("final-block-jump-grows", "context512-theta10k", slopes)


def assert_row(claim, models, values):
    (row,) = [
        one for one in seed_rows([claim]) if one["models"] == f"{models}, {len(values)} seeds"
    ]
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean, low, high = (float(text) for text in re.findall(r"[-+][0-9.]+", row["measured"]))
    np.testing.assert_allclose(
        [mean, low, high], values.mean() + half * np.array([0, -1, 1]), atol=6e-5
    )


def test_only_claims_whose_numbers_the_table_holds_have_rows_over_seeds():
    assert not answerable(catalogue()["late-mlps-erase"])
    assert not answerable(catalogue()["massive-erased-late"])
    assert not answerable(catalogue()["tuning-keeps-last-gain"])
    assert answerable(catalogue()["sinks-grow-with-context"])
