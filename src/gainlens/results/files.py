"""Write a file completely or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gainlens.core.messages import cannot_write


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file completely or not at all."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then put it in place in one step.

    A crash leaves the old file or the new one.  Raises ValueError if the folder cannot be written
    or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        os.close(handle)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
