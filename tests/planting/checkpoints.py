"""Build random checkpoints with a byte-level tokenizer."""

from pathlib import Path
from typing import Any

import torch

from gainlens.models.backends import has_hooked_transformer

HOOKED = has_hooked_transformer()
BACK_ENDS = ("hooked", "bridge", "native") if HOOKED else ("bridge", "native")
TRANSFORMER_LENS = BACK_ENDS[0]
"""The front end of the TransformerLens that is installed."""
VOCAB = 300
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "tie_word_embeddings": False,
}
CLASSES = {
    "GPT2": ("GPT2Config", "GPT2LMHeadModel"),
    "Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "Llama4": ("Llama4TextConfig", "Llama4ForCausalLM"),
}
"""Architectures whose classes are not called ...Config and ...ForCausalLM."""
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def save_tokenizer(folder: Path, bos: bool = True) -> None:
    """A byte-level tokenizer of 256 bytes and three special tokens, one BOS in front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: index for index, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>"])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 256)]
        )
    special = {"bos_token": "<s>"} if bos else {}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", **special
    ).save_pretrained(folder)


def build_model(architecture: str = "Llama", seed: int = 0, **shape: Any) -> Any:
    """A random Hugging Face causal LM of the test shape, norm weights and all."""
    import transformers

    plain = (f"{architecture}Config", f"{architecture}ForCausalLM")
    config_class, model_class = CLASSES.get(architecture, plain)
    config = getattr(transformers, config_class)(**{**SHAPE, **shape})
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # weights large enough that attention and MLP matter beside the embedding
            weight.copy_(torch.randn_like(weight) * 0.15 + ("norm" in name or ".ln_" in name))
    return model
