"""One replica's weights -> a Hugging Face directory, and back."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.ensemble import INITIAL_STD, Shape, Weights
from training.tokens import BOS_ID, EOS_ID


def replica(weights: Weights, number: int) -> Weights:
    """One replica's weights, without the replica axis."""
    return Weights(*(tensor[number] for tensor in weights))


def state_dict(weights: Weights, shape: Shape) -> dict[str, Tensor]:
    """Hugging Face's names and [out, in] layout."""
    state = {
        "model.embed_tokens.weight": weights.embed,
        "lm_head.weight": weights.unembed.T,
        "model.norm.weight": weights.norm_final,
    }
    for number in range(shape.blocks):
        query, key, value = weights.qkv[number].chunk(3, dim=1)
        gate, up = weights.gate_up[number].chunk(2, dim=1)
        matrices = {"self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": value}
        matrices |= {"self_attn.o_proj": weights.out[number]}
        matrices |= {
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": weights.down[number],
        }
        prefix = f"model.layers.{number}"
        state |= {f"{prefix}.{name}.weight": matrix.T for name, matrix in matrices.items()}
        state[f"{prefix}.input_layernorm.weight"] = weights.norm_attention[number]
        state[f"{prefix}.post_attention_layernorm.weight"] = weights.norm_mlp[number]
    return state


def from_state_dict(state: dict[str, Tensor], shape: Shape) -> Weights:
    """The inverse of `state_dict`."""

    def per_block(*names: str) -> Tensor:
        blocks = range(shape.blocks)
        parts = [[state[f"model.layers.{b}.{name}.weight"] for name in names] for b in blocks]
        return torch.stack([torch.cat(part) for part in parts])

    return Weights(
        embed=state["model.embed_tokens.weight"],
        unembed=state["lm_head.weight"].T,
        norm_final=state["model.norm.weight"],
        norm_attention=per_block("input_layernorm"),
        norm_mlp=per_block("post_attention_layernorm"),
        qkv=per_block("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj").mT,
        out=per_block("self_attn.o_proj").mT,
        gate_up=per_block("mlp.gate_proj", "mlp.up_proj").mT,
        down=per_block("mlp.down_proj").mT,
    )


def config(shape: Shape, context: int, theta: float) -> dict[str, Any]:
    """config.json as transformers 5 reads it; twins differ in context and theta alone."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": BOS_ID,
        "dtype": "bfloat16",
        "eos_token_id": EOS_ID,
        "head_dim": shape.d_head,
        "hidden_act": "silu",
        "hidden_size": shape.d_model,
        "initializer_range": INITIAL_STD,
        "intermediate_size": shape.d_ff,
        "max_position_embeddings": context,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.blocks,
        "num_key_value_heads": shape.heads,
        "rms_norm_eps": shape.eps,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "tie_word_embeddings": False,
        "vocab_size": shape.vocabulary,
    }


def save_weights(weights: Weights, shape: Shape, path: Path) -> None:
    """bfloat16 safetensors with the metadata that transformers asks for."""
    state = {
        name: tensor.to("cpu", torch.bfloat16).contiguous()
        for name, tensor in state_dict(weights, shape).items()
    }
    save_file(state, path, metadata={"format": "pt"})


def load_weights(path: Path, shape: Shape) -> Weights:
    """float32, without the replica axis."""
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    return from_state_dict(state, shape)


def write_model(folder: Path, weights: Weights, shape: Shape, context: int, theta: float) -> None:
    """config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(weights, shape, folder / "model.safetensors")
    text = json.dumps(config(shape, context, theta), indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")
