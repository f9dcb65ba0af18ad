"""A hub name or a directory -> config, weights and tokenizer, or one sentence that says why not."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gainlens.core.messages import shown
from gainlens.models.memory import first_line, ran_out
from gainlens.models.tensors import INDEX, SINGLE, tensor_files


def _sentence(source: str, error: Exception) -> str:
    """What to do about a checkpoint that could not be read."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(link, GatedRepoError) for link in chain):
        return (
            f"{source} is gated: accept its licence on its page at the Hugging Face hub, then log "
            "in with `hf auth login` or set HF_TOKEN"
        )
    if any(isinstance(link, RevisionNotFoundError) for link in chain):
        return f"{source} has no such revision; leave --revision out for the newest"
    if any(isinstance(link, RepositoryNotFoundError) for link in chain):
        return (
            f"{source} is neither a local directory nor a model that you can see on the Hugging "
            "Face hub: check the name, and for a private model log in with `hf auth login` or "
            "set HF_TOKEN"
        )
    if (
        any(
            isinstance(link, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError)
            for link in chain
        )
        or "connect" in str(error).lower()
    ):
        return (
            f"{source} is not a local directory, it is not in the local cache, and the Hugging "
            "Face hub cannot be reached: give a directory, or download it first with "
            f"`hf download {source}`"
        )
    if _wants_code(error):
        return _OWN_CODE.format(source=source)
    return f"{source} cannot be read as a Hugging Face checkpoint: {_said(error)}"


_OWN_CODE = (
    "{source} comes with code of its own, which is not run unless asked for: read it, then give "
    "--trust-remote-code"
)


def _wants_code(error: Exception) -> bool:
    return "trust_remote_code" in str(error)


def _said(error: Exception) -> str:
    return shown(first_line(error), 400)


def check_directory(source: str) -> None:
    """What a local directory must and must not hold."""
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
    if (path / "adapter_config.json").exists():
        raise ValueError(f"{source} holds an adapter, not a model: merge it into its base first")
    if not (path / "config.json").is_file():
        raise ValueError(f"{source} is no model directory: it has no config.json")
    if not any(path.glob("*.safetensors")):
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt*"))
        raise ValueError(
            f"{source} has no safetensors weights"
            + ("; pickled weights can run code and are not read: convert them" if pickled else "")
        )
    if (path / INDEX).is_file():
        tensor_files(path)


def fetch_some(source: str, revision: str | None, choose: Callable[[Path], set[str]]) -> Path:
    """A hub model's config, index, and of its weights only the files that are chosen by the index.

    choose: called with the folder that holds the index; returns file names.
    """
    from huggingface_hub import snapshot_download

    def fetch(*names: str) -> Path:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(names)))

    try:
        folder = fetch("config.json", INDEX)
        return fetch(*(choose(folder) if (folder / INDEX).is_file() else {SINGLE}))
    except Exception as error:  # any reader's error becomes one sentence
        raise ValueError(_sentence(source, error)) from error


def read_config(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    check_directory(source)
    try:
        config = AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # any reader's error becomes one sentence
        raise ValueError(_sentence(source, error)) from error
    architectures: Any = getattr(config, "architectures", None) or ["none named"]
    named = str(architectures[0]) if isinstance(architectures, list) else "none named"
    if not named.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        raise ValueError(
            f"{source} is a {shown(named)}, not a causal language model: gainlens measures "
            "decoders with an unembedding"
        )
    if getattr(config, "max_position_embeddings", None) is None:
        raise ValueError(
            f"{source} says no context length (max_position_embeddings in config.json), so it can "
            "be neither the short- nor the long-context model: add the one that it was trained for"
        )
    if getattr(config, "quantization_config", None):
        raise ValueError(f"{source} is quantised: gainlens measures unquantised weights")
    return config


def read_weights(
    source: str,
    config: Any,
    dtype: str,
    revision: str | None,
    trust_remote_code: bool,
    attention: str | None = None,
    spread: Mapping[str, Any] | None = None,
) -> Any:
    """A Hugging Face causal LM with every tensor of the checkpoint in its place, on the CPU.

    attention: Hugging Face's attn_implementation; None is its own choice.  spread: where else the
    weights go (`placement.spread_options`).
    """
    from transformers import AutoModelForCausalLM

    try:
        reader: Any = AutoModelForCausalLM
        hf_model, info = reader.from_pretrained(
            source,
            config=config,
            dtype=getattr(torch, dtype),
            revision=revision,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            attn_implementation=attention,
            **(spread or {}),
        )
    except Exception as error:  # any reader's error becomes one sentence
        if ran_out(error):
            raise
        raise ValueError(_sentence(source, error)) from error
    faults = {
        what: sorted(str(key) for key in info.get(f"{what}_keys", ()))
        for what in ("missing", "unexpected", "mismatched")
    }
    for what, keys in faults.items():
        if keys:
            raise ValueError(
                f"{source} has {len(keys)} {what} tensors ({', '.join(keys[:3])}): Hugging Face "
                "would fill or drop them silently, so nothing is measured; repair the checkpoint"
            )
    return hf_model


def read_tokenizer(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # any reader's error becomes one sentence
        why = f"{source} has no tokenizer that loads: {_said(error)}"
        raise ValueError(_OWN_CODE.format(source=source) if _wants_code(error) else why) from error
