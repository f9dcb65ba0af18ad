"""Several files: one model's numbers side by side, and copied gains traced to what they are."""

import copy

from planting.result_files import NEIGHBOURS

from gainlens.notebook.across_files import origins, side_by_side
from gainlens.notebook.definitions import model_key
from gainlens.notebook.rescore_tables import origin_table, side_by_side_table
from gainlens.notebook.rescoring import rescore


def test_spellings_of_one_model_are_one_key():
    spellings = ("meta-llama/Llama-3.1-8B", "llama3.1-8b-BASE", "LLaMA-3.1-8B", "LLaMA-3.1-8B-Base")
    assert {model_key(name) for name in spellings} == {"llama3.18b"}
    assert model_key("Gemma-7B-IT") == model_key("gemma-7b-instruct") != model_key("gemma-7b")
    assert model_key("mistralai/Mistral-7B-v0.1") == model_key("mistral-7b")


def test_numbers_of_one_model_stand_together_by_definition():
    names = ("norms of models", "hidden states without final norm", "ratios beside heads")
    rows = side_by_side([rescore(NEIGHBOURS[name]) for name in names])
    assert {row.model for row in rows} == {"up1b"}
    assert [row.measurement.state for row in rows] == [
        "last block", "last block", "last block and final norm", "penultimate block",
    ]  # fmt: skip
    table = side_by_side_table(rows)
    assert [row[3] for row in table.rows] == ["0.250", "0.800", "3.000", "0.949"]


def test_a_model_with_one_number_has_nothing_beside_it():
    score = rescore(NEIGHBOURS["norms of models"])
    assert side_by_side([score, score]) == ()


def test_a_copied_gain_is_traced_to_what_it_is():
    scores = [
        rescore(NEIGHBOURS[name]) for name in ("copied gains", "hidden states without final norm")
    ]
    (origin,) = origins(scores)
    assert origin.source.measurement.state == "penultimate block"
    assert origin_table([origin]).rows[0][4] == "penultimate block"
    assert origins(scores[:1])[0].source is None


def test_a_gain_copied_from_another_model_of_the_family_is_found_and_a_coincidence_is_not():
    other = copy.deepcopy(NEIGHBOURS["copied gains"])
    other["results"][0]["model"] = "up2-9b"
    measured = rescore(NEIGHBOURS["hidden states without final norm"])
    (origin,) = origins([rescore(other), measured])
    assert origin.source.measurement.model == "made/up-1b"
    other["results"][0]["model"] = "down-9b"
    assert origins([rescore(other), measured])[0].source is None
