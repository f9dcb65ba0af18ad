"""Loading: any Llama-family directory as what it is, on each back end, or one sentence."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planting.checkpoints import BACK_ENDS, HOOKED, LLAMA3_SCALING, TRANSFORMER_LENS

from gainlens.models.loading import load, shares_weights
from gainlens.weights.of_model import unembedding
from gainlens.weights.rope import rope_report

FAMILY = {
    "llama": ("Llama", {}),
    "llama-mha": ("Llama", {"num_key_value_heads": 4}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama3-scaling": ("Llama", {"rope_parameters": LLAMA3_SCALING}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": 16}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
}


@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.parametrize("case", FAMILY)
def test_family_loads_on_every_back_end(make_checkpoint, case, backend):
    architecture, shape = FAMILY[case]
    loaded = load(make_checkpoint(architecture, **shape), backend=backend)
    assert loaded.checkpoint.additivity <= 2 * 2**-24
    assert loaded.checkpoint.num_blocks == 4
    head = unembedding(loaded)
    assert head.weight.shape == (300, 32)
    assert head.tied == case.endswith("tied")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_loads_and_says_so(make_checkpoint, dtype):
    loaded = load(make_checkpoint(), dtype=dtype)
    assert loaded.checkpoint.dtype == dtype
    assert next(loaded.model.parameters()).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "meta-llama-gemma-2-9b", "Llama-2-7b"])
@pytest.mark.fault(
    "a directory named like a model that it does not hold", "loads as what its config says"
)
def test_a_directory_loads_as_what_it_is_whatever_its_name(make_checkpoint, name):
    """TransformerLens alone would give Llama-3.1-8B's 32 blocks, or fail."""
    loaded = load(make_checkpoint(name=name))
    assert loaded.checkpoint.backend == TRANSFORMER_LENS
    assert loaded.model.cfg.n_layers == 4
    assert loaded.model.cfg.d_model == 32


@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.fault(
    "a temporary folder by whose path TransformerLens guesses a shape", "refused: set TMPDIR"
)
def test_a_temporary_folder_that_names_a_family_is_refused(make_checkpoint, tmp_path, monkeypatch):
    trap = tmp_path / "Llama-3.1-8B"
    trap.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(trap))
    with pytest.raises(ValueError, match="set TMPDIR"):
        load(make_checkpoint(), backend="hooked")


@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_theta_and_scaling_reach_the_hooked_model(make_checkpoint):
    loaded = load(make_checkpoint(rope_parameters={"rope_type": "default", "rope_theta": 5e5}))
    assert loaded.model.cfg.rotary_base == 5e5


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter"),
        (lambda folder: (folder / "config.json").write_text("{nope"), "not JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 64), "cannot be read"),
        (
            lambda folder: (
                (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
            ),
            "pickled weights can run code",
        ),
    ],
)  # fmt: skip
@pytest.mark.fault(
    "no config.json, one that is not JSON, no safetensors, pickled weights alone, an adapter",
    "refused: which, and what to do",
)
def test_a_broken_directory_gets_one_sentence(make_checkpoint, break_it, sentence):
    folder = make_checkpoint()
    break_it(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.fault(
    "a checkpoint without some tensors (Hugging Face fills them at random)",
    "refused: how many, and the first",
)
def test_missing_tensors_stop_the_load(make_checkpoint):
    """Hugging Face would fill the fifth block at random with a warning."""
    folder = make_checkpoint()
    edit_config(folder, num_hidden_layers=5)
    with pytest.raises(ValueError, match=r"missing tensors .*layers\.4"):
        load(folder)


@pytest.mark.fault(
    "a checkpoint with tensors that the config knows nothing of", "refused: how many, and the first"
)
def test_unexpected_tensors_stop_the_load(make_checkpoint):
    folder = make_checkpoint()
    edit_config(folder, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"unexpected tensors .*layers\.3"):
        load(folder)


@pytest.mark.fault("a model that is no causal language model", "refused: what it is")
def test_an_encoder_is_refused(make_checkpoint):
    folder = make_checkpoint()
    edit_config(folder, architectures=["LlamaModel"])
    with pytest.raises(ValueError, match="not a causal language model"):
        load(folder)


@pytest.mark.fault("no such directory, or no way to the hub", "refused: what to give or download")
def test_a_missing_directory_and_an_unreachable_hub_say_what_to_do():
    with pytest.raises(ValueError, match="there is no directory"):
        load("./nowhere/at/all")
    with pytest.raises(ValueError, match="hf download"):
        load("nobody/nothing-of-the-kind")


@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.fault(
    "a conversion whose logits are not Hugging Face's",
    "refused: the divergence, and --backend native",
)
def test_logits_that_differ_from_hugging_face_are_refused(make_checkpoint, monkeypatch):
    """TransformerLens' Llama has no biases; were it not known, the logits would show it."""
    monkeypatch.setattr("gainlens.models.backends.misfit", lambda config: None)
    with pytest.raises(ValueError, match="logits differ"):
        load(make_checkpoint(attention_bias=True), backend="hooked")


@pytest.mark.fault(
    "a block that scales what its components add",
    "refused: the block, by how much, and what is allowed",
)
def test_a_block_that_is_not_additive_is_refused(make_checkpoint, monkeypatch):
    from transformers.models.llama import modeling_llama

    original = modeling_llama.LlamaDecoderLayer.forward
    monkeypatch.setattr(
        modeling_llama.LlamaDecoderLayer,
        "forward",
        lambda self, *args, **kwargs: original(self, *args, **kwargs) * 1.001,
    )
    with pytest.raises(ValueError, match="not additive"):
        load(make_checkpoint(), backend="native")


@pytest.mark.skipif(HOOKED, reason="TransformerLens 3 has HookedTransformer")
@pytest.mark.fault(
    "--backend hooked on TransformerLens 4", "refused: bridge or native; auto takes bridge"
)
def test_hooked_is_refused_on_transformer_lens_4_and_auto_takes_bridge(make_checkpoint):
    with pytest.raises(ValueError, match="--backend bridge"):
        load(make_checkpoint(), backend="hooked")
    assert load(make_checkpoint()).checkpoint.backend == "bridge"


@pytest.mark.parametrize("backend", ["native", "bridge"])
def test_gemmas_final_norm_multiplies_by_one_plus_its_weight(make_checkpoint, backend):
    loaded = load(make_checkpoint("Gemma2", head_dim=8), backend=backend)
    hf = getattr(loaded.model, "original_model", loaded.model)
    norm = hf.model.norm
    stored = getattr(norm, "original_component", norm).weight
    torch.testing.assert_close(
        unembedding(loaded).norm_scale.float(), 1 + stored, rtol=1e-6, atol=0
    )


@pytest.mark.fault("a config without a context length", "refused: to add max_position_embeddings")
def test_a_config_without_a_context_length_is_refused(tmp_path):
    """BLOOM has no positions, so nothing says what context it was made for."""
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4)
    BloomForCausalLM(config).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="no context length"):
        load(tmp_path / "model")


