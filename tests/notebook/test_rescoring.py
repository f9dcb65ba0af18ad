"""Re-scoring: the published run's figures, planted files, and files that contradict themselves."""

import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planting.result_files import document, replace

from gainlens.notebook.rescore_tables import limits, tables
from gainlens.notebook.rescored import Rescore
from gainlens.notebook.rescoring import rescore, to_json
from gainlens.notebook.result_file import Residual
from gainlens.notebook.rule import NOTEBOOK_VERDICTS

_ROOT = Path(__file__).parents[2]
_NAME = "llama2_vs_llama31_hypothesis_test.json"
PUBLISHED = Path(
    os.environ.get("GAINLENS_PUBLISHED", _ROOT.parent / "shared" / "published" / _NAME)
)


def check_published_figures(score: Rescore, last: int) -> None:
    """Check the answers of the published run, whole or shortened; `last` is its last block."""
    assert list(score.models) == ["llama2-7b", "llama3.1-8b"]
    old, new = score.models.values()
    assert old.residual.normed_entry == last + 1
    assert old.residual.recomputed[-1] == pytest.approx(0.9225226747869376, rel=1e-14)
    assert new.residual.recomputed[-1] == pytest.approx(1.5331995195328298, rel=1e-14)
    assert old.norm_per_sqrt_width == pytest.approx(1.847, abs=5e-4)
    assert new.norm_per_sqrt_width == pytest.approx(2.154, abs=5e-4)
    assert (old.residual.writes.layer, new.residual.writes.layer) == (1, 1)
    assert old.residual.writes.gain == pytest.approx(116.34, abs=5e-3)
    assert new.residual.writes.gain == pytest.approx(20.877, abs=5e-4)
    assert [block.layer for block in old.residual.erases] == [last - 1]
    assert old.residual.erases[0].gain == pytest.approx(0.336, abs=5e-4)
    assert new.residual.erases == ()
    assert old.residual.product == pytest.approx(141.67, abs=5e-3)
    assert old.residual.product == pytest.approx(old.residual.final_over_embedding, rel=1e-14)
    assert {row.state for row in score.measurements} == {"last block and final norm"}
    check_published_weights(score)


def check_published_weights(score: Rescore) -> None:
    old, new = score.models.values()
    assert (old.w_u.edge_ratio, new.w_u.edge_ratio) == pytest.approx((10.6, 15.5), abs=0.05)
    assert (old.w_u.energy_share, new.w_u.energy_share) == pytest.approx((0.050, 0.081), abs=5e-4)
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
    assert pair.differing == ("RoPE theta", "RoPE scaling", "context", "vocabulary")
    assert not pair.findings
    assert not any(model.findings for model in score.models.values())


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
    said = " / ".join(limits(rescore(document())))
    for part in ("last block of llama2-7b", "n = 1", "BOS", "identify no cause", "vocabulary"):
        assert part in said


def test_the_last_blocks_own_gain_counts_as_erasing_if_the_file_has_it():
    tree = document()
    residual = tree["models"]["llama3.1-8b"]["residual"]
    residual |= {"true_last_gain": 0.5, "final_norm_gain": residual["last_gain"] / 0.5}
    score = rescore(tree)
    new = score.models["llama3.1-8b"]
    assert [(block.layer, block.gain) for block in new.residual.erases] == [(5, 0.5)]
    assert "last block of llama2-7b expands" in next(limits(score))
    assert not new.findings
    assert [row.state for row in score.measurements if row.model == "llama3.1-8b"] == [
        "last block and final norm", "last block",
    ]  # fmt: skip


def residual_of(norms: list[float]) -> Residual:
    (model,) = rescore({"models": {"m": {"residual": {"norms": norms}}}}).models.values()
    return model.residual


@pytest.mark.parametrize(
    ("gain", "writes", "erases"),
    [(4.99, False, False), (5.01, True, False), (0.81, False, False), (0.79, False, True)],
)
def test_thresholds_of_writing_and_erasing(gain, writes, erases):
    residual = residual_of([1.0, 1.0, gain, gain])
    assert (residual.writes is not None, bool(residual.erases)) == (writes, erases)


