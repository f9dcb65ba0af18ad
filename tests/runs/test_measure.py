"""`measure`: one model or many, without a claim, against planted gains."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from planting.captures import capture_of
from planting.planted_blocks import TEXTS, planted_checkpoint

import gainlens
from gainlens.activations.batches import batches
from gainlens.core.spec import MeasureSpec, Rule
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.metric import metric_values
from gainlens.metrics.registry import METRICS
from gainlens.metrics.splits import head_split
from gainlens.results.parquet import HEADS, TOKENS, TokenTable, write_heads
from gainlens.results.parquet_reading import Shape, TableFile, read_capture
from gainlens.runs.measurement_folder import write_measurement
from gainlens.runs.measuring import visible_share
from gainlens.runs.series import step_of

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
    ids = np.array(one.reports[0].prompts.ids)[decomposition.prompt]
    for row in one.heads.itertuples():
        own = np.where(decomposition.is_ordinary, parts[row.block, row.head], 0.0)
        (token,) = np.flatnonzero((ids == row.prompt) & (decomposition.position == row.position))
        assert decomposition.is_ordinary[token]
        assert row.part_there == parts[row.block, row.head, token]
        assert abs(row.part_there) == np.abs(own).max()
        assert row.text == decomposition.capture.token_text[token]
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


def test_a_token_map_shows_any_metric_of_one_prompt(one):
    decomposition = one.measured[0].decomposition
    expected = metric_values(METRICS["angle"], decomposition)[:, decomposition.prompt == 1]
    name = one.reports[0].prompts.ids[1]
    for prompt in (1, name):
        drawn = one.token_map("angle", prompt).images[0].get_array()
        np.testing.assert_array_equal(np.ma.getdata(drawn), expected)
    assert "angle (" in one.token_map("angle", 1).child_axes[0].get_ylabel()
    (heat,) = one.token_map("angle", 1, interactive=True).data
    assert np.shape(heat.z) == expected.shape
    with pytest.raises(ValueError, match="nearest is"):
        one.token_map("angle", name[:-1])
    with pytest.raises(ValueError, match="no prompt 99"):
        one.token_map("angle", 99)


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
    assert step_of("/runs/9/final", None) is None


def test_the_difference_is_the_second_minus_the_first(series, planted):
    last = series.difference().iloc[-1]
    smaller, larger = (log_gains(model, series) for model in planted)
    assert last["difference"] == pytest.approx((smaller - larger).mean(), rel=1e-4)
    assert last["low"] < last["difference"] < last["high"]
    assert last["n"] == len(TEXTS)


def test_models_of_the_same_weights_are_named(series, folders, tmp_path):
    copy = shutil.copytree(folders[1], tmp_path / "copy")
    twice = gainlens.measure([folders[1], copy], TEXTS, spec=SPEC)
    assert twice.answer.endswith("; step3 and copy hold the same weights")
    assert "same weights" not in series.answer


def test_a_difference_needs_two_models(one):
    with pytest.raises(ValueError, match="two models"):
        one.difference()


def test_lengths_give_a_curve(folders):
    measured = gainlens.measure(folders[1], TEXTS, tokens=[4, 8], spec=SPEC)
    assert "same weights" not in measured.answer, "one model at two lengths is no surprise"
    assert measured.models == ("step3@4", "step3@8")
    assert measured.positions == (4.0, 8.0)
    assert {len(ids) for ids in measured.reports[1].prompts.tokens} == {8}
    assert "series" in measured.figures


def test_a_model_in_memory_without_a_tokenizer_takes_token_ids(folders):
    loaded = gainlens.load(folders[1], backend="native")
    bare = gainlens.measure(loaded.hf_model, torch.arange(12).reshape(2, 6) + 3, spec=SPEC)
    assert bare.blocks["gain"].iloc[-1] == pytest.approx(1.25, rel=1e-2)
    assert set(bare.tokens["prompt"]) == {"row-0", "row-1"}


def test_loss_is_measured_when_it_is_asked_for(one, folders):
    loss = one.metric("loss", tokens="all")
    assert one.measured[0].decomposition.capture.token_loss is None, "nobody had asked"
    expected = gainlens.loss(gainlens.load(folders[1]), TEXTS)
    np.testing.assert_allclose(loss.values[0, -1], expected, rtol=1e-5)
    assert np.isnan(loss.values[0, :-1]).all()
    skip = one.metric("skip_loss", tokens="all")
    np.testing.assert_allclose(skip.values[0, :2], 0.0, atol=1e-5)  # those blocks write nothing


def test_a_metric_of_the_spec_is_measured_at_once_and_written(folders, tmp_path):
    spec = SPEC.model_copy(update={"metric": ("skip_loss",), "batch_tokens": 16})
    extra = {"largest": lambda rows: rows.y.abs().amax(dim=-1)}
    measured = gainlens.measure(folders[1], TEXTS[:4], extra=extra, spec=spec)
    capture = measured.measured[0].decomposition.capture
    report = measured.measured[0].report
    with TokenTable(tmp_path / TOKENS) as table:
        table.add(report, measured.measured[0].decomposition)
    write_heads(tmp_path / HEADS, [(report, capture.sink)])
    lengths = tuple(len(tokens) for tokens in report.prompts.tokens)
    files = (TableFile(tmp_path / name) for name in (TOKENS, HEADS))
    back = read_capture(*files, "step3", Shape(len(report.blocks), lengths))
    np.testing.assert_array_equal(back.extra["largest"], capture.extra["largest"])
    np.testing.assert_array_equal(back.token_loss, capture.token_loss)
    np.testing.assert_array_equal(back.skip_loss, capture.skip_loss)
    assert set(back.extra) == {"largest"}
    np.testing.assert_allclose(capture.extra["largest"], np.abs(capture.top_value[..., 0]))
    np.testing.assert_array_equal(measured.tokens["largest"], capture.extra["largest"].ravel())
    np.testing.assert_allclose(
        measured.metric("largest").values, measured.metric("max_component").values
    )
    write_measurement(tmp_path / "run", tmp_path / "run" / "figures", measured)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert '"name":"largest"' in page  # the map offers it


def test_an_extra_column_that_the_table_has_already_is_refused(folders, tmp_path):
    extra = {"log_gain": lambda rows: rows.y.abs().amax(dim=-1)}
    measured = gainlens.measure(folders[1], TEXTS[:2], extra=extra, spec=SPEC)
    with (
        TokenTable(tmp_path / TOKENS) as table,
        pytest.raises(ValueError, match="'log_gain'"),
    ):
        table.add(measured.reports[0], measured.measured[0].decomposition)


def test_batch_tokens_reaches_every_pass(folders, monkeypatch):
    budgets = []

    def spy(model, prompts, sites, batch_tokens=None, **rest):
        budgets.append(batch_tokens)
        return batches(model, prompts, sites, batch_tokens, **rest)

    for module in ("activations.capturing", "interventions.skipping", "interventions.sweep"):
        monkeypatch.setattr(f"gainlens.{module}.batches", spy)
    update = {"metric": ("loss",), "batch_tokens": 16, "sweep": 1}
    gainlens.measure(folders[1], TEXTS[:4], heads=False, spec=SPEC.model_copy(update=update))
    assert budgets.count(16) == 4, "capture, loss, the sweep's plain pass, its ablations"
    assert set(budgets) == {16, None}, "None: the notebook's one sentence"


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="no model"):
        gainlens.measure([], TEXTS)


def test_the_visible_share_is_a_mean_over_prompts_not_over_their_tokens():
    """A prompt of eight ordinary tokens that W_U sees, and one of five that it does not."""
    rng = np.random.default_rng(0)
    capture = capture_of(*rng.normal(size=(3, 1, 16, 8)))  # prompts of 9, 1 and 6 tokens
    seen = np.where(capture.prompt == 0, 1.0, 0.0)
    silent = np.where(capture.prompt == 0, np.nan, 0.25)
    gains = decompose(dataclasses.replace(capture, visible=np.stack([seen, silent])))
    assert visible_share(gains) == (0.5, 0.25)
    nothing = dataclasses.replace(gains.capture, visible=np.full((2, 16), np.nan))
    assert np.isnan(visible_share(decompose(nothing))).all()
