"""TODO: weights.unembed_file."""

from collections.abc import Iterable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from gainlens.models.tensors import json_object, read_tensor, tensor_files

_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_FINAL_NORMS = (
    "model.norm.weight", "ln_f.weight", "final_layer_norm.weight", "final_layernorm.weight",
)  # fmt: skip
_ONE_PLUS_WEIGHT = ("gemma", "gemma2", "gemma3", "gemma3_text")
"""model_types whose RMSNorm multiplies by 1 + weight."""


def read_unembedding(directory: Path) -> tuple[Float[Tensor, "d_vocab d_model"], bool]:
    """lm_head of a checkpoint's directory and whether it is tied to the embedding.

    Reads that one tensor, in its stored dtype, from the one shard that holds it, so that the W_U
    of a 70B model fits a laptop.  Raises ValueError where there are no safetensors or no head.
    """
    tie = _config(directory).get("tie_word_embeddings")
    if (weight := _read_first(directory, _HEADS)) is not None:
        return weight, bool(tie)
    if tie is not False and (weight := _read_first(directory, _EMBEDDINGS)) is not None:
        return weight, True
    raise ValueError(
        f"{directory} holds no unembedding: none of {', '.join(_HEADS)}"
        + (", and its config says that it is not tied" if tie is False else ", and no embedding")
        + "; give the directory of a causal language model"
    )


def read_final_norm(directory: Path) -> Float[Tensor, " d_model"] | None:
    """What the final norm multiplies by, read like lm_head; None where the norm has no weight."""
    weight = _read_first(directory, _FINAL_NORMS)
    if weight is not None and _config(directory).get("model_type") in _ONE_PLUS_WEIGHT:
        return weight.float() + 1
    return weight


def unembedding_files(directory: Path) -> set[str]:
    """Names of the shards that `read_unembedding` and `read_final_norm` read, by the index."""
    files = tensor_files(directory)
    found = (_first_name(files, names) for names in (_HEADS, _EMBEDDINGS, _FINAL_NORMS))
    head, embedding, norm = found
    return {files[name].name for name in (head or embedding, norm) if name is not None}


def _first_name(names: Iterable[str], suffixes: tuple[str, ...]) -> str | None:
    """The first tensor whose name is one of the suffixes, or ends with a dot and one of them."""
    ends = tuple(f".{suffix}" for suffix in suffixes)
    return next((name for name in names if f".{name}".endswith(ends)), None)


def _config(directory: Path) -> dict[str, object]:
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"{directory} has no config.json; give a Hugging Face model directory")
    return json_object(path)


def _read_first(directory: Path, suffixes: tuple[str, ...]) -> Tensor | None:
    files = tensor_files(directory)
    name = _first_name(files, suffixes)
    return None if name is None else read_tensor(files[name], name)
