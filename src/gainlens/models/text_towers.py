"""Take the text decoder out of a multimodal checkpoint."""

from typing import Any

import torch


def text_config_of(config: Any) -> Any:
    """Return the config of the text decoder; a text model's config is returned as it is."""
    text = config.get_text_config(decoder=True)
    if text is config:
        return config
    for name in ("_commit_hash", "_name_or_path", "dtype"):
        if getattr(text, name, None) is None:
            setattr(text, name, getattr(config, name, None))
    text.tie_word_embeddings = config.tie_word_embeddings
    text.architectures = _text_class(text) or config.architectures
    return text


def _text_class(text: Any) -> list[str] | None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    name = NAMES.get(text.model_type)
    return [name] if isinstance(name, str) else None


def text_tower(hf_model: Any, text: Any) -> Any:
    """Return a causal LM made of a multimodal model's own text decoder and unembedding.

    If transformers has no causal LM class for this decoder, the whole model is returned: its
    forward pass on token ids runs the text decoder alone.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    decoder = hf_model.get_decoder()
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return hf_model
    maker: Any = AutoModelForCausalLM
    with torch.device("meta"):
        causal: Any = maker.from_config(text, dtype=hf_model.dtype)
    if type(causal.base_model) is not type(decoder):
        return hf_model
    setattr(causal, causal.base_model_prefix, decoder)
    causal.lm_head = hf_model.get_output_embeddings()
    return causal


def left_out_of(config: Any) -> tuple[str, ...]:
    """Return the parts of a multimodal checkpoint that are not its text decoder."""
    parts = (name for name in config.to_dict() if name.endswith("_config"))
    others = [name.removesuffix("_config") for name in parts if not name.startswith("text")]
    towers = tuple(f"{name} tower" for name in others if name in ("vision", "audio", "image"))
    return towers or ("everything but the text decoder",)
