"""Find what a block adds by what reaches the stream; refuse by name what cannot be measured."""

import json

import numpy as np
import pytest
import torch
from planting.checkpoints import build_model

from gainlens.activations.capturing import capture
from gainlens.interventions.ablation import ablate
from gainlens.models.loading import load
from gainlens.models.wrapping import wrap


def test_a_model_that_is_not_causal_is_refused():
    model = build_model(
        "Gemma3", head_dim=8, query_pre_attn_scalar=8, use_bidirectional_attention=True
    )
    with pytest.raises(ValueError, match="not causal"):
        wrap(model)


def test_a_block_that_adds_in_place_is_measured_by_copies():
    """Falcon adds attention's output to the MLP's own tensor."""
    shape = {"intermediate_size": 48, "num_key_value_heads": 4}
    wrapped = wrap(build_model("Falcon", **shape, multi_query=True, parallel_attn=True))
    assert wrapped.checkpoint.additivity < 1e-6
    captured = capture(wrapped, torch.arange(12)[None])
    total = sum(captured.column(name) for name in ("xx", "aa", "mm"))
    total = total + 2 * sum(captured.column(name) for name in ("xa", "xm", "am"))
    np.testing.assert_allclose(total, captured.column("yy"), rtol=1e-4)

    np.testing.assert_array_equal(
        capture(wrapped.model, torch.arange(12)[None]).column("aa"), captured.column("aa")
    )


OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1}
LLAMA4 = {
    "head_dim": 8,
    "num_local_experts": 4,
    "intermediate_size_mlp": 48,
    "attention_chunk_size": 16,
    "no_rope_layers": [1, 0, 1, 0],
    "pad_token_id": 1,
}


@pytest.mark.parametrize(("architecture", "shape"), [("OPT", OPT), ("Llama4", LLAMA4)])
def test_an_mlp_that_flattens_its_tokens_is_seen_as_the_stream_is(architecture, shape):
    """OPT's MLP returns [batch * position, d_model], and so do Llama 4's experts."""
    wrapped = wrap(build_model(architecture, **shape))
    prompts = torch.arange(36).reshape(3, 12)
    captured = capture(wrapped.model, prompts)  # the bare model, whose sites were found by wrap
    total = sum(captured.column(name) for name in ("xx", "aa", "mm"))
    total = total + 2 * sum(captured.column(name) for name in ("xa", "xm", "am"))
    np.testing.assert_allclose(total, captured.column("yy"), rtol=1e-4)
    np.testing.assert_allclose(
        captured.column("mm")[:, 12:24], capture(wrapped, prompts[1:2]).column("mm"), rtol=1e-4
    )
    with ablate(wrapped, {"blocks.-1.hook_mlp_out": "zero"}):
        silenced = capture(wrapped, prompts)
    np.testing.assert_allclose(silenced.column("yy")[-1], captured.column("xa_sq")[-1], rtol=1e-4)


def test_post_norms_of_other_names_are_found():
    """GLM-4 calls them post_self_attn_layernorm and post_mlp_layernorm."""
    wrapped = wrap(build_model("Glm4", head_dim=8, pad_token_id=0))
    assert wrapped.checkpoint.additivity < 1e-6
    assert "post_self_attn" in str(
        [name for name, module in wrapped.model.named_modules()
         if module is wrapped.sites.site("blocks.0.hook_attn_out").module]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "keyword"),
    [("_orig_mod.", "torch.compile"), ("module.", "DataParallel"), ("v_head", "value head")],
)
def test_odd_tensor_names_are_said(make_checkpoint, prefix, keyword):
    from safetensors.torch import load_file, save_file

    folder = make_checkpoint()
    path = folder / "model.safetensors"
    tensors = load_file(path)
    odd = (
        tensors | {"v_head.summary.weight": torch.zeros(1, 32)}
        if prefix == "v_head"
        else {prefix + key: value for key, value in tensors.items()}
    )
    save_file(odd, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=keyword) as caught:
        load(folder, backend="native")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, ["type = 'ntk'", "yarn"]),
        ({"hidden_act": "gelu_quick"}, ["hidden_act = 'gelu_quick'"]),
    ],
)
@pytest.mark.fault("a config's value that transformers has no code for", "refused: field and value")
def test_a_value_that_transformers_does_not_know_is_named(make_checkpoint, changes, said):
    """transformers itself says KeyError: 'ntk'."""
    folder = make_checkpoint()
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("rope_parameters")
    path.write_text(json.dumps(config | {"rope_theta": 1e4} | changes))
    for device in ("cpu", "auto"):  # auto builds the model once more, to size it
        with pytest.raises(ValueError, match="no code for") as caught:
            load(folder, device=device)
        assert all(part in str(caught.value) for part in said)


def test_dynamic_rope_is_not_taken_for_a_model_that_sees_later_tokens(make_checkpoint):
    """The check prompt has 45 bytes, and beyond 32 every length has frequencies of its own."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    folder = make_checkpoint(rope_parameters=rope, max_position_embeddings=32)
    assert load(folder).checkpoint.context == 32


def test_positions_fewer_than_the_check_prompt_are_enough(make_checkpoint):
    shape = {"num_key_value_heads": 4, "max_position_embeddings": 32}
    assert load(make_checkpoint("GPT2", **shape)).checkpoint.context == 32


@pytest.mark.fault("a shard that was not downloaded", "refused: the file")
def test_an_absent_shard_is_named(tmp_path, make_checkpoint):
    folder = make_checkpoint()
    load(folder, backend="native").model.save_pretrained(tmp_path, max_shard_size="40KB")
    first = sorted(tmp_path.glob("model-*"))[0]
    first.unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of its weight files.*{first.name}"):
        load(tmp_path)


def test_a_git_lfs_pointer_is_named(make_checkpoint):
    folder = make_checkpoint()
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        load(folder)


def test_yarn_extends_the_context_that_stays_in_the_config():
    from transformers import Qwen2Config

    from gainlens.models.config import context_of

    rope = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    assert context_of(Qwen2Config(max_position_embeddings=64, rope_parameters=rope)) == 256


def test_the_text_decoder_of_a_multimodal_checkpoint_is_loaded(tmp_path):
    from planting.checkpoints import SHAPE, save_tokenizer
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = SHAPE | {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    ids = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    whole = Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    loaded = load(tmp_path)
    assert loaded.checkpoint.left_out == ("vision tower",)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.sites.logits(tokens), whole(tokens).logits)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_merged_into_its_base(make_checkpoint, tmp_path):
    peft = pytest.importorskip("peft", reason="the extra gainlens[peft]")
    base = make_checkpoint()
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(load(base, backend="native").model, settings)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = load(tmp_path / "adapter", backend="native")
    assert loaded.checkpoint.base == str(base)
    want = adapted.merge_and_unload().model.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(loaded.model.model.layers[0].self_attn.q_proj.weight, want)
