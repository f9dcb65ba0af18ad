"""Find where a checkpoint is, without torch."""

from pathlib import Path
from typing import Final

from gainlens.core.presets import TWIN_PREFIX

TWINS: Final = Path(__file__).parents[1] / "twins"


def resolve(source: str) -> str:
    """A directory or hub name; `gainlens:NAME` is a checkpoint that ships with the package."""
    if not source.startswith(TWIN_PREFIX):
        return source
    folder = TWINS / source.removeprefix(TWIN_PREFIX)
    if folder.parent != TWINS or not folder.is_dir():
        known = ", ".join(sorted(TWIN_PREFIX + path.name for path in TWINS.glob("*-*")))
        raise ValueError(f"no checkpoint {source} ships with gainlens; there are {known}")
    return str(folder)
