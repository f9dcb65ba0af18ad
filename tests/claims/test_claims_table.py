"""data/claims.csv holds what the catalogue and the code say today."""

import csv

import pytest
from claims import FIELDS, TABLE, TWINS, row_of

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
