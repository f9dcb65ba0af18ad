"""Name a checkpoint's weights by a hash, so that one can be told from another years later."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from gainlens.models.tensors import tensor_files

BLOCK: Final = 1 << 20
"""Bytes read at a time."""
PER_TENSOR, PER_FILE = 2, 64
"""At most so many blocks of one tensor, or of a file that is hashed as it is, are read: training
changes every block, and 16 GB of weights would take longer to hash than to load."""


def weights_digest(source: str | Path, adapter: str | None = None) -> str | None:
    """Return a sha256 over the weights of a directory or GGUF file; None of a hub name.

    Args:
        source: a directory, whose tensors count by name, dtype, shape and content, however they are
            spread over files; or a GGUF file.
        adapter: directory of a PEFT adapter that is merged into the weights.

    Of a tensor the first and the last MiB count, and of a file evenly spaced ones: the hash names
    a checkpoint, and is no proof against one that was made to look like it.
    """
    source = Path(source)
    if not source.exists():
        return None
    digest = hashlib.sha256()
    if source.is_file():
        _add(digest, source, 0, source.stat().st_size, PER_FILE)
        return digest.hexdigest()
    by_file: dict[Path, dict[str, Any]] = {}
    for name, path in sorted(tensor_files(source).items()):
        if path not in by_file:
            by_file[path] = _header(path)
        entry = by_file[path][name]
        digest.update(f"{name} {entry['dtype']} {entry['shape']}\n".encode())
        start, size = entry["place"]
        _add(digest, path, start, size, PER_TENSOR)
    if adapter is not None:
        for path in sorted(Path(adapter).glob("adapter_*")):
            _add(digest, path, 0, path.stat().st_size, PER_FILE)
    return digest.hexdigest()


def _header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file, with each tensor's place: offset and bytes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    for entry in header.values():
        start, stop = entry["data_offsets"]
        entry["place"] = 8 + size + start, stop - start
    return header


def _add(digest: Any, path: Path, start: int, size: int, most: int) -> None:
    """Add up to `most` evenly spaced blocks of a part of a file to a hash."""
    last = max(size - BLOCK, 0)
    count = min(-(-size // BLOCK), most)
    with path.open("rb") as file:
        for index in range(count):
            at = last * index // max(count - 1, 1)
            file.seek(start + at)
            digest.update(file.read(min(BLOCK, size - at)))
