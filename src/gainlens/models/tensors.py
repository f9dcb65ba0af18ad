"""Read the files of a checkpoint's directory one at a time: JSON objects and single tensors.

The directory is untrusted input: whatever is broken in it becomes one sentence, and an index cannot
name a file outside it.
"""

import json
from pathlib import Path
from typing import Any, Final, cast

from safetensors import SafetensorError, safe_open

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
_POINTER: Final = b"version https://git-lfs"


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds.  Raises ValueError if it holds none."""
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        raise ValueError(
            f"{path} is not JSON ({problem}): fetch it again from where the checkpoint came from"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} is no JSON object: fetch it again from where the checkpoint came from"
        )
    return cast("dict[str, Any]", value)


def check_no_pointer(path: Path) -> None:
    """Raise ValueError if a file is a Git LFS pointer: a few lines that stand for the real file."""
    if path.is_file() and path.stat().st_size < 1000 and path.read_bytes().startswith(_POINTER):
        raise ValueError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull")


def tensor_files(directory: Path) -> dict[str, Path]:
    """Return every tensor's name and the safetensors file that holds it.

    As transformers does, model.safetensors is read if it is there; an index that stayed behind from
    an older save does not count.  Raises ValueError if there are no weights, or if the index does
    not name files of this directory.
    """
    index = directory / INDEX
    if index.is_file() and not (directory / SINGLE).is_file():
        shards = json_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(map(_is_file_name, shards.values())):
            raise ValueError(
                f"{index} is broken: its weight_map must give a file of this directory for every "
                "tensor, by name alone; fetch it again from where the checkpoint came from"
            )
        return {name: directory / shard for name, shard in shards.items()}
    single = directory / SINGLE
    if not single.is_file():
        raise ValueError(
            f"{directory} holds neither {INDEX} nor {SINGLE}; only safetensors are read: save the "
            "model with save_pretrained"
        )
    return dict.fromkeys(tensor_names(single), single)


def tensor_names(path: Path) -> set[str]:
    """Return the names of a safetensors file's tensors; raise ValueError if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as problem:
        raise _corrupt(path, problem) from None


def _is_file_name(shard: object) -> bool:
    if not isinstance(shard, str) or not shard.isprintable() or len(shard) > 200:
        return False
    return Path(shard).name == shard and shard.endswith(".safetensors")


def read_tensor(shard: Path, name: str) -> Any:
    """Return one tensor of a safetensors file, in its stored dtype.

    Raises ValueError if it cannot be read.
    """
    if not shard.is_file():
        raise ValueError(f"{shard} is missing, and {name} is in it; download it as well")
    try:
        with safe_open(shard, framework="pt") as file:
            return file.get_tensor(name)
    except (SafetensorError, OSError) as problem:
        raise _corrupt(shard, problem) from None


def _corrupt(shard: Path, problem: Exception) -> ValueError:
    what = str(problem).partition("\n")[0]
    return ValueError(f"{shard} cannot be read as safetensors ({what}): download it again")
