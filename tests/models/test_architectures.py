"""Every architecture on every back end: the sites are where the model computes, the numbers agree.

Shapes are tiny and weights random; windows are shorter than the prompts, so that what a back end
does beyond a window counts.
"""

import json

import numpy as np
import pytest
import torch
from planting.architectures import ARCHITECTURES, CASES, FRONT_ENDS, NOT_HOOKED, OWN_KEYS, WINDOW
from planting.checkpoints import BACK_ENDS, HOOKED, TRANSFORMER_LENS
from planting.hooks import prompts_of

from gainlens.activations.capturing import capture
from gainlens.activations.scale_control import scale_control
from gainlens.core.vocabulary import UNIT_ROUNDOFF
from gainlens.metrics.decomposition import decompose
from gainlens.models.backends import choose_backend
from gainlens.models.hooks import reading
from gainlens.models.loading import attention_of, load
from gainlens.models.sites import BLOCK_SITES, sites_of
from gainlens.weights.of_model import unembed_report, unembedding
from gainlens.weights.unembed_file import final_norm_of, read_unembedding

LENGTHS = (12, 30, 12, 1, 7)


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_sites_hold_what_the_model_computes(loaded_of, case, backend):
    """Against Hugging Face's own hidden states; rtol 1e-5: other orders of the same sums."""
    loaded = loaded_of(case, backend)
    assert loaded.checkpoint.additivity <= 2 * UNIT_ROUNDOFF["float32"]
    tokens = torch.from_numpy(prompts_of((30,)).tokens[0])[None]
    sites, seen = sites_of(loaded.model), {}
    blocks = [f"blocks.{block}.{name}" for block in range(4) for name in BLOCK_SITES]
    names = [*blocks, "hook_embed", "ln_final"]
    with torch.no_grad(), reading([(sites.site(name), keep(seen, name)) for name in names]):
        sites.run(tokens)
    native = loaded_of(case, "native").model
    states = native(tokens, output_hidden_states=True).hidden_states
    for block in range(4):
        x, a, m, y = (seen[f"blocks.{block}.{name}"] for name in BLOCK_SITES)
        torch.testing.assert_close(x, states[block], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(x + a + m, y, rtol=1e-5, atol=1e-5)
        if block < 3:
            torch.testing.assert_close(y, states[block + 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen["ln_final"], states[-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen["hook_embed"], native.get_input_embeddings()(tokens))
    assert float(a.norm() / y.norm()) > 0.01
    assert float(m.norm() / y.norm()) > 0.01


def keep(seen, name):
    return lambda tensor: seen.update({name: tensor})


def apart(got, want) -> float:
    """Largest difference of an inner product, as a share of the squared norms at hand."""
    size = sum(want.column(name) for name in ("xx", "aa", "mm", "yy"))
    return float((np.abs(got.gram - want.gram) / size).max())


@pytest.mark.parametrize(("case", "backend"), FRONT_ENDS)
def test_the_whole_capture_agrees_with_native(loaded_of, case, backend):
    """1e-5 relative; inner products relative to the norms that they are of."""
    prompts = prompts_of(LENGTHS)
    want = capture(loaded_of(case, "native").model, prompts, heads=True)
    got = capture(loaded_of(case, backend).model, prompts, heads=True, patterns=True)
    assert apart(got, want) < 1e-5
    np.testing.assert_allclose(got.normed, want.normed, rtol=1e-5)
    np.testing.assert_array_equal(got.top_index, want.top_index)
    np.testing.assert_allclose(got.top_value, want.top_value, rtol=1e-5)
    largest = np.abs(want.heads).max(axis=(1, 2))[:, None, None]
    assert (np.abs(got.heads - want.heads) <= 1e-5 * largest).all()
    mine, theirs = decompose(got), decompose(want)
    for part in ("log_gain", "attention", "mlp", "final_norm"):
        np.testing.assert_allclose(getattr(mine, part), getattr(theirs, part), atol=1e-5)
    np.testing.assert_array_equal(mine.is_massive, theirs.is_massive)
    assert got.sink is not None
    assert want.sink is None


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_a_window_is_felt_beyond_it_and_not_within(loaded_of, make_checkpoint, backend):
    windowed = capture(loaded_of("mistral", backend).model, prompts_of((20,)))
    whole_folder = make_checkpoint("Mistral", sliding_window=None)
    whole = capture(load(whole_folder, backend=backend).model, prompts_of((20,)))
    change = np.abs(windowed.column("yy") / whole.column("yy") - 1).max(axis=0)
    assert change[:WINDOW].max() < 1e-6
    assert change[WINDOW:].min() > 1e-4


@pytest.mark.parametrize("case", sorted(NOT_HOOKED))
@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_hooked_refuses_what_it_does_not_know(folder_of, case):
    with pytest.raises(ValueError, match=r"does not know it.*--backend native"):
        load(folder_of(case), backend="hooked")


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_auto_takes_one_that_works(folder_of, case):
    taken = load(folder_of(case)).checkpoint.backend
    assert taken == ("native" if case in NOT_HOOKED else TRANSFORMER_LENS)


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_scale_and_unembedding(loaded_of, folder_of, case, backend):
    """The final norm forgets scale, LayerNorm too, up to its epsilon; W_U is the directory's."""
    loaded = loaded_of(case, backend)
    head = unembedding(loaded)
    tokens = torch.from_numpy(prompts_of((12,)).tokens[0])[None]
    assert scale_control(loaded, tokens, head.weight) < 1e-4
    stored, stored_tied = read_unembedding(folder_of(case))
    assert torch.equal(head.weight, stored)
    scale, mean_off = final_norm_of(folder_of(case), head.weight.shape[1])
    torch.testing.assert_close(head.norm_scale, scale, rtol=1e-6, atol=1e-7)
    assert head.mean_off == mean_off
    assert head.tied == stored_tied == (case == "gpt2-tied")


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_the_folded_spectrum_is_that_of_what_reaches_the_logits(loaded_of, case, backend):
    """The Jacobian of logits by the stream over its norm, but for the radial direction that every
    norm takes off: W_U diag(w), and for LayerNorm the mean off."""
    loaded = loaded_of(case, backend)
    head = unembedding(loaded)
    layer_norm = case.startswith(("gpt2", "neox"))
    assert head.mean_off == layer_norm
    folded = head.weight.double() * head.norm_scale.double()
    if layer_norm:
        folded = folded - folded.mean(1, keepdim=True)
    report = unembed_report(loaded)
    want = torch.linalg.svdvals(folded.detach()).numpy()
    # a singular value of 0 is the root of rounding in the Gram matrix
    np.testing.assert_allclose(report.folded_spectrum, want, rtol=1e-6, atol=1e-6 * want[0])
    assert (want[-1] < 1e-6 * want[0]) == layer_norm


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_native_attends_with_sdpa(loaded_of, case):
    """Gemma 2 caps its attention scores, which SDPA cannot."""
    attention = loaded_of(case, "native").model.config._attn_implementation
    assert attention == ("eager" if case == "gemma2" else "sdpa")


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "want"),
    [
        ("native", "cuda", "bfloat16", "flash_attention_2"),
        ("native", "cuda:1", "float16", "flash_attention_2"),
        ("native", "cuda", "float32", None),
        ("native", "cpu", "bfloat16", None),
        ("bridge", "cuda", "bfloat16", None),
    ],
)
def test_flash_attention_is_taken_where_it_can_run(monkeypatch, backend, device, dtype, want):
    installed = "transformers.utils.import_utils.is_flash_attn_2_available"
    monkeypatch.setattr(installed, lambda: True)
    assert attention_of(backend, device, dtype) == want
    monkeypatch.setattr(installed, lambda: False)
    assert attention_of(backend, device, dtype) is None


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [("native", "block 0 of .*Granite.* not additive"), ("bridge", "Granite")],
)
def test_an_architecture_that_scales_its_writes_is_refused(make_checkpoint, backend, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(make_checkpoint("Granite", residual_multiplier=0.5), backend=backend)


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
YARN["original_max_position_embeddings"] = 32
WINDOWED = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}
MISFITS = {
    "linear": ("Llama", {"rope_parameters": {**YARN, "rope_type": "linear"}}, "scaling"),
    "yarn": ("Qwen3", {"rope_parameters": YARN}, "scaling"),
    "attention biases": ("Llama", {"attention_bias": True}, "biases in attention"),
    "MLP biases": ("Llama", {"mlp_bias": True}, "biases in the MLP"),
    "head size": ("Llama", {"head_dim": 16}, "heads of 16"),
    "window": ("Qwen2", WINDOWED, "sliding window"),
    "theta": (
        "GPTNeoX",
        {
            **OWN_KEYS,
            "hidden_size": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
        },
        "theta of 100000",
    ),
    "no biases": ("GPTNeoX", {**OWN_KEYS, "attention_bias": False}, "without biases"),
    "inner size": ("GPT2", {**OWN_KEYS, "n_inner": 48}, "48 neurons"),
}


