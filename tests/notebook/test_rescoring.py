"""Re-scoring: the published run's figures, planted files, and files that contradict themselves."""

import copy
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planting.result_files import document, replace

from gainlens.notebook.rescore_tables import tables
from gainlens.notebook.rescoring import Rescore, rescore, to_json
from gainlens.notebook.rule import NOTEBOOK_VERDICTS

_ROOT = Path(__file__).parents[2]
_NAME = "llama2_vs_llama31_hypothesis_test.json"
PUBLISHED = Path(
    os.environ.get("GAINLENS_PUBLISHED", _ROOT.parent / "shared" / "published" / _NAME)
)


def check_published_figures(score: Rescore, last: int) -> None:
    """What must come out of the published run, whole or shortened; `last` is the last block."""
    old, new = score.models
    assert (old.key, new.key) == ("llama2-7b", "llama3.1-8b")
    assert old.num_layers == last + 1
    assert old.last_gain.normed_entry == last + 1
    assert old.last_gain.value == pytest.approx(0.9225226747869376, rel=1e-14)
    assert new.last_gain.value == pytest.approx(1.5331995195328298, rel=1e-14)
    assert old.last_gain.norm_per_sqrt_width == pytest.approx(1.847, abs=5e-4)
    assert new.last_gain.norm_per_sqrt_width == pytest.approx(2.154, abs=5e-4)
    assert (old.writes.layer, new.writes.layer) == (1, 1)
    assert old.writes.gain == pytest.approx(116.34, abs=5e-3)
    assert new.writes.gain == pytest.approx(20.877, abs=5e-4)
    assert [block.layer for block in old.erases] == [last - 1]
    assert old.erases[0].gain == pytest.approx(0.336, abs=5e-4)
    assert new.erases == ()
    assert old.telescope.cumulative_energy == pytest.approx(141.67, abs=5e-3)
    assert max(old.telescope.difference, new.telescope.difference) < 1e-14
    check_published_weights(score)


def check_published_weights(score: Rescore) -> None:
    old, new = score.models
    assert old.unembed.edge_ratio == pytest.approx(10.6, abs=0.05)
    assert new.unembed.edge_ratio == pytest.approx(15.5, abs=0.05)
    assert old.unembed.energy_share == pytest.approx(0.050, abs=5e-4)
    assert new.unembed.energy_share == pytest.approx(0.081, abs=5e-4)
    assert old.rope.theta_bound == pytest.approx(3.2e4, rel=0.01)
    assert new.rope.theta_bound == pytest.approx(9.1e6, rel=0.01)
    assert (old.rope.scaled, new.rope.scaled) == (False, True)
    pair = score.pair
    assert (pair.short, pair.long) == ("llama2-7b", "llama3.1-8b")
    assert pair.verdict == pair.stated_verdict == "INVERTED"
    assert pair.theta_ratio == 50.0
    assert pair.wu_ratio == pytest.approx(2.1307786419044543, rel=1e-14)
    assert pair.wu_vocabulary == pytest.approx(2.00, abs=5e-3)
    assert pair.wu_rest == pytest.approx(1.06, abs=5e-3)
    assert pair.wu_vocabulary * pair.wu_rest == pytest.approx(pair.wu_ratio, rel=1e-14)
    assert pair.differing == ("RoPE theta", "RoPE scaling", "context", "vocabulary")
    assert not pair.findings
    assert not any(model.findings for model in score.models)


def test_published_file():
    if not PUBLISHED.is_file():
        pytest.skip("the published run's JSON is not here; set GAINLENS_PUBLISHED to its path")
    score = rescore(PUBLISHED)
    check_published_figures(score, last=31)
    assert score.pair.gain_ratio == pytest.approx(1.6619640486201945, rel=1e-14)


def test_published_figures_without_the_file():
    check_published_figures(rescore(document()), last=5)


