"""Open a model once per run: its config, its tokenizer and where its files are, without weights."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gainlens.models.adapters import base_missing, base_of, is_adapter, merged
from gainlens.models.gguf_files import check_gguf, is_gguf, parsed_once, quantisation_of
from gainlens.models.hub import read_config, read_tokenizer, read_weights
from gainlens.models.sources import resolve
from gainlens.models.text_towers import left_out_of, text_config_of, text_tower


@dataclass(frozen=True)
class OpenedModel:
    """A checkpoint whose config was read; `load`, `place` and `choose_backend` start from it."""

    source: str
    """hub name, directory or GGUF file as given"""
    path: str
    """the directory, hub name or GGUF file of the weights; of an adapter, its base's"""
    revision: str | None
    """branch, tag or commit of a hub model, as given"""
    trust_remote_code: bool
    config: Any
    """the Hugging Face config object of the text decoder"""
    whole_config: Any
    """the checkpoint's own config object; of a text model the same one"""
    adapter: str | None = None
    """directory of an adapter that is merged into the weights"""

    @cached_property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer, read when it is first asked for.

        Raises ValueError if there is none that loads.
        """
        path = self.path
        if self.adapter is not None and (Path(self.adapter) / "tokenizer_config.json").is_file():
            path = self.adapter
        with _reading(path):
            return read_tokenizer(path, self.revision, self.trust_remote_code)

    @property
    def name(self) -> str:
        """The last part of the source, to call the model by."""
        path = Path(self.adapter or self.path)
        return path.stem if is_gguf(str(path)) else path.name

    @property
    def quantisation(self) -> str | None:
        """Return how the file stores its weights; None if they are not quantised."""
        if is_gguf(self.path):
            return quantisation_of(self.path) if Path(self.path).is_file() else "unknown"
        settings = getattr(self.whole_config, "quantization_config", None)
        return str(settings["quant_method"]) if isinstance(settings, Mapping) else None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parts of the checkpoint that are not loaded."""
        return () if self.config is self.whole_config else left_out_of(self.whole_config)

    def weights(
        self, dtype: str, attention: str | None = None, spread: Mapping[str, Any] | None = None
    ) -> Any:
        """Read the weights as a Hugging Face causal LM on the CPU; see `read_weights`."""
        with _reading(self.path):
            hf_model = read_weights(
                self.path,
                self.whole_config,
                dtype,
                self.revision,
                self.trust_remote_code,
                attention,
                spread,
            )
        if self.config is not self.whole_config:
            hf_model = text_tower(hf_model, self.config)
        return hf_model if self.adapter is None else merged(hf_model, self.adapter)


def _reading(path: str) -> AbstractContextManager[None]:
    if not is_gguf(path):
        return nullcontext()
    check_gguf(path)  # before gguf is imported
    return parsed_once()


def open_model(
    source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> OpenedModel:
    """Read a checkpoint's config.

    Args:
        source: hub name, directory, GGUF file, directory of a PEFT adapter, or one of the package's
            own twins.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run code that comes with the checkpoint; without it, such a checkpoint
            is refused.

    Raises ValueError if the checkpoint cannot be had or is no causal language model.
    """
    given = str(source)
    path, adapter = resolve(given), None
    if is_adapter(path):
        path, adapter = base_of(path), path
    try:
        with _reading(path):
            config = read_config(path, revision, trust_remote_code)
            text = text_config_of(config)
            opened = OpenedModel(given, path, revision, trust_remote_code, text, config, adapter)
            if is_gguf(path):
                _ = opened.tokenizer  # from the header that was just parsed
    except ValueError as error:
        if adapter is None:
            raise
        raise base_missing(adapter, error) from error
    return opened
