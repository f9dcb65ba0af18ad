"""Open a model once per run: its config, its tokenizer and where its files are, without weights."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gainlens.models.hub import read_config, read_tokenizer
from gainlens.models.sources import resolve


@dataclass(frozen=True)
class OpenedModel:
    """A checkpoint whose config was read; `load`, `place` and `choose_backend` start from it."""

    source: str
    """hub name or directory as given"""
    path: str
    """the directory, or the hub name"""
    revision: str | None
    """branch, tag or commit of a hub model, as given"""
    trust_remote_code: bool
    config: Any
    """the Hugging Face config object"""

    @cached_property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer, read when it is first asked for.

        Raises ValueError if there is none that loads.
        """
        return read_tokenizer(self.path, self.revision, self.trust_remote_code)


def open_model(
    source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> OpenedModel:
    """Read a checkpoint's config.

    Args:
        source: hub name, directory, or one of the package's own twins.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run code that comes with the checkpoint; without it, such a checkpoint
            is refused.

    Raises ValueError if the checkpoint cannot be had or is no causal language model.
    """
    given = str(source)
    path = resolve(given)
    config = read_config(path, revision, trust_remote_code)
    return OpenedModel(given, path, revision, trust_remote_code, config)
