"""Read GGUF files through transformers' own reader: header, config, tokenizer and weights.

transformers parses the whole header anew for the config, for the tokenizer and for the weights, 10
seconds each for a vocabulary of 150,000.  `parsed_once` lets the three share one parse.
"""

import copy
import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

SUFFIX: Final = ".gguf"
_MAGIC: Final = b"GGUF"
_INSTALL: Final = "reading GGUF needs the gguf package: pip install 'gainlens[gguf]'"


def is_gguf(source: str) -> bool:
    """Return True if a source names a GGUF file: a path, or owner/repository/file.gguf."""
    return source.lower().endswith(SUFFIX)


def split_path(source: str) -> tuple[str, str]:
    """Return the directory or repository of a GGUF file, and its name within it."""
    path = Path(source)
    return str(path.parent), path.name


def check_gguf(source: str) -> None:
    """Raise ValueError if a local file is no GGUF file, or if the gguf package is missing."""
    path = Path(source)
    if path.is_file():
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != _MAGIC:
            pointer = magic == b"vers"
            what = "a Git LFS pointer: run git lfs pull" if pointer else "download it again"
            raise ValueError(f"{source} is no GGUF file ({what})")
    elif source.count("/") != 2 or source.startswith((".", "/", "~")):
        raise ValueError(f"there is no file {source}")  # and not owner/repository/file.gguf
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(_INSTALL)


def quantisation_of(path: str) -> str | None:
    """Return how a local GGUF file stores its weights, e.g. Q4_K_M; None if it is not quantised."""
    import gguf
    from transformers.integrations.gguf.reader import read_gguf_metadata

    kind = read_gguf_metadata(path)[0].get("general.file_type")
    if kind is None:
        return "unknown"
    known = {member.value: member.name for member in gguf.LlamaFileType}
    name = known.get(int(kind), f"file type {kind}").removeprefix("MOSTLY_").removeprefix("ALL_")
    return None if name in ("F32", "F16", "BF16") else name


def architecture_of(path: str) -> str:
    """Return the architecture that a local GGUF file names."""
    from transformers.integrations.gguf.reader import read_gguf_metadata

    return str(read_gguf_metadata(path)[0].get("general.architecture", "unknown"))


@contextmanager
def parsed_once() -> Generator[None]:
    """Let transformers parse each GGUF header once within the context."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as legacy

    reader, load = gguf.GGUFReader, legacy.load_gguf_checkpoint

    @cache
    def header(path: str) -> Any:
        return load(path, return_tensors=False)

    def load_once(path: str, return_tensors: bool = False, **settings: Any) -> Any:
        if return_tensors:
            return load(path, return_tensors=True, **settings)
        return copy.deepcopy(header(path))

    gguf.GGUFReader = cache(reader)
    legacy.load_gguf_checkpoint = load_once
    try:
        yield
    finally:
        gguf.GGUFReader, legacy.load_gguf_checkpoint = reader, load
