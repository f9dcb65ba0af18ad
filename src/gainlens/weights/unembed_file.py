"""Read W_U and the final norm from a checkpoint's files, without its model.

Ties and the norm are resolved by transformers: its config class knows defaults that config.json
leaves out, and the norm is built from its class and called.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from gainlens.models.config import text_fields
from gainlens.models.decoders import decoder_of
from gainlens.models.tensors import json_object, read_tensor, tensor_files
from gainlens.weights.of_model import norm_action

_HEADS: Final = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS: Final = (
    "embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight",
)  # fmt: skip
_FINAL_NORMS: Final = (
    "model.norm.weight", "ln_f.weight", "final_layer_norm.weight", "final_layernorm.weight",
)  # fmt: skip


def read_unembedding(directory: Path) -> tuple[Float[Tensor, "d_vocab d_model"], bool]:
    """Read lm_head of a checkpoint's directory, and whether it is tied to the embedding.

    Reads single tensors, in their stored dtype, from the shards that hold them, so that the W_U of
    a 70B model fits a laptop.  As transformers does, a head that differs from the embedding is not
    tied, whatever the config says.  Raises ValueError if there are no safetensors or no head, or if
    W_U is quantised.
    """
    tie = _ties(directory)
    if (head := _read_first(directory, _HEADS)) is not None:
        return _plain(directory, head), bool(tie) and _is_embedding(directory, head)
    if tie is not False and (embedding := _read_first(directory, _EMBEDDINGS)) is not None:
        return _plain(directory, embedding), True
    raise ValueError(
        f"{directory} holds no unembedding: none of {', '.join(_HEADS)}"
        + (", and its config says that it is not tied" if tie is False else ", and no embedding")
        + "; give the directory of a causal language model"
    )


def _is_embedding(directory: Path, head: Tensor) -> bool:
    """Return whether a head equals the embedding; True if the embedding is not at hand."""
    files = tensor_files(directory)
    name = _first_name(files, _EMBEDDINGS)
    if name is None or not files[name].is_file():
        return True
    return torch.equal(head, read_tensor(files[name], name))


def _plain(directory: Path, weight: Tensor) -> Tensor:
    """Return W_U if it is a matrix of plain numbers; raise ValueError if not, or if quantised."""
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(
            f"{directory} stores W_U with the shape {list(weight.shape)}, which is no matrix "
            "(DeepSpeed ZeRO-3 writes empty tensors): gather the weights with zero_to_fp32.py and "
            "save again"
        )
    fields = _config(directory)
    scaled = fields.get("quantization_config") or fields.get("quantization")
    if not weight.is_floating_point() or (scaled and weight.element_size() == 1):
        raise ValueError(
            f"{directory} stores W_U quantised ({str(weight.dtype).removeprefix('torch.')}): give "
            "the checkpoint that it was made from"
        )
    return weight.float() if weight.element_size() == 1 else weight


def _ties(directory: Path) -> bool | None:
    """Return what the config's class says of tying; None if neither it nor config.json says."""
    fields = _config(directory)
    if (tie := fields.get("tie_word_embeddings")) is not None:
        return bool(tie)
    config = _hugging_face(directory)
    return None if config is None else bool(config.tie_word_embeddings)


def _hugging_face(directory: Path) -> Any:
    """Return the config object of a class that transformers knows; None for others."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except Exception:  # remote code, a model_type that this transformers does not know
        return None


def read_final_norm(directory: Path) -> Float[Tensor, " d_model"] | None:
    """Read the final norm's weight as it is stored; None if the norm has no weight."""
    return _read_first(directory, _FINAL_NORMS, in_blocks=False)


def final_norm_of(directory: Path, d_model: int) -> tuple[Tensor | None, bool]:
    """Return what the final norm multiplies by, and whether it subtracts the stream's mean.

    Both are measured on the norm itself if transformers knows the model's class.  Otherwise the
    stored weight is taken as the scale; if there is none of W_U's width, no scale is known.
    """
    weight = read_final_norm(directory)
    if weight is not None and weight.shape != (d_model,):
        weight = None
    norm = _empty_norm(directory)
    if norm is None or weight is None or norm.weight.shape != weight.shape:
        return weight, "rms_norm_eps" not in text_fields(_config(directory))
    with torch.no_grad():
        norm.weight.copy_(weight)
        if getattr(norm, "bias", None) is not None:
            norm.bias.zero_()
    return norm_action(norm, d_model, torch.device("cpu"))


def _empty_norm(directory: Path) -> Any:
    """Return the final norm's module with memory for its weight; None if its class is not known."""
    from transformers import AutoModelForCausalLM

    maker: Any = AutoModelForCausalLM
    try:
        config = _hugging_face(directory).get_text_config()
        with torch.device("meta"):
            norm = decoder_of(maker.from_config(config)).final_norm
        return copy.deepcopy(norm).to_empty(device="cpu") if hasattr(norm, "weight") else None
    except Exception:  # a class that transformers does not know, or whose parts are not found
        return None


def unembedding_files(directory: Path) -> set[str]:
    """Return the names of the shards that hold W_U and the final norm, by the index."""
    files = tensor_files(directory)
    head, embedding = (_first_name(files, suffixes) for suffixes in (_HEADS, _EMBEDDINGS))
    norm = _first_name(_outside_blocks(files), _FINAL_NORMS)
    return {files[name].name for name in (head or embedding, norm) if name is not None}


def _first_name(names: Iterable[str], suffixes: tuple[str, ...]) -> str | None:
    """Return the first tensor whose name is a suffix, or ends with a dot and a suffix."""
    ends = tuple(f".{suffix}" for suffix in suffixes)
    return next((name for name in names if f".{name}".endswith(ends)), None)


def _outside_blocks(names: Iterable[str]) -> list[str]:
    """Return the names of tensors that belong to no block: those have the block's number."""
    return [name for name in names if not any(part.isdecimal() for part in name.split("."))]


def config_in(directory: Path) -> Any:
    """Return a directory's config with its class's defaults, or as config.json has it."""
    config = _hugging_face(directory)
    return _config(directory) if config is None else config


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"{directory} has no config.json; give a Hugging Face model directory")
    return json_object(path)


def _read_first(
    directory: Path, suffixes: tuple[str, ...], *, in_blocks: bool = True
) -> Tensor | None:
    files = tensor_files(directory)
    name = _first_name(files if in_blocks else _outside_blocks(files), suffixes)
    return None if name is None else read_tensor(files[name], name)
