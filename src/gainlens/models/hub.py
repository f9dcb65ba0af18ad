"""Read the config, the weights and the tokenizer of a hub name, a directory or a GGUF file.

Whatever goes wrong becomes a ValueError with one sentence.
"""

import logging
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from gainlens.core.messages import shown
from gainlens.models.config import check_sizes, context_of
from gainlens.models.failures import (
    check_keys,
    check_shapes,
    reading_failed,
    said,
    tokenizer_failed,
    unknown_value,
    wants_code,
)
from gainlens.models.gguf_files import architecture_of, check_gguf, is_gguf, split_path
from gainlens.models.importing import import_models
from gainlens.models.memory import ran_out
from gainlens.models.tensors import INDEX, SINGLE, check_no_pointer, json_object, tensor_files

_TOKENIZERS: Final = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json",
    "spiece.model",
)  # fmt: skip
_CAUSAL: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_DEQUANTISED: Final = ("fp8", "mxfp4")
"""Methods whose checkpoints transformers turns back into ordinary weights."""


def check_source(source: str) -> None:
    """Raise ValueError if a local directory or GGUF file is none; names on the hub pass."""
    if is_gguf(source):
        check_gguf(source)
    else:
        check_directory(source)
        _check_shards(source)


def _check_shards(source: str) -> None:
    """Raise ValueError if a local directory lacks a weight file that its index names."""
    path = Path(source)
    shards = set(tensor_files(path).values()) if path.is_dir() else set[Path]()
    absent = sorted(shard.name for shard in shards if not shard.is_file())
    if absent:
        raise ValueError(
            f"{source} lacks {len(absent)} of its weight files ({', '.join(absent[:3])}): download "
            "them as well"
        )


def check_directory(source: str) -> None:
    """Raise ValueError if a local directory does not hold a config and safetensors weights.

    Some of its weight files may be absent: W_U needs one of them.
    """
    path = Path(source)
    if not path.is_dir():
        if path.exists():
            raise ValueError(f"{source} is a file; give the directory that holds config.json")
        looks_local = source.startswith((".", "~", os.sep)) or source.count("/") != 1
        if looks_local:
            raise ValueError(
                f"there is no directory {source}: give a directory in Hugging Face's layout, or a "
                "hub name such as meta-llama/Llama-3.1-8B"
            )
        return
    if not (path / "config.json").is_file():
        raise ValueError(f"{source} is no model directory: it has no config.json")
    if not any(path.glob("*.safetensors")):
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt*"))
        raise ValueError(
            f"{source} has no safetensors weights"
            + ("; pickled weights can run code and are not read: convert them" if pickled else "")
        )
    for file in (*path.glob("*.safetensors"), *(path / name for name in _TOKENIZERS)):
        check_no_pointer(file)


def fetch_some(source: str, revision: str | None, choose: Callable[[Path], set[str]]) -> Path:
    """Download a hub model's config and index, and of its weights only the files that are chosen.

    Args:
        source: hub name.
        revision: branch, tag or commit.
        choose: called with the folder that holds the index; returns the names of weight files.
    """
    from huggingface_hub import snapshot_download

    def fetch(*names: str) -> Path:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(names)))

    try:
        folder = fetch("config.json", INDEX)
        return fetch(*(choose(folder) if (folder / INDEX).is_file() else {SINGLE}))
    except Exception as error:  # any reader's error becomes one sentence
        raise reading_failed(source, error) from error


def _where(source: str) -> tuple[str, dict[str, Any]]:
    """Return what from_pretrained is given for a source: a directory or name, and a file in it."""
    if not is_gguf(source):
        return source, {}
    directory, file = split_path(source)
    return directory, {"gguf_file": file}


