"""Decide whether a model is small enough to share the cores with others."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gainlens.models.sources import resolve

_SMALL_MODEL: Final = 512
"""d_model up to which one thread is faster than two, on prompts of up to _SHORT_PROMPT tokens: 1.5
s against 2.2 s a twin, measured; at 8,192 tokens two are, 1.2 s against 2.0 a prompt."""
_SHORT_PROMPT: Final = 1024


def is_small(d_model: int, longest_prompt: int) -> bool:
    """Return whether one thread is faster than two, so that each core can measure a model."""
    return d_model <= _SMALL_MODEL and longest_prompt <= _SHORT_PROMPT


def all_small(sources: Sequence[str], longest_prompt: int) -> bool:
    """Return whether all sources are directories of small models.

    longest_prompt: tokens, at most.
    """
    return all(is_small(_hidden_size(source), longest_prompt) for source in sources)


def _hidden_size(source: str) -> int:
    """Return hidden_size of a directory's config, or more than any small model's."""
    try:
        config: Any = json.loads((Path(resolve(source)) / "config.json").read_bytes())
        return int(config["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return _SMALL_MODEL + 1
