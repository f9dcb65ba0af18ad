"""A model that is already in memory is measured like one that was loaded."""

import warnings

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS, HOOKED, build_model
from planting.hooks import prompts_of
from transformers import AutoTokenizer

import gainlens
from gainlens.models.loading import load
from gainlens.models.wrapping import wrap


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_a_wrapped_model_gives_the_loaded_models_numbers(make_checkpoint, backend):
    loaded = load(make_checkpoint(), backend=backend)
    wrapped = wrap(loaded.model, loaded.tokenizer)
    assert wrapped.checkpoint.num_blocks == 4
    assert wrapped.checkpoint.backend == backend
    assert wrapped.checkpoint.context == loaded.checkpoint.context
    texts = ["Hello, world.", "x = 1"]
    want, got = gainlens.capture(loaded, texts), gainlens.capture(wrapped, texts)
    np.testing.assert_array_equal(got.gram, want.gram)
    rope = gainlens.rope_report(wrapped)
    assert rope.rope_theta == pytest.approx(rope.measured_theta)
    assert gainlens.unembed_report(wrapped).spectral_norm == pytest.approx(
        gainlens.unembed_report(loaded).spectral_norm
    )


def test_every_kind_of_prompts_gives_the_same_numbers(make_checkpoint):
    loaded = load(make_checkpoint(), backend="native")
    text = "Hello, world."
    encoded = gainlens.encode_for(loaded, [text])
    ids = torch.from_numpy(encoded.tokens[0])[None]
    want = gainlens.capture(loaded, encoded)
    for prompts in (text, [text], ids):
        np.testing.assert_array_equal(gainlens.capture(loaded, prompts).gram, want.gram)
    assert gainlens.encode_for(loaded, ids).bos
    np.testing.assert_array_equal(gainlens.loss(loaded, text), gainlens.loss(loaded.model, ids))


def test_without_a_tokenizer_prompts_are_token_ids():
    wrapped = wrap(build_model())
    ids = torch.arange(20).reshape(2, 10)
    assert gainlens.capture(wrapped, ids).gram.shape == (9, 4, 20)
    with pytest.raises(ValueError, match="no tokenizer"):
        gainlens.capture(wrapped, "Hello, world.")


@pytest.mark.parametrize(
    ("ids", "keyword"),
    [
        (torch.tensor([[1, 300]]), "rows"),
        (torch.tensor([1, 2]), "batch, position"),
        (torch.rand(1, 3), "integers"),
        ([], "empty"),
    ],
)
def test_prompts_that_cannot_be_are_refused(ids, keyword):
    with pytest.raises(ValueError, match=keyword):
        gainlens.encode_for(build_model(), ids)


@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_a_processed_model_is_measured_as_it_is_and_its_w_u_is_not_given(make_checkpoint):
    """Folding the final norm and centring W_U leave a Llama's residual stream alone."""
    folder = make_checkpoint()
    loaded = load(folder, backend="hooked")
    want = gainlens.capture(loaded, prompts_of())
    model = loaded.model
    state = model.state_dict()
    model.cfg.normalization_type = "RMSPre"
    from transformer_lens import HookedTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        processed = HookedTransformer(model.cfg, AutoTokenizer.from_pretrained(folder))
    processed.load_and_process_state_dict(state, fold_ln=True, center_unembed=True)
    wrapped = wrap(processed)
    assert wrapped.checkpoint.processed
    assert wrapped.checkpoint.logits_kl is None
    assert wrapped.checkpoint.logits_skipped
    np.testing.assert_allclose(gainlens.capture(wrapped, prompts_of()).gram, want.gram, rtol=2e-4)
    with pytest.raises(ValueError, match="folded or centred"):
        gainlens.unembed_report(wrapped)


def test_dropout_is_off_whatever_mode_a_model_is_in():
    model = build_model("GPT2", num_key_value_heads=4, resid_pdrop=0.5)
    want = gainlens.capture(model.eval(), prompts_of())
    model.train()
    got = gainlens.capture(model, prompts_of())
    np.testing.assert_array_equal(got.gram, want.gram)
    training = gainlens.loss(model, prompts_of())
    np.testing.assert_array_equal(training, gainlens.loss(model.eval(), prompts_of()))


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="none of HookedTransformer"):
        wrap(torch.nn.Linear(2, 2))