def read_config(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    """Return the Hugging Face config of a causal language model, its class named in it."""
    import_models()
    from transformers import AutoConfig

    check_source(source)
    directory, file = _where(source)
    raw = _raw_config(source)
    check_sizes(raw)
    try:
        config = AutoConfig.from_pretrained(
            directory, revision=revision, trust_remote_code=trust_remote_code, **file
        )
    except Exception as error:  # any reader's error becomes one sentence
        if file and "GGUF model with architecture" in str(error):
            raise ValueError(
                f"{source} is a {architecture_of(source)} model, and transformers reads no GGUF "
                "file of that architecture: give its Hugging Face directory"
            ) from error
        computed = [name for name in raw if f"property {name!r}" in str(error)]
        if computed:
            raise ValueError(
                f"the config of {source} gives {computed[0]}, which transformers computes itself: "
                "take it out of config.json"
            ) from error
        raise _failed(source, error) from error
    named: Any = getattr(config, "architectures", None) or _class_of(config)
    config.architectures = named
    config.return_dict = True  # what a forward pass returns is ours to say, not the checkpoint's
    name = str(named[0]) if isinstance(named, list) and named else "none named"
    if not name.endswith(_CAUSAL):
        raise ValueError(
            f"{source} is a {shown(name)}, not a causal language model: gainlens measures "
            "decoders with an unembedding"
        )
    if context_of(config) is None:
        raise ValueError(
            f"{source} says no context length (max_position_embeddings in config.json), so it can "
            "be neither the short- nor the long-context model: add the one that it was trained for"
        )
    _check_quantisation(source, config)
    return config


def _raw_config(source: str) -> dict[str, Any]:
    """Return the fields of a directory's config.json; nothing of a hub name or GGUF file."""
    path = Path(source) / "config.json"
    return json_object(path) if path.is_file() else {}


def _failed(source: str, error: Exception) -> ValueError:
    if is_gguf(source) and not wants_code(error) and Path(source).is_file():
        return ValueError(
            f"{source} cannot be read as GGUF ({said(error)}): download it again, it may be cut off"
        )
    return reading_failed(source, error)


def not_built(source: str, config: Any, error: Exception) -> ValueError:
    """Return the error of a model that transformers could not build from its config."""
    return unknown_value(source, config, error) or _failed(source, error)


def _class_of(config: Any) -> list[str]:
    """Return the causal LM's class of a config that names none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    name = NAMES.get(config.model_type)
    return [] if name is None else [name if isinstance(name, str) else name[0]]


def _check_quantisation(source: str, config: Any) -> None:
    """Raise ValueError if transformers cannot turn the weights back; ask it to if it can."""
    settings: Any = getattr(config, "quantization_config", None)
    if getattr(config, "quantization", None) and not settings:
        raise ValueError(
            f"{source} is quantised for MLX: give the checkpoint that it was made from"
        )
    if not settings:
        return
    fields = settings if isinstance(settings, dict) else settings.to_dict()
    method = str(getattr(fields.get("quant_method"), "value", fields.get("quant_method")))
    if method not in _DEQUANTISED:
        raise ValueError(
            f"{source} is quantised ({shown(method)}), and its weights cannot be turned back: give "
            "the checkpoint that it was made from"
        )
    config.quantization_config = {**fields, "dequantize": True}


def read_weights(
    source: str,
    config: Any,
    dtype: str,
    revision: str | None,
    trust_remote_code: bool,
    attention: str | None = None,
    spread: Mapping[str, Any] | None = None,
) -> Any:
    """Return a Hugging Face causal LM with every tensor of the checkpoint in its place, on the CPU.

    Args:
        source: hub name, directory or GGUF file.
        config: from `read_config`.
        dtype: float32, bfloat16 or float16.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run code that comes with the checkpoint.
        attention: Hugging Face's attn_implementation; None is its own choice.
        spread: where else the weights go (`placement.spread_options`).
    """
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    directory, file = _where(source)
    if file:
        from transformers import GgufConfig

        file["quantization_config"] = GgufConfig(dequantize=True)
    reader: Any = AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        reader = AutoModelForImageTextToText
    try:
        with _no_report():
            hf_model, info = reader.from_pretrained(
                directory,
                config=config,
                dtype=getattr(torch, dtype),
                revision=revision,
                use_safetensors=None if file else True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=trust_remote_code,
                attn_implementation=attention,
                **file,
                **(spread or {}),
            )
    except Exception as error:  # any reader's error becomes one sentence
        if ran_out(error):
            raise
        raise not_built(source, config, error) from error
    check_shapes(source, [tuple(each) for each in info.get("mismatched_keys", ())])
    check_keys(source, map(str, info["missing_keys"]), map(str, info["unexpected_keys"]))
    return hf_model


@contextmanager
def _no_report() -> Generator[None]:
    """Keep transformers from printing a table of the keys; `check_keys` says it in a sentence."""
    logger = logging.getLogger("transformers.modeling_utils")

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def read_tokenizer(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    """Return the Hugging Face tokenizer of a source."""
    from transformers import AutoTokenizer

    directory, file = _where(source)
    path = Path(directory)
    if path.is_dir() and not file and not any((path / name).is_file() for name in _TOKENIZERS[:4]):
        raise ValueError(
            f"{source} has no tokenizer files (tokenizer.json or tokenizer.model): copy them from "
            "where the weights came from"
        )
    try:
        return AutoTokenizer.from_pretrained(
            directory, revision=revision, trust_remote_code=trust_remote_code, **file
        )
    except Exception as error:  # any reader's error becomes one sentence
        raise tokenizer_failed(source, error) from error
