"""Say in one sentence why a checkpoint could not be read, and what to do."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from gainlens.core.messages import shown
from gainlens.models.gguf_files import is_gguf
from gainlens.models.memory import first_line

_OWN_CODE: Final = (
    "{source} comes with code of its own, which is not run unless asked for: read it, then give "
    "--trust-remote-code"
)
_PREFIXES: Final = {
    "_orig_mod.": "torch.compile: save model._orig_mod",
    "module.": "DataParallel: save model.module",
    "base_model.model.": "an adapter that was not merged: save model.merge_and_unload()",
    "base_model.": "a wrapper: save model.base_model",
}
_VALUE_HEADS: Final = ("v_head.", "value_head.", "score.")
Mismatch = tuple[str, Sequence[int], Sequence[int]]
"""A tensor's name, its shape in the file, and the shape that the config gives."""
_CONSTANTS: Final = (".masked_bias", ".attn.bias", ".attention.bias", ".rotary_emb.inv_freq")
"""Buffers that old versions of transformers saved and that no weight depends on."""


def reading_failed(source: str, error: Exception) -> ValueError:
    """Return the error of a checkpoint that could not be read: from the hub, or of its files."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain = list(_chain(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if caused_by(GatedRepoError):
        why = (
            "is gated: accept its licence on its page at the Hugging Face hub, then log "
            "in with `hf auth login` or set HF_TOKEN"
        )
    elif caused_by(RevisionNotFoundError):
        why = "has no such revision; leave --revision out for the newest"
    elif caused_by(RepositoryNotFoundError):
        why = (
            "is neither a local directory nor a model that you can see on the Hugging "
            "Face hub: check the name, and for a private model log in with `hf auth login` or "
            "set HF_TOKEN"
        )
    elif caused_by(LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) or (
        "connect" in str(error).lower()
    ):
        why = (
            "is not a local directory, it is not in the local cache, and the Hugging "
            "Face hub cannot be reached: give a directory, or download it first with "
            f"`hf download {source}`"
        )
    elif wants_code(error):
        return ValueError(_OWN_CODE.format(source=source))
    else:
        why = f"cannot be read as a Hugging Face checkpoint: {said(error)}"
    return ValueError(f"{source} {why}")


def tokenizer_failed(source: str, error: Exception) -> ValueError:
    """Return the error of a tokenizer that does not load."""
    if wants_code(error):
        return ValueError(_OWN_CODE.format(source=source))
    what = "copy the tokenizer files from where the weights came from"
    if is_gguf(source):
        what = "take a GGUF file that was converted together with its tokenizer"
    return ValueError(f"{source} has no tokenizer that loads ({said(error)}): {what}")


def unknown_value(source: str, config: Any, error: BaseException) -> ValueError | None:
    """Return the error of a config's value that transformers has no code for; None of any other.

    transformers looks such a value up in a table of its own, and says no more than KeyError: 'ntk'.
    """
    if not isinstance(error, KeyError) or not error.args:
        return None
    name = _field_with(config.to_dict(), error.args[0])
    if name is None:
        return None
    known = ""
    if name.endswith(("rope_type", ".type")):
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        known = f" (it knows default, {', '.join(sorted(ROPE_INIT_FUNCTIONS))})"
    return ValueError(
        f"the config of {source} gives {name} = {shown(repr(error.args[0]), 60)}, which "
        f"transformers has no code for{known}: correct config.json, or, if the model brings code "
        "of its own, read that and give --trust-remote-code"
    )


def _field_with(fields: Mapping[Any, Any], value: object) -> str | None:
    """Return the dotted name of the first field that holds a value; None if none does."""
    for name, held in fields.items():
        if isinstance(held, Mapping):
            inner = _field_with(cast(Mapping[Any, Any], held), value)
            if inner is not None:
                return f"{name}.{inner}"
        elif held == value and type(held) is type(value):
            return name
    return None


def wants_code(error: Exception) -> bool:
    """Return whether an error says that the checkpoint's own code must be run."""
    return "trust_remote_code" in str(error)


def said(error: BaseException) -> str:
    """Return an error's first line, with its class if that is what tells most."""
    line = shown(_first_sentence(error), 400)
    if isinstance(error, KeyError) and " " not in line:
        return f"transformers {type(error).__name__}: it knows no {line}"
    return line if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {line}"


def _first_sentence(error: BaseException) -> str:
    """Return the first line of an error's message, and the next if the first only announces it."""
    line = first_line(error)
    rest = str(error).strip().partition("\n")[2].strip()
    return f"{line} {first_line(ValueError(rest))}" if line.endswith(":") and rest else line


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def check_keys(source: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise ValueError if tensors are missing or left over, and say what it looks like.

    Constant buffers of old versions of transformers are no fault.
    """
    missing = sorted(missing)
    unexpected = sorted(key for key in unexpected if not key.endswith(_CONSTANTS))
    for prefix, what in _PREFIXES.items():
        if unexpected and all(key.startswith(prefix) for key in unexpected):
            raise ValueError(
                f"the names of {source}'s tensors begin with {prefix!r} ({what}): save the model "
                "again so, or take the prefix off"
            )
    if unexpected and all(part in _VALUE_HEADS for part in map(_head_of, unexpected)):
        raise ValueError(
            f"{source} has a value head ({unexpected[0]}), which no language model has: take its "
            "tensors out of the file"
        )
    for what, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            raise ValueError(
                f"{source} has {len(keys)} {what} tensors ({', '.join(keys[:3])}): Hugging Face "
                "would fill or drop them silently, so nothing is measured; repair the checkpoint"
            )


def _head_of(key: str) -> str:
    return key.split(".")[0] + "."


def check_shapes(source: str, mismatched: Sequence[Mismatch]) -> None:
    """Raise ValueError if tensors have other shapes than the config gives."""
    if not mismatched:
        return
    key, stored, wanted = sorted(mismatched)[0]
    if 0 in stored:
        raise ValueError(
            f"{source} holds {len(mismatched)} empty tensors (first {key}), as DeepSpeed ZeRO-3 "
            "writes them: gather the weights with zero_to_fp32.py and save again"
        )
    raise ValueError(
        f"{source} has {len(mismatched)} tensors of other shapes than its config gives: {key} is "
        f"{list(stored)} and the config wants {list(wanted)}; correct config.json"
    )
