"""Read the neighbours' files: a made-up file per shape, and what each must give."""

import json
import math

import pytest
from planting.result_files import BASE, INSTRUCT, NEIGHBOURS, replace
from scipy import stats

from gainlens.notebook.neighbours import SHAPES
from gainlens.notebook.rescore_tables import tables
from gainlens.notebook.rescoring import rescore, to_json


def test_every_shape_has_a_file_and_is_found_in_it():
    assert set(NEIGHBOURS) == {shape.NAME for shape in SHAPES}
    for name, tree in NEIGHBOURS.items():
        assert rescore(tree).shapes == (name,)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "rows of prompts",
            [("last block", "last_token", None), ("last block", "last_token", None)],
        ),
        ("gains of prompts", [("last block", "frobenius", 2)]),
        ("norms of models", [("last block", "frobenius", 2)]),
        (
            "hidden states without final norm",
            [
                ("penultimate block", "last_token", 1),
                ("last block and final norm", "last_token", 2),
            ],
        ),
        ("hidden states with final norm", [("last block and final norm", "last_token", 2)]),
        ("gains of sublayers", [("attention write", "unknown", 1), ("mlp write", "unknown", 1)]),
        ("objects of sublayers", [("attention write", "unknown", 1), ("mlp write", "unknown", 1)]),
        ("ratios beside heads", [("last block", "last_token", 1)]),
        ("copied gains", [("copied", "unknown", None)]),
    ],
)
def test_each_number_is_named_by_what_it_is(name, rows):
    measured = rescore(NEIGHBOURS[name]).measurements
    assert [(row.state, row.reduction, row.block) for row in measured] == rows
    assert all(row.model.lower().removeprefix("made/").startswith("up") for row in measured)


def test_prompts_give_scipys_interval_and_paired_test():
    score = rescore(NEIGHBOURS["rows of prompts"])
    logs = [math.log(gain) for gain in BASE]
    base, instruct = score.measurements
    low, high = stats.t.interval(0.95, 3, sum(logs) / 4, stats.sem(logs))
    assert (base.value, base.low, base.high) == pytest.approx(
        (math.exp(sum(logs) / 4), math.exp(low), math.exp(high))
    )
    assert (base.behaviour, instruct.behaviour) == ("EXPANDS", "CONTRACTS")
    (pair,) = score.differences
    other = [math.log(gain) for gain in INSTRUCT]
    assert (pair.model, pair.minus, pair.says) == ("Up-IT", "Up-Base", "NEUTRAL")
    assert pair.nats == pytest.approx((sum(other) - sum(logs)) / 4)
    assert pair.p == pytest.approx(stats.ttest_rel(other, logs).pvalue)
    assert pair.high < 0


def test_the_state_is_taken_from_the_numbers_and_not_from_the_files_words():
    tree = json.loads(json.dumps(NEIGHBOURS["hidden states without final norm"]))
    for mean, state in ((0.95, "penultimate block"), (3.0, "last block and final norm")):
        tree["models"][0]["residual_gain_mean"] = mean
        assert rescore(tree).measurements[0].state == state
    tree["models"][0]["residual_gain_mean"] = 2.0
    row = rescore(tree).measurements[0]
    assert (row.state, row.block) == ("unclear", None)


def test_spectra_stand_beside_a_random_matrix_and_their_row_norms():
    score = rescore(NEIGHBOURS["matrices"])
    (spectrum,) = score.spectra
    assert (spectrum.model, spectrum.matrix) == ("up-1b", "W_U")
    assert spectrum.edge_ratio == pytest.approx(60 / (200 * 30 / 200))
    assert not score.findings  # 400 (8^2 + 6^2) = 200^2
    tree = json.loads(json.dumps(NEIGHBOURS["matrices"]))
    replace(tree, ("unembedding_analysis", "up-1b", "unembedding", "frobenius_norm"), 190.0)
    (finding,) = rescore(tree).findings
    assert finding.recomputed == pytest.approx(200.0)


def test_nan_is_unknown(tmp_path):
    path = tmp_path / "values.json"
    path.write_text(json.dumps(NEIGHBOURS["value norms"]), "utf-8")
    assert "NaN" in path.read_text("utf-8")
    assert rescore(path).spectra[0].spectral_norms == (2.0, None)


def test_a_block_that_the_file_left_out_is_a_finding():
    tree = {"models": {"mistral-7b": NEIGHBOURS["norms of models"]["models"]["up-1b"]}}
    score = rescore(tree)
    assert score.measurements[0].num_blocks == 32
    assert (score.findings[0].stated, score.findings[0].recomputed) == (3, 32)


@pytest.mark.fault("rescore: a file that holds no gains, norms or spectra", "refused: what to give")
@pytest.mark.parametrize("tree", [{}, {"models": []}, {"results": [{"L_star": 3}]}, {"gains": [1]}])
def test_a_file_without_any_known_number_is_refused(tree):
    with pytest.raises(ValueError, match="holds no gains, norms or spectra"):
        rescore(tree)


@pytest.mark.fault("rescore: a wrong value in a known shape", "refused: the place in the document")
@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("rows of prompts", ("all_results", 1, "Last_Gain"), "1.3", r"all_results\[1\].Last_Gain"),
        ("rows of prompts", ("all_results", 1, "Last_Gain"), -1.0, r"all_results\[1\].Last_Gain"),
        ("rows of prompts", ("all_results", 1, "Prompt"), "a", "twice"),
        ("rows of prompts", ("all_results", 1, "Model"), "\x1b[2J", "name"),
        ("norms of models", ("models", "up-1b", "norms"), [1.0], "norms is a list"),
        ("matrices", ("unembedding_analysis", "up-1b", "unembedding", "shape"), [3], "shape"),
        ("copied gains", ("results", 0, "known_gain"), True, "known_gain is true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(name, place, value, message):
    tree = json.loads(json.dumps(NEIGHBOURS[name]))
    replace(tree, place, value)
    with pytest.raises(ValueError, match=message) as caught:
        rescore(tree)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_every_file_can_be_written_and_shown(name):
    score = rescore(NEIGHBOURS[name])
    tree = json.loads(json.dumps(to_json(score), allow_nan=False))
    assert tree["cannot_conclude"] == [row[1] for row in tables(score)[-1].rows] or not score.limits
    for table in tables(score):
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert all(cell.isprintable() for row in table.rows for cell in row)