def test_the_step_into_the_normed_state_is_no_erasing_or_writing_block():
    for last in (0.01, 100.0):
        residual = residual_of([1.0, 1.0, last])
        assert residual.writes is None
        assert residual.erases == ()


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
    ("place", "value", "where", "recomputed"),
    [
        (("models", "llama2-7b", "residual", "gains", 4), 0.9, "gains[4]", 0.336),
        (("models", "llama2-7b", "residual", "last_gain"), 1.37, "last_gain", 0.9225),
        (("models", "llama2-7b", "residual", "cumulative_energy"), 2, "cumulative_energy", 141.67),
        (("models", "llama2-7b", "num_layers"), 7, "num_layers", 6),
        (("models", "llama2-7b", "w_u", "spectral_norm"), 300.0, "w_u.spectral_norm", None),
        (("models", "llama2-7b", "w_u", "spectral_norm"), 2.0, "w_u.spectral_norm", None),
        (("models", "llama2-7b", "w_u", "shape"), [4096, 32000], "w_u.shape", None),
        (("hypothesis_test", "theta_ratio"), 5.0, "theta_ratio", 50.0),
        (("models", "llama2-7b", "rope"), None, "theta_ratio", None),
    ],
)  # fmt: skip
@pytest.mark.fault(
    "--rescore: a file whose numbers contradict one another", "caveat: a finding with both numbers"
)
def test_a_file_that_contradicts_itself_is_found_out(place, value, where, recomputed):
    tree = document()
    replace(tree, place, value)
    score = rescore(tree)
    (finding,) = [one for model in score.models.values() for one in model.findings] or (
        score.pair.findings
    )
    assert finding.place == where
    if recomputed is not None:
        assert finding.recomputed == pytest.approx(recomputed, rel=1e-3)
    rows = [row for table in tables(score) for row in table.rows if row[0] == "contradiction"]
    assert where in [row[1] for row in rows]


def test_product_of_stated_last_block_and_final_norm_is_checked():
    tree = document()
    tree["models"]["llama2-7b"]["residual"] |= {"true_last_gain": 0.5, "final_norm_gain": 3.0}
    (finding,) = rescore(tree).models["llama2-7b"].findings
    assert finding.place == "true_last_gain x final_norm_gain"


def test_missing_halves_are_null_with_a_reason():
    tree = document()
    tree["models"]["llama2-7b"] |= {"w_u": None, "rope": {"rope_theta": None, "max_position": 4}}
    score = to_json(rescore(tree))
    old = score["models"][0]
    assert old["w_u"] is None
    assert "no w_u" in old["w_u_reason"]
    assert "transformers 5" in old["rope"]["theta_over_bound_reason"]
    assert "no d_model" in old["norm_per_sqrt_width_reason"]
    assert "no norm between" in old["residual"]["true_last_gain_reason"]
    for name in ("theta_ratio", "wu_ratio", "wu_vocabulary", "wu_rest"):
        assert score["pair"][name] is None
        assert score["pair"][f"{name}_reason"]
    assert "gain_ratio_reason" not in score["pair"]


def test_zero_norms_do_not_telescope():
    residual = residual_of([0, 2.0, 4.0])
    assert residual.final_over_embedding is None
    assert residual.recomputed[-1] == 2.0


def test_pair_by_roles_by_order_or_not_at_all():
    tree = document()
    one, two = tree["models"].values()
    assert rescore(tree).pair.chosen_by == "order"
    one["role"], two["role"] = "long", "short"
    pair = rescore(tree).pair
    assert (pair.short, pair.long) == ("llama3.1-8b", "llama2-7b")
    two["role"] = "long"
    assert rescore(tree).pair is None  # two long ones and no short one
    tree["models"]["third"] = one | {"role": "short"}
    assert rescore(tree).pair is None  # one short, two long
    del tree["models"]["third"]
    two["role"] = "control"
    assert rescore(tree).pair_reason == "roles"
    for model in (one, two):
        del model["role"]
    tree["models"]["third"] = copy.deepcopy(one)
    assert rescore(tree).pair_reason == "two_models"


def test_tables_show_the_published_figures():
    made = tables(rescore(document()))
    text = "\n".join(" | ".join(row) for table in made for row in table.rows)
    for part in (
        "block 1 | gain 116.3", "block 4 | gain 0.3361", "10.6x", "15.5x", "5.0%", "8.1%",
        "wu_ratio | 2.131 | = 2.002 x 1.064", "verdict | INVERTED", "below the bound 32,232",
        "last_gain is | 0.923", "last_gain is | 1.533", "no information",
    ):  # fmt: skip
        assert part in text
    assert "the notebook's test: llama2-7b against llama3.1-8b" in [table.title for table in made]


@given(norms=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40))
def test_cumulative_energy_telescopes_on_any_norms(norms):
    residual = residual_of(norms)
    assert residual.product == pytest.approx(norms[-1] / norms[0], rel=1e-13)  # forty roundings
