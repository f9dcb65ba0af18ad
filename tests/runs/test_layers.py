"""`layers` on checkpoints whose blocks' work is planted."""

import numpy as np
import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint
from scipy.stats import spearmanr

import gainlens
from gainlens.core.spec import MeasureSpec, Rule
from gainlens.runs.layers import MEASURES

SPEC = MeasureSpec(name="test", models=(), rule=Rule(resamples=200))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return planted_checkpoint(tmp_path_factory.mktemp("layers") / "model", 1.25, lift=2.0)


@pytest.fixture(scope="module")
def found(planted):
    return gainlens.layers(planted.folder, TEXTS, spec=SPEC)


def test_blocks_that_write_nothing_tie_and_cost_nothing(found):
    """The last block of the planted model changes its loss, for better or worse."""
    table = found.layers
    assert list(table["block"]) == [0, 1, 2]
    for name in ("influence", "angle", "attention_write", "mlp_write", "write", "skip_loss"):
        np.testing.assert_allclose(table[name][:2], 0.0, atol=1e-5)
        assert abs(table[name][2]) > 1e-3
    assert (0, 1) in found.removal.groups
    assert len(found.removal.groups) == 2
    assert found.removal.order is None
    assert "0 = 1" in found.answer
    places = dict(zip(table["block"], table["place"], strict=True))
    assert places[0] == places[1] != places[2]


def test_the_table_is_that_of_the_metrics(found):
    for name in ("angle", "skip_loss"):
        means = found.metric(name).mean("prompt").values[0]
        np.testing.assert_allclose(found.layers[name], means, rtol=1e-12)
        assert (found.layers[f"{name}_low"][2:] < means[2:]).all()


def test_agreement_is_with_the_skip_loss(make_checkpoint):
    found = gainlens.layers(make_checkpoint(num_hidden_layers=6), TEXTS[:8], spec=SPEC)
    table = found.layers
    assert {one.measure for one in found.agreement} == {*MEASURES} - {"skip_loss"}
    for one in found.agreement:
        expected = spearmanr(table[one.measure], table["skip_loss"])[0]
        assert one.spearman == pytest.approx(expected, abs=1e-12)
        assert one.spearman < 0.999, "two measures of one order: no test"


def test_few_prompts_withhold_the_order(planted):
    few = gainlens.layers(gainlens.load(planted.folder), TEXTS[:3], spec=SPEC)
    assert "loss: 3" in few.answer
    assert few.layers["place"].isna().all()
    assert few.figure("importance") is not None


def test_a_model_of_one_block_has_a_table_and_no_order(make_checkpoint):
    folder = make_checkpoint(num_hidden_layers=1)
    alone = gainlens.layers(folder, TEXTS[:4], spec=SPEC)
    assert "one block" in alone.answer
    assert np.isfinite(alone.layers["skip_loss"]).all()
    assert alone.figure("importance") is not None
    assert alone.shown_tables