@pytest.mark.parametrize("case", MISFITS)
@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_what_a_conversion_would_leave_out_is_refused_by_name(make_checkpoint, monkeypatch, case):
    architecture, shape, what = MISFITS[case]
    folder = make_checkpoint(architecture, **shape)
    with pytest.raises(ValueError, match=f"{what}.*--backend native"):
        load(folder, backend="hooked")
    assert load(folder).checkpoint.backend == "native"
    monkeypatch.setattr("gainlens.models.backends.misfit", lambda config: None)
    with pytest.raises(ValueError, match=r"logits differ|cannot hold"):  # it is no false alarm
        load(folder, backend="hooked")


def test_auto_measures_natively_beyond_what_transformer_lens_holds(folder_of):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder_of("llama"))
    assert choose_backend(config, 128) == TRANSFORMER_LENS
    assert choose_backend(config, 129) == "native"  # beyond the context of 128
    config.max_position_embeddings = 1 << 20
    assert choose_backend(config, 2048) == TRANSFORMER_LENS
    assert choose_backend(config, 2049) == "native"


def test_gpt2_needs_no_n_ctx(folder_of):
    """transformers 5 writes n_positions alone; TransformerLens asks for n_ctx."""
    assert "n_ctx" not in json.loads((folder_of("gpt2") / "config.json").read_text())
