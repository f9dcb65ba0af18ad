"""RoPE's base and scaling on fixed weights, against models built with that base."""

import numpy as np
import pytest
import torch
from planting.checkpoints import (
    BACK_ENDS,
    HOOKED,
    LLAMA3_SCALING,
    SHAPE,
    build_model,
    save_tokenizer,
)
from planting.hooks import hooks_of, prompts_of

from gainlens.activations.capturing import capture
from gainlens.interventions.rope_override import rope_scaling, rope_theta
from gainlens.models.loading import load
from gainlens.weights.rope import inverse_frequencies, measured_theta

PROMPTS = prompts_of((40, 25, 60))
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def plain(theta):
    return {"rope_type": "default", "rope_theta": theta}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """The same weights whatever RoPE's parameters: seeded, and RoPE has none of its own."""
    cache = {}

    def build(backend, rope, **shape):
        key = (backend, repr(rope), repr(shape))
        if key not in cache:
            folder = tmp_path_factory.mktemp("rope") / "model"
            build_model(rope_parameters=dict(rope), **shape).save_pretrained(folder)
            save_tokenizer(folder)
            cache[key] = load(folder, backend=backend).model
        return cache[key]

    return build


def assert_same(found, wanted):
    """rtol 1e-6: the tables may be made in another order of float32 operations."""
    scale = wanted.gram.max()
    np.testing.assert_allclose(found.gram, wanted.gram, rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.parametrize(
    ("own", "other"),
    [
        (plain(1e4), plain(5e5)),
        (LLAMA3_SCALING, {**LLAMA3_SCALING, "rope_theta": 1e4}),
    ],
)
def test_another_base_equals_a_model_built_with_it(make, backend, own, other):
    model, built = make(backend, own), make(backend, other)
    before = capture(model, PROMPTS)
    wanted = capture(built, PROMPTS)
    assert not np.allclose(before.gram, wanted.gram, rtol=1e-3)
    with rope_theta(model, other["rope_theta"]):
        assert_same(capture(model, PROMPTS), wanted)
    np.testing.assert_array_equal(capture(model, PROMPTS).gram, before.gram)


@pytest.mark.parametrize("rope", [YARN, DYNAMIC])
def test_native_keeps_every_scaling_under_another_base(make, rope):
    """Dynamic scaling makes its tables anew in mid-forward, from the config."""
    model, built = make("native", rope), make("native", {**rope, "rope_theta": 5e5})
    long = prompts_of((100, 128))
    before = capture(model, long)
    with rope_theta(model, 5e5):
        assert_same(capture(model, long), capture(built, long))
    np.testing.assert_array_equal(capture(model, long).gram, before.gram)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_no_scaling_equals_a_model_built_without(make, backend):
    model, built = make(backend, LLAMA3_SCALING), make(backend, plain(5e5))
    before, wanted = capture(model, PROMPTS), capture(built, PROMPTS)
    assert not np.allclose(before.gram, wanted.gram, rtol=1e-3)
    with rope_scaling(model, None):
        assert_same(capture(model, PROMPTS), wanted)
    np.testing.assert_array_equal(capture(model, PROMPTS).gram, before.gram)


def test_attention_scaling_of_yarn_goes_with_the_scaling(make):
    model, built = make("native", YARN), make("native", plain(1e4))
    with rope_scaling(model, None):
        assert_same(capture(model, PROMPTS), capture(built, PROMPTS))


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_the_base_is_measured_in_the_buffers_and_restored_to_the_bit(make, backend):
    model = make(backend, plain(1e4))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    hooks = hooks_of(model)
    with rope_theta(model, 2e6):
        assert measured_theta(inverse_frequencies(model), None) == pytest.approx(2e6, rel=1e-4)
        with rope_theta(model, 300.0):
            assert measured_theta(inverse_frequencies(model), None) == pytest.approx(300, rel=1e-4)
        assert measured_theta(inverse_frequencies(model), None) == pytest.approx(2e6, rel=1e-4)
    after = dict(model.named_buffers())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert hooks_of(model) == hooks


@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.fault("an error under another theta", "the model's own is restored")
def test_restored_whatever_is_raised(make, backend):
    model = make(backend, plain(1e4))
    before = inverse_frequencies(model)
    with pytest.raises(KeyError), rope_theta(model, 5e5):
        raise KeyError("the user's own")
    np.testing.assert_array_equal(inverse_frequencies(model), before)


@pytest.mark.skipif(not HOOKED, reason="HookedTransformer was removed in TransformerLens 4.0")
def test_tables_that_grow_on_the_fly_grow_under_the_new_base(make, monkeypatch):
    """HookedTransformer holds 2,048 rows and makes more when a prompt is longer."""
    from transformer_lens.components.abstract_attention import AbstractAttention

    monkeypatch.setattr(AbstractAttention, "ROTARY_INITIAL_CACHE_SIZE", 16)
    model = make("hooked", plain(1e4), rms_norm_eps=1.5e-6)
    rows = len(model.blocks[0].attn.rotary_sin)
    assert rows < 60, "the longest prompt makes it grow"
    monkeypatch.undo()
    built = make("hooked", plain(5e5), rms_norm_eps=1.5e-6)
    with rope_theta(model, 5e5):
        assert_same(capture(model, PROMPTS), capture(built, PROMPTS))
    assert len(model.blocks[0].attn.rotary_sin) == rows


def gemma_3(theta):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        **SHAPE,
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters={"full_attention": plain(theta), "sliding_attention": plain(1e4)},
        head_dim=8,
        sliding_window=16,
    )
    torch.manual_seed(0)
    return Gemma3ForCausalLM(config).eval()


def test_layers_of_two_kinds_change_the_full_ones_alone():
    """Gemma 3: sliding layers have a base of their own."""
    model, built = (gemma_3(theta) for theta in (1e6, 5e4))
    assert not np.allclose(capture(model, PROMPTS).gram, capture(built, PROMPTS).gram, rtol=1e-3)
    with rope_theta(model, 5e4):
        assert_same(capture(model, PROMPTS), capture(built, PROMPTS))


@pytest.mark.parametrize("theta", [0.0, 1.0, -5.0, float("nan"), float("inf")])
@pytest.mark.fault("--theta that is no base", "refused")
def test_a_base_that_is_none_is_refused(make, theta):
    with (
        pytest.raises(ValueError, match="finite number above 1"),
        rope_theta(make("native", plain(1e4)), theta),
    ):
        pass


def test_scaling_can_only_be_taken_away(make):
    with (
        pytest.raises(ValueError, match="takes None"),
        rope_scaling(make("native", plain(1e4)), {"rope_type": "linear"}),
    ):
        pass


@pytest.mark.fault("--theta for a model without RoPE", "refused")
def test_a_model_without_rope_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=300))
    with pytest.raises(ValueError, match="no RoPE base to change"), rope_theta(model, 5e5):
        pass
