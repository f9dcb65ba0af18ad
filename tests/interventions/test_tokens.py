"""Massive activations set to their mean or to zero, and BOS dropped or doubled: planted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS
from planting.hooks import hooks_of
from planting.massive import (
    BOS,
    MASS,
    MASSIVE,
    OTHER,
    massive_checkpoint,
    prompts_with_massive,
    written,
)

import gainlens
from gainlens.activations.losses import loss
from gainlens.core.spec import Rule
from gainlens.interventions.baseline import baseline_of
from gainlens.interventions.tokens import bos_effects, massive_effects, massive_set
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_entries
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.loading import load

RULE = Rule(resamples=400)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    def build(flags, ids=(MASSIVE,), backend="native"):
        folder = tmp_path_factory.mktemp("massive") / "model"
        embedding = massive_checkpoint(folder, flags)
        baseline = baseline_of(load(folder, backend=backend), prompts_with_massive(ids), RULE)
        return embedding, baseline

    return build


def test_massive_activations_are_found_where_they_are_written(planted):
    embedding, baseline = planted({BOS: 6.0, MASSIVE: 5.0})
    entries = massive_entries(baseline.decomposition)
    assert {(entry.block, entry.dim) for entry in entries} == {(0, MASS)}
    tokens = baseline.prompts.tokens
    assert {(entry.prompt, entry.position) for entry in entries} == {
        (index, position)
        for index, ids in enumerate(tokens)
        for position in np.flatnonzero(np.isin(ids, [BOS, MASSIVE]))
    }
    for entry in entries:
        truth = written(embedding, tokens[entry.prompt][entry.position])
        assert entry.value == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_equal_ones_set_to_their_mean_change_nothing_and_set_to_zero_do(planted, backend):
    """Sun et al.'s finding, planted: fixed biases.  BOS has another value and its own mean."""
    _, baseline = planted({BOS: 6.0, MASSIVE: 5.0}, backend=backend)
    before = hooks_of(baseline.model)
    mean, zero = massive_effects(baseline)
    assert hooks_of(baseline.model) == before
    assert (mean.name, zero.name) == ("massive to mean", "massive to zero")
    assert mean.note == "40 activations on 40 tokens"
    assert mean.change.delta_log_gain.estimate == pytest.approx(0, abs=1e-6)
    assert mean.change.delta_loss.estimate == pytest.approx(0, abs=1e-5)
    assert zero.change.delta_log_gain.high < -0.1  # attention has nothing to read
    assert abs(zero.change.delta_loss.estimate) > 0.01
    assert zero.change.after.log_gain.estimate == pytest.approx(0, abs=1e-6)


def test_unequal_ones_set_to_their_mean_do_change(planted):
    """The positive twin of the null: tokens of two sizes.  BOS keeps its own."""
    embedding, baseline = planted({BOS: 6.0, MASSIVE: 3.0, OTHER: 9.0}, ids=(MASSIVE, OTHER))
    mean, _ = massive_effects(baseline)
    assert abs(mean.change.delta_loss.estimate) > 1e-3
    middle = (written(embedding, MASSIVE) + written(embedding, OTHER)) / 2
    with massive_set(baseline, "mean"):
        captured = gainlens.capture(baseline.model, baseline.prompts)
    massive = np.isin(captured.token_id, [MASSIVE, OTHER])
    np.testing.assert_allclose(captured.top_value[0, massive, 0], middle, rtol=1e-5)
    assert (captured.top_index[0, massive, 0] == MASS).all()
    first = captured.top_value[0, captured.position == 0, 0]
    np.testing.assert_allclose(first, written(embedding, BOS), rtol=1e-5)


def test_without_massive_activations_there_is_no_change_and_a_reason(planted):
    _, baseline = planted({})
    for effect in massive_effects(baseline):
        assert effect.change is None
        assert effect.note == "no token is massive on these prompts"


def test_no_hook_survives_a_failure(planted, monkeypatch):
    _, baseline = planted({BOS: 6.0, MASSIVE: 5.0})
    before = hooks_of(baseline.model)
    with pytest.raises(KeyError), massive_set(baseline, "zero"):
        raise KeyError("the user's own")
    assert hooks_of(baseline.model) == before


@pytest.fixture(scope="module")
def random_baseline(make_checkpoint):
    loaded = load(make_checkpoint(), backend="native")
    return baseline_of(loaded, prompts_with_massive(ids=(30,)), RULE)


@pytest.mark.parametrize("name", ["BOS dropped", "BOS doubled"])
def test_bos_effects_equal_measuring_the_changed_prompts(random_baseline, name):
    """The loss on the same text tokens, taken the long way: Hugging Face's logits whole."""
    model, prompts = random_baseline.model, random_baseline.prompts
    found = {effect.name: effect for effect in bos_effects(random_baseline)}[name]
    changed = {
        "BOS dropped": [tokens[1:] for tokens in prompts.tokens],
        "BOS doubled": [np.concatenate([tokens[:1], tokens]) for tokens in prompts.tokens],
    }[name]

    def text_loss(tokens, text):
        """Return the mean over the text without its first token."""
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens)[None]).logits[0].double()
        scores = -logits.log_softmax(-1)[:-1].gather(1, torch.from_numpy(tokens[1:])[:, None])
        return float(scores[-(len(text) - 1) :].mean())

    texts = [tokens[1:] for tokens in prompts.tokens]
    after = [text_loss(tokens, text) for tokens, text in zip(changed, texts, strict=True)]
    before = [text_loss(tokens, text) for tokens, text in zip(prompts.tokens, texts, strict=True)]
    assert found.change.before.loss.estimate == pytest.approx(np.mean(before), abs=1e-5)
    assert found.change.after.loss.estimate == pytest.approx(np.mean(after), abs=1e-5)
    captured = gainlens.capture(model, replace(prompts, tokens=tuple(changed)))
    gains = reduce_gains(decompose(captured)).log_gain
    assert found.change.after.log_gain.estimate == pytest.approx(gains[-1].mean(), abs=1e-5)


def test_prompts_that_fill_the_context_make_room_for_a_second_bos(random_baseline):
    lengths = {len(tokens) for tokens in random_baseline.prompts.tokens}
    config = dict(random_baseline.config) | {"max_position_embeddings": max(lengths)}
    tight = replace(random_baseline, config=config)
    dropped, doubled = bos_effects(tight)
    cut = replace(
        tight.prompts, tokens=tuple(tokens[: max(lengths) - 1] for tokens in tight.prompts.tokens)
    )
    cut_text = replace(cut, tokens=tuple(tokens[1:] for tokens in cut.tokens))
    assert dropped.change.after.loss.estimate == pytest.approx(
        loss(tight.model, cut_text).mean(), abs=1e-5
    )
    assert doubled.change.before == dropped.change.before


def test_a_tokenizer_without_bos_has_nothing_to_drop(make_checkpoint):
    loaded = load(make_checkpoint(bos=False), backend="native")
    baseline = baseline_of(loaded, gainlens.encode_for(loaded, ["No start.", "None at all."]), RULE)
    for effect in bos_effects(baseline):
        assert effect.change is None
        assert "no BOS" in effect.note
