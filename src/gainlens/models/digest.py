"""Name a checkpoint's weights by a hash, so that one can be told from another years later."""

import hashlib
from pathlib import Path
from typing import Final

BLOCK: Final = 1 << 20
"""Bytes read at a time."""
BLOCKS: Final = 64
"""At most so many of a file are read, evenly spaced: training changes every block, and 16 GB of
weights would take longer to hash than to load."""


def weights_digest(directory: str | Path) -> str | None:
    """Return a sha256 over the name, size and blocks of each weight file; None of a hub name.

    The weight files are a directory's safetensors, or a GGUF file.

    A file of up to 64 MiB counts whole.  Of a larger one the first, the last and evenly spaced
    blocks do: it names a checkpoint, and is no proof against one that was made to look like it.
    """
    directory = Path(directory)
    if not directory.exists():
        return None
    digest = hashlib.sha256()
    for path in [directory] if directory.is_file() else sorted(directory.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        last = max(size - BLOCK, 0)
        count = min(-(-size // BLOCK), BLOCKS)
        with path.open("rb") as file:
            for index in range(count):
                file.seek(last * index // max(count - 1, 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
