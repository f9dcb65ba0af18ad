"""Each token's loss if a block writes nothing, against models whose block is an identity."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS
from planting.hooks import hooks_of, prompts_of
from planting.planted_blocks import TEXTS, planted_checkpoint
from torch.nn.functional import cross_entropy

import gainlens
from gainlens.activations.capturing import capture
from gainlens.activations.losses import loss
from gainlens.interventions.skipping import with_losses
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.prompts import reduce_metric
from gainlens.models.loading import load

LENGTHS = (12, 30, 9, 1, 2)


@pytest.fixture(scope="module")
def loaded(make_checkpoint):
    folder = make_checkpoint()
    return {backend: load(folder, backend=backend) for backend in BACK_ENDS}


def token_losses(hf_model, prompts):
    """Hugging Face's own logits, prompt by prompt; NaN at position 0."""
    rows = []
    for ids in prompts.tokens:
        tokens = torch.from_numpy(ids)[None]
        with torch.no_grad():
            logits = hf_model(tokens, use_cache=False).logits[0].double()
        found = cross_entropy(logits[:-1], tokens[0, 1:], reduction="none")
        rows.append(np.concatenate([[np.nan], found.numpy()]))
    return np.concatenate(rows)


@contextmanager
def identity(block):
    """Let a Hugging Face block return what enters it."""
    original = block.forward

    def forward(hidden_states, *args, **kwargs):
        whole = original(hidden_states, *args, **kwargs)
        return (hidden_states, *whole[1:]) if isinstance(whole, tuple) else hidden_states

    block.forward = forward
    try:
        yield
    finally:
        del block.forward


def check_against_identities(loaded, blocks, hf_model, prompts):
    lossy = with_losses(capture(loaded, prompts), loaded, prompts, skip=True)
    plain = token_losses(hf_model, prompts)
    np.testing.assert_allclose(lossy.token_loss, plain, rtol=2e-5)
    assert lossy.skip_loss.shape == (len(blocks), len(plain))
    for index, block in enumerate(blocks):
        with identity(block):
            wanted = token_losses(hf_model, prompts)
        np.testing.assert_allclose(lossy.skip_loss[index] + plain, wanted, rtol=2e-5)
        assert np.nanmax(np.abs(wanted - plain)) > 1e-3, "this block does nothing: no test"


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_skip_loss_is_that_of_hugging_faces_model_with_an_identity(loaded, backend):
    """rtol 2e-5: float32."""
    native = load(loaded["native"].checkpoint.hf_name, backend="native").hf_model
    before = hooks_of(loaded[backend].model)
    check_against_identities(loaded[backend], native.model.layers, native, prompts_of(LENGTHS))
    assert hooks_of(loaded[backend].model) == before


@pytest.mark.parametrize("case", ["neox-parallel", "gpt2", "gemma2"])
def test_blocks_of_other_shapes_are_skipped_too(folder_of, case):
    """Parallel blocks, a block that returns a tuple, post-norms."""
    native = load(folder_of(case), backend="native")
    prompts = prompts_of((9, 5))
    check_against_identities(native, native.sites.blocks, native.hf_model, prompts)


def test_the_mean_over_all_tokens_is_the_prompts_loss(loaded):
    prompts = prompts_of(LENGTHS)
    lossy = with_losses(capture(loaded["native"], prompts), loaded["native"], prompts)
    found = reduce_metric("loss", decompose(lossy), "all")
    np.testing.assert_allclose(found[-1], loss(loaded["native"], prompts), rtol=1e-6)
    assert lossy.skip_loss is None
    with pytest.raises(ValueError, match="with_losses"):
        reduce_metric("skip_loss", decompose(lossy))


def test_planted_blocks_cost_what_they_do_to_the_direction(tmp_path):
    """Blocks 0 and 1 write nothing.  Attention of the last turns the stream, by float64 algebra."""
    planted = planted_checkpoint(tmp_path / "model", 1.25, lift=2.0)
    model = gainlens.load(planted.folder, backend="native")
    prompts = gainlens.encode_for(model, TEXTS)
    lossy = with_losses(capture(model, prompts), model, prompts, skip=True)
    assert np.nanmax(np.abs(lossy.skip_loss[:2])) < 1e-5
    head = model.hf_model.lm_head.weight.detach().double().numpy()
    rows = []
    for ids in prompts.tokens:
        x = planted.embedding[ids].astype(np.float64)
        logits = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) @ head.T
        top = logits.max(-1, keepdims=True)
        log_p = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
        rows.append([np.nan, *-log_p[np.arange(len(ids) - 1), ids[1:]]])
    skipped = lossy.token_loss + lossy.skip_loss[2]
    np.testing.assert_allclose(skipped, np.concatenate(rows), rtol=1e-5)
    assert np.nanmean(np.abs(lossy.skip_loss[2])) > 0.1


def test_no_block_before_the_skipped_one_runs_again(loaded):
    native, prompts = loaded["native"], prompts_of((7,))
    captured = capture(native, prompts)
    calls = []
    handles = [
        block.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
        for index, block in enumerate(native.hf_model.model.layers)
    ]
    try:
        with_losses(captured, native, prompts, skip=True)
    finally:
        for handle in handles:
            handle.remove()
    check, whole, skipped = [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 2, 3, 3]
    assert calls == [*check, *whole, *skipped]


def test_a_capture_of_other_tokens_is_refused(loaded):
    with pytest.raises(ValueError, match="same prompts"):
        with_losses(capture(loaded["native"], prompts_of((7,))), loaded["native"], prompts_of((8,)))


@pytest.mark.fault("memory runs out while blocks are skipped", "the batch is halved, and said so")
def test_a_batch_that_does_not_fit_after_a_block_is_halved(loaded, monkeypatch):
    native, prompts = loaded["native"], prompts_of((9, 9))
    captured = capture(native, prompts)
    whole = with_losses(captured, native, prompts, skip=True)
    block, calls = native.hf_model.model.layers[3], []
    original = block.forward

    def full(hidden_states, *args, **kwargs):
        calls.append(len(hidden_states))
        if len(calls) == 3:  # the check, the whole pass, then the first resumed one
            raise torch.OutOfMemoryError("no room")
        return original(hidden_states, *args, **kwargs)

    monkeypatch.setattr(block, "forward", full)
    with pytest.warns(RuntimeWarning, match="--batch-tokens"):
        halved = with_losses(captured, native, prompts, skip=True)
    assert calls[2] == 2
    assert set(calls[3:]) == {1}
    np.testing.assert_allclose(halved.skip_loss, whole.skip_loss, atol=1e-5)