def test_path_and_mapping_give_the_same(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document()), encoding="utf-8")
    one, other = to_json(rescore(path)), to_json(rescore(document()))
    assert one.pop("source") == str(path)
    assert other.pop("source") == "the mapping"
    assert one == other
    path.write_text("\ufeff" + json.dumps(document()), encoding="utf-8")
    assert to_json(rescore(path))["models"] == other["models"]


def test_what_cannot_be_concluded_is_said():
    said = " / ".join(rescore(document()).cannot_conclude)
    for part in ("last block of llama2-7b", "n = 1", "BOS", "identify no cause", "vocabulary"):
        assert part in said


def test_the_last_blocks_own_gain_counts_as_erasing_where_the_file_has_it():
    tree = document()
    residual = tree["models"]["llama3.1-8b"]["residual"]
    residual |= {"true_last_gain": 0.5, "final_norm_gain": residual["last_gain"] / 0.5}
    score = rescore(tree)
    assert [(block.layer, block.gain) for block in score.models[1].erases] == [(5, 0.5)]
    assert any("measured" in line for line in score.models[1].last_gain.evidence)
    assert "last block of llama2-7b expands" in score.cannot_conclude[0]
    assert not score.models[1].findings


@pytest.mark.parametrize(
    ("gain", "writes", "erases"),
    [(4.99, False, False), (5.01, True, False), (0.81, False, False), (0.79, False, True)],
)
def test_thresholds_of_writing_and_erasing(gain, writes, erases):
    model = {"residual": {"norms": [1.0, 1.0, gain, gain]}}
    (found,) = rescore({"models": {"m": model}}).models
    assert (found.writes is not None, bool(found.erases)) == (writes, erases)
    if writes:
        assert found.writes.layer == 1


def test_the_step_into_the_normed_state_is_no_erasing_or_writing_block():
    for last in (0.01, 100.0):
        (found,) = rescore({"models": {"m": {"residual": {"norms": [1.0, 1.0, last]}}}}).models
        assert found.writes is None
        assert found.erases == ()


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [
        ((1.37, 0.48), "CONFIRMED"), ((0.9, 0.8), "REJECTED - Family Trait"),
        ((1.1, 1.2), "UNEXPECTED"), ((0.92, 1.53), "INVERTED"), ((1.0, 0.5), "INVERTED"),
    ],
)  # fmt: skip
@pytest.mark.fault(
    "--rescore: a stated verdict that its own numbers do not give", "caveat: a finding"
)
def test_verdict_is_recomputed_and_a_wrong_one_is_a_finding(norms, verdict):
    tree = document()
    for model, gain in zip(tree["models"].values(), norms, strict=True):
        model["residual"] = {"norms": [1.0, 1.0, gain]}
    for stated in NOTEBOOK_VERDICTS:
        tree["hypothesis_test"] = {"verdict": stated}
        pair = rescore(tree).pair
        assert pair.verdict == verdict
        assert bool(pair.findings) == (stated != verdict)


@pytest.mark.parametrize(
    ("place", "value", "finding"),
    [
        (("models", "llama2-7b", "residual", "gains", 4), 0.9, r"gains\[4\] is stated as 0.9, rec"),
        (("models", "llama2-7b", "residual", "last_gain"), 1.37, "last_gain is stated as 1.37"),
        (("models", "llama2-7b", "residual", "cumulative_energy"), 2.0, "cumulative_energy is st"),
        (("models", "llama2-7b", "num_layers"), 7, "num_layers is stated as 7, the norms give 6"),
        (("models", "llama2-7b", "w_u", "spectral_norm"), 300.0, "no matrix of this shape"),
        (("models", "llama2-7b", "w_u", "spectral_norm"), 2.0, "outside 3.0917"),
        (("models", "llama2-7b", "w_u", "shape"), [4096, 32000], "shape is not"),
        (("hypothesis_test", "theta_ratio"), 5.0, "theta_ratio is stated as 5, recom"),
        (("models", "llama2-7b", "rope"), None, "theta_ratio is stated as 50, but the file has"),
    ],
)  # fmt: skip
@pytest.mark.fault(
    "--rescore: a file whose numbers contradict one another", "caveat: a finding with both numbers"
)
def test_a_file_that_contradicts_itself_is_found_out(place, value, finding):
    tree = document()
    replace(tree, place, value)
    score = rescore(tree)
    found = [line for model in score.models for line in model.findings] + list(score.pair.findings)
    assert any(re.search(finding, line) for line in found), found
    assert any(row.label == "contradiction" for table in tables(score) for row in table.rows)


