"""The shipped table of re-scored files, which needs none of them."""

import csv
from importlib import resources


def rows() -> list[dict[str, str]]:
    text = (resources.files("gainlens") / "data/rescored.csv").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def test_every_file_named_without_final_norm_is_of_the_penultimate_block():
    named = [row for row in rows() if "NO_FINAL_LN" in row["file"] and row["kind"] == "gain"]
    called_last = [row for row in named if row["called"] != "gain_with_ln_mean"]
    assert len(called_last) == 26
    assert {row["number_of"] for row in called_last} == {"penultimate block"}
    assert all(int(row["block"]) == int(row["blocks"]) - 2 for row in called_last)


def test_every_number_has_its_source_and_an_interval_holds_its_value():
    for row in rows():
        assert "buk81/uniformity-asymmetry@e3c7f94" in row["source"]
        if row["low"]:
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
