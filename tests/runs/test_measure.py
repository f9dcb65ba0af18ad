"""`measure`: one model or many, without a claim, against planted gains."""

import numpy as np
import pytest
import torch
from planting.planted_blocks import TEXTS, planted_checkpoint

import gainlens
from gainlens.core.spec import MeasureSpec, Rule
from gainlens.metrics.splits import head_split
from gainlens.runs.measurement import step_of

SPEC = MeasureSpec(name="test", models=(), rule=Rule(resamples=200))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    base = tmp_path_factory.mktemp("measured")
    return [planted_checkpoint(base / f"step{step}", gain) for step, gain in ((20, 0.6), (3, 1.25))]


@pytest.fixture(scope="module")
def folders(planted):
    return [model.folder for model in planted]


def log_gains(model, measurement):
    """The planted log gain of every prompt of a measurement: mean over tokens after the first."""
    tokens = measurement.reports[0].prompts.tokens
    return np.array([np.log(model.gain(ids)[1:]).mean() for ids in tokens])


@pytest.fixture(scope="module")
def one(folders):
    return gainlens.measure(folders[1], TEXTS, spec=SPEC)


@pytest.fixture(scope="module")
def series(folders):
    return gainlens.measure(folders, TEXTS, series=True, spec=SPEC)


def test_one_model_has_the_planted_gain(one, planted):
    assert one.models == ("step3",)
    assert one.blocks["log_gain"].iloc[-1] == pytest.approx(
        log_gains(planted[1], one).mean(), rel=1e-4
    )
    assert one.reports[0].cells == ()


def test_a_metric_is_an_array_by_model_block_and_prompt(one, planted):
    array = one.metric("log_gain")
    assert array.dims == ("model", "block", "prompt")
    assert array.sizes["prompt"] == len(TEXTS)
    np.testing.assert_allclose(array.values[0, -1], log_gains(planted[1], one), rtol=1e-4)
    assert array.attrs["units"] == "nats"
    with pytest.raises(ValueError, match="nearest is log_gain"):
        one.metric("log_gian")


def test_tokens_carry_their_text_and_their_prompt(one):
    capture = one.measured[0].decomposition.capture
    last = one.tokens[one.tokens["block"] == len(one.blocks) - 1]
    assert list(last["text"]) == list(capture.token_text)
    assert set(last["prompt"]) == set(one.reports[0].prompts.ids)


def test_heads_are_ranked_by_the_size_of_their_part(one):
    decomposition = one.measured[0].decomposition
    parts = head_split(decomposition.capture)
    block, head = one.heads["block"].iloc[-1], one.heads["head"].iloc[-1]
    expected = np.mean([
        parts[block, head, (decomposition.prompt == index) & decomposition.is_ordinary].mean()
        for index in range(len(TEXTS))
    ])  # fmt: skip
    assert one.heads["log_gain"].iloc[-1] == pytest.approx(expected, abs=1e-12)
    top = one.top_heads(3)
    assert len(top) == 3
    assert top["log_gain"].abs().is_monotonic_decreasing
    assert top["log_gain"].abs().iloc[0] == one.heads["log_gain"].abs().max()


def test_every_figure_draws_one_model_and_many(one, series):
    for measurement in (one, series):
        for name in measurement.figures:
            assert measurement.figure(name) is not None
    assert "series" in series.figures
    assert "series" not in one.figures
    with pytest.raises(ValueError, match="nearest is gain_curve"):
        one.figure("gain_curves")


def test_a_series_is_in_the_order_of_its_steps(series, folders):
    assert series.models == ("step3", "step20")
    assert series.positions == (3.0, 20.0)
    gains = series.blocks.groupby("step")["gain"].last()
    assert gains[3.0] > 1.2
    assert gains[20.0] < 0.7
    with pytest.raises(ValueError, match="one step"):
        gainlens.measure([folders[0], folders[0]], TEXTS[:2], series=True, spec=SPEC)


def test_steps_come_from_the_record_then_from_the_name():
    assert step_of("final", {"step": 7}) == 7
    assert step_of("run2/step1000-b", None) == 1000
    assert step_of("org/pythia-160m@step512", None) == 512
    assert step_of("org/pythia-160m@main", None) is None
    assert step_of("/tmp/9/final", None) is None


def test_the_difference_is_the_second_minus_the_first(series, planted):
    last = series.difference().iloc[-1]
    smaller, larger = (log_gains(model, series) for model in planted)
    assert last["difference"] == pytest.approx((smaller - larger).mean(), rel=1e-4)
    assert last["low"] < last["difference"] < last["high"]
    assert last["n"] == len(TEXTS)


def test_a_difference_needs_two_models(one):
    with pytest.raises(ValueError, match="two models"):
        one.difference()


def test_lengths_give_a_curve(folders):
    measured = gainlens.measure(folders[1], TEXTS, tokens=[4, 8], spec=SPEC)
    assert measured.models == ("step3@4", "step3@8")
    assert measured.positions == (4.0, 8.0)
    assert {len(ids) for ids in measured.reports[1].prompts.tokens} == {8}
    assert "series" in measured.figures


def test_a_model_in_memory_without_a_tokenizer_takes_token_ids(folders):
    loaded = gainlens.load(folders[1], backend="native")
    bare = gainlens.measure(loaded.hf_model, torch.arange(12).reshape(2, 6) + 3, spec=SPEC)
    assert bare.blocks["gain"].iloc[-1] == pytest.approx(1.25, rel=1e-2)
    assert set(bare.tokens["prompt"]) == {"row-0", "row-1"}


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="no model"):
        gainlens.measure([], TEXTS)