def test_product_of_stated_last_block_and_final_norm_is_checked():
    tree = document()
    tree["models"]["llama2-7b"]["residual"] |= {"true_last_gain": 0.5, "final_norm_gain": 3.0}
    assert "true_last_gain x final_norm_gain" in rescore(tree).models[0].findings[0]


def test_missing_halves_are_null_with_a_reason():
    tree = document()
    tree["models"]["llama2-7b"] |= {"w_u": None, "rope": {"rope_theta": None, "max_position": 4}}
    score = to_json(rescore(tree))
    old = score["models"][0]
    assert old["unembed"] is None
    assert "no w_u" in old["unembed_reason"]
    assert old["rope"] is None
    assert "transformers 5" in old["rope_reason"]
    assert old["last_gain"]["norm_per_sqrt_width"] is None
    assert "no d_model" in old["last_gain"]["norm_per_sqrt_width_reason"]
    assert "no norm between" in old["last_gain"]["block_gain_reason"]
    for name in ("theta_ratio", "wu_ratio", "wu_vocabulary", "wu_rest"):
        assert score["pair"][name] is None
        assert score["pair"][f"{name}_reason"]
    assert "gain_ratio_reason" not in score["pair"]


def test_zero_norms_do_not_telescope_and_say_so():
    (found,) = rescore({"models": {"m": {"residual": {"norms": [0, 2.0, 4.0]}}}}).models
    assert found.telescope is None
    assert "norm is 0" in dict(found.unknown)["telescope"]
    assert found.last_gain.value == 2.0


def test_pair_by_roles_by_order_or_not_at_all():
    tree = document()
    one, two = tree["models"].values()
    assert "order" in rescore(tree).pair.chosen_by
    one["role"], two["role"] = "long", "short"
    pair = rescore(tree).pair
    assert (pair.short, pair.long) == ("llama3.1-8b", "llama2-7b")
    two["role"] = "long"
    assert rescore(tree).pair is None  # two long ones and no short one
    tree["models"]["third"] = one | {"role": "short"}
    assert rescore(tree).pair is None  # one short, two long
    del tree["models"]["third"]
    two["role"] = "control"
    score = rescore(tree)
    assert score.pair is None
    assert "role" in score.pair_reason
    assert score.pair_reason in [row.explanation for table in tables(score) for row in table.rows]
    for model in (one, two):
        del model["role"]
    tree["models"]["third"] = copy.deepcopy(one)
    assert "has 3 without roles" in rescore(tree).pair_reason


def test_tables_show_the_published_figures():
    found = tables(rescore(document()))
    text = "\n".join(
        f"{table.title} | {row.label} | {row.value} | {row.explanation}"
        for table in found
        for row in table.rows
    )
    for part in (
        "block 1 | gain 116.3", "block 4 | gain 0.3361", "10.6x", "15.5x", "5.0%", "8.1%",
        "wu_ratio | 2.13 | = 2.00 x 1.06", "verdict | INVERTED", "below the bound 32,232",
        "no information",
    ):  # fmt: skip
        assert part in text
    assert [table.title for table in found][2:] == [
        "the notebook's test: llama2-7b against llama3.1-8b",
        "what cannot be concluded from this file",
    ]


@given(norms=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40))
def test_cumulative_energy_telescopes_on_any_norms(norms):
    (found,) = rescore({"models": {"m": {"residual": {"norms": norms}}}}).models
    assert found.telescope.final_over_embedding == norms[-1] / norms[0]
    assert found.telescope.difference < 1e-13  # forty roundings of float64
