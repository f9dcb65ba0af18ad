"""Build a model of a given shape with untrained weights, behind one of the three front ends."""

import re
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gainlens.models.backends import FRONT_ENDS

CONTEXT = 131_072
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_NAMED: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14_336,
        "vocab_size": 128_256,
        "rope_parameters": _LLAMA3,
    }
}
_WORDS = {"<s>": 0, "</s>": 1, "<unk>": 2}


def config_of(shape: str) -> LlamaConfig:
    """Return the config of a named shape, or of BLOCKSxD_MODEL in Llama 3's proportions.

    Raises ValueError for any other shape.
    """
    sizes = _NAMED.get(shape)
    if sizes is None:
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", shape)
        d_model = int(match[2]) if match else 0
        if match is None or d_model % 256:
            raise ValueError(
                f"no shape {shape!r}: give {', '.join(_NAMED)} or BLOCKSxD_MODEL such as 12x1024, "
                "with a d_model that 256 divides"
            )
        sizes = {
            "hidden_size": d_model,
            "num_hidden_layers": int(match[1]),
            "num_attention_heads": d_model // 64,
            "num_key_value_heads": d_model // 256,
            "intermediate_size": 7 * d_model // 2,
            "vocab_size": 32_000,
        }
    return LlamaConfig(
        **sizes, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip


def build(shape: str, backend: str, dtype: str, device: str) -> Any:
    """Build the model in eval mode, its weights drawn from seed 0."""
    config = config_of(shape)
    torch.manual_seed(0)
    with torch.device(device):
        made = LlamaForCausalLM._from_config(
            config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    return FRONT_ENDS[backend](made.eval(), _tokenizer(), config, dtype, device)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer, which TransformerBridge requires; no text is read."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(_WORDS, unk_token="<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        add_bos_token=True,
        name_or_path="untrained",
    )
