"""The loss in slices of tokens against logits taken whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS, SHAPE
from planting.hooks import prompts_of

from gainlens.activations import losses
from gainlens.activations.batches import batches
from gainlens.activations.losses import loss
from gainlens.interventions.ablation import ablate
from gainlens.models.loading import load
from gainlens.models.sites import sites_of

LENGTHS = (12, 30, 9, 2)


@pytest.fixture(scope="module")
def loaded(make_checkpoint):
    folder = make_checkpoint()
    return {backend: load(folder, backend=backend).model for backend in BACK_ENDS}


def whole(hf_model, prompts):
    """Hugging Face's own loss of each prompt, alone."""
    rows = [torch.from_numpy(tokens)[None] for tokens in prompts.tokens]
    with torch.no_grad():
        return [float(hf_model(row, labels=row).loss) for row in rows]


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_equals_hugging_faces_own_loss(loaded, backend, monkeypatch):
    """rtol 1e-5: float32."""
    prompts = prompts_of(LENGTHS)
    wanted = whole(loaded["native"], prompts)
    np.testing.assert_allclose(loss(loaded[backend], prompts), wanted, rtol=1e-5)
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 3)
    monkeypatch.setattr(losses, "CHUNK_LOGITS", {"cpu": 1})
    np.testing.assert_allclose(loss(loaded[backend], prompts), wanted, rtol=1e-5)
    np.testing.assert_allclose(loss(loaded[backend], prompts, batch_tokens=0), wanted, rtol=1e-5)


def test_no_slice_holds_more_logits_than_asked_for(loaded, monkeypatch):
    sizes = []
    head = sites_of(loaded["native"]).unembed
    handle = head.register_forward_hook(lambda module, args, out: sizes.append(out.numel()))
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 5)
    monkeypatch.setattr(losses, "CHUNK_LOGITS", {"cpu": 1})
    try:
        loss(loaded["native"], prompts_of((100, 80)))
    finally:
        handle.remove()
    check, *slices = sizes[1:]  # the check at the beginning: whole, then through the head
    assert check == 8 * SHAPE["vocab_size"]
    assert max(slices) == 5 * SHAPE["vocab_size"]


def test_a_prompt_of_one_token_predicts_nothing(loaded):
    found = loss(loaded["native"], prompts_of((5, 1)))
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_composes_with_an_ablation(loaded, backend):
    prompts = prompts_of(LENGTHS)
    model = loaded[backend]
    plain = loss(model, prompts)
    with ablate(model, {"blocks.0.hook_mlp_out": "zero"}):
        under = loss(model, prompts)
        alone = loss(model, replace(prompts, tokens=prompts.tokens[:1]))
    assert (np.abs(under - plain) > 1e-3).all()
    assert alone[0] == pytest.approx(under[0], rel=1e-5)


def test_a_soft_cap_is_known(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=0.5, sliding_window=16)
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(50)  # so that the cap bites
    np.testing.assert_allclose(
        loss(model, prompts_of(LENGTHS)), whole(model, prompts_of(LENGTHS)), rtol=1e-5
    )


def test_logits_that_are_made_otherwise_are_refused():
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    shape = SHAPE | {"tie_word_embeddings": True, "pad_token_id": 0}
    model = CohereForCausalLM(CohereConfig(**shape, logit_scale=0.0625)).eval()
    with pytest.raises(ValueError, match="does more to its logits"):
        loss(model, prompts_of(LENGTHS))


def test_every_prompt_is_in_one_batch_and_padding_is_zero(loaded):
    prompts = prompts_of((7, 3, 12, 9, 1))
    model = loaded["native"]
    seen = {}
    for batch in batches(model, prompts, sites_of(model), 24):
        assert batch.tokens.numel() <= 24
        for index, length, row in zip(batch.index, batch.lengths, batch.tokens, strict=True):
            assert index not in seen
            seen[index] = row[:length].tolist()
            assert (row[length:] == 0).all()
    assert [seen[index] for index in range(5)] == [tokens.tolist() for tokens in prompts.tokens]


def test_a_tokenizer_that_pads_on_the_left_goes_prompt_by_prompt(loaded):
    model = loaded[BACK_ENDS[0]]
    side = model.tokenizer.padding_side
    try:
        model.tokenizer.padding_side = "left"
        found = list(batches(model, prompts_of(LENGTHS), sites_of(model)))
    finally:
        model.tokenizer.padding_side = side
    assert len(found) == len(LENGTHS)
