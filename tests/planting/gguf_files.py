"""Write GGUF files of tiny Llamas, as llama.cpp's converter does."""

from pathlib import Path
from typing import Any

import numpy as np
from planting.checkpoints import SHAPE, VOCAB

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
"""Rows of 32 and 64: Q8_0 stores 32 numbers per block."""


def write_gguf(
    path: Path,
    model: Any,
    *,
    quantise: str = "F32",
    architecture: str = "llama",
    tokenizer: bool = True,
) -> None:
    """Write a Hugging Face Llama of shape TINY; its matrices in the given quantisation."""
    import gguf

    kind = gguf.GGMLQuantizationType[quantise]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, TINY["num_hidden_layers"])
    writer = gguf.GGUFWriter(path, architecture)
    file_type = "ALL_F32" if quantise == "F32" else f"MOSTLY_{quantise}"
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_block_count(TINY["num_hidden_layers"])
    writer.add_embedding_length(TINY["hidden_size"])
    writer.add_feed_forward_length(TINY["intermediate_size"])
    writer.add_context_length(model.config.max_position_embeddings)
    writer.add_head_count(SHAPE["num_attention_heads"])
    writer.add_head_count_kv(SHAPE["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(VOCAB)
    if tokenizer:
        _add_tokenizer(writer)
    for name, weight in model.state_dict().items():
        stem = name.removesuffix(".weight")
        numbers = weight.numpy()
        if stem.endswith(("q_proj", "k_proj")):
            numbers = _interleaved(numbers)
        stored = kind if numbers.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(
            names.get_name(stem) + ".weight",
            gguf.quants.quantize(np.ascontiguousarray(numbers), stored),
            raw_dtype=stored,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: np.ndarray, d_head: int = 8) -> np.ndarray:
    """llama.cpp rotates neighbours, Hugging Face halves."""
    halves = weight.reshape(-1, 2, d_head // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _add_tokenizer(writer: Any) -> None:
    """The byte-level vocabulary of `save_tokenizer`, with one merge because none is refused."""
    from tokenizers import pre_tokenizers

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>", "<pad>", "ab"]
    tokens += [f"<unused{index}>" for index in range(len(tokens), VOCAB)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token[0] == "<" and len(token) > 1 else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(258)
    writer.add_add_bos_token(True)