PEAK = """
import sys
from pathlib import Path
from gainlens import load

def kib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

load("gainlens:context512-theta10k", backend=sys.argv[2])  # every import is made by now
before = kib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
loaded = load(sys.argv[1], backend=sys.argv[2])
print((kib("VmHWM") - before) * 1024)
"""


@pytest.fixture(scope="module")
def large(make_checkpoint):
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12}
    return make_checkpoint(vocab_size=16_000, num_attention_heads=8, **shape)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts memory there")
@pytest.mark.parametrize(("backend", "limit"), [("native", 1.1), ("hooked", 1.15)])
def test_weights_are_in_memory_once(large, backend, limit):
    """Hugging Face maps the file, HookedTransformer's tensors are views of the same; with a copy
    of every tensor it was twice the weights.  Measured: 0.7 and 1.0 to 1.07 of them."""
    if backend not in BACK_ENDS:
        pytest.skip("TransformerLens 4 has no HookedTransformer")
    weights = (large / "model.safetensors").stat().st_size
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(large), backend]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < limit * weights


@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_hooked_shares_hugging_faces_tensors(make_checkpoint, monkeypatch):
    from gainlens.models import backends

    given = []
    convert = backends._converted
    monkeypatch.setattr(
        "gainlens.models.backends._converted",
        lambda hf_model, *rest: given.append(hf_model) or convert(hf_model, *rest),
    )
    hooked = load(make_checkpoint(), backend="hooked").model
    own = {weight.untyped_storage().data_ptr() for weight in given[0].parameters()}
    large_ones = {name: w for name, w in hooked.named_parameters() if "W_" in name}
    assert len(large_ones) == 4 * 7 + 2
    for name, weight in large_ones.items():
        assert weight.untyped_storage().data_ptr() in own, name


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_the_hugging_face_model_of_the_same_tensors_stays_at_hand(make_checkpoint, backend):
    loaded = load(make_checkpoint(), backend=backend)
    assert loaded.hf_model is not None
    assert unembedding(loaded).weight.data_ptr() == loaded.hf_model.lm_head.weight.data_ptr()


def test_a_second_copy_of_the_weights_is_let_go(make_checkpoint):
    hf_model = load(make_checkpoint(), backend="native").model
    assert shares_weights(hf_model, hf_model)
    assert not shares_weights(copy.deepcopy(hf_model), hf_model)


@pytest.mark.parametrize(
    ("changes", "keyword"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"num_key_value_heads": 0}, "num_key_value_heads = 0"),
        ({"num_hidden_layers": -2}, "num_hidden_layers = -2"),
        ({"vocab_size": 0}, "vocab_size = 0"),
        ({"hidden_size": "32"}, "hidden_size = '32'"),
        ({"use_return_dict": False}, "use_return_dict, which transformers computes itself"),
    ],
)
@pytest.mark.fault("a config with a size of 0, or with a computed field", "refused: the field")
def test_a_config_that_no_model_can_have_is_refused_by_its_field(make_checkpoint, changes, keyword):
    folder = make_checkpoint()
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=keyword) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["auto", "native"])
def test_a_config_does_not_say_what_a_forward_pass_returns(make_checkpoint, backend):
    folder = make_checkpoint()
    want = load(folder, backend=backend).checkpoint.additivity
    edit_config(folder, return_dict=False, output_hidden_states=True, output_attentions=True)
    assert load(folder, backend=backend).checkpoint.additivity == pytest.approx(want, abs=1e-7)


def test_yarns_original_context_beside_rope_scaling_comes_first_as_in_transformers(make_checkpoint):
    folder = make_checkpoint()
    scaling = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0}
    edit_config(folder, rope_parameters=scaling, original_max_position_embeddings=64)
    loaded = load(folder)
    assert loaded.checkpoint.context == 256
    assert rope_report(loaded).measured_theta == pytest.approx(10_000, rel=1e-4)
