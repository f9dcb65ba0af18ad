"""Checkpoints that the tests make themselves: real Hugging Face directories, no download."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from planting.checkpoints import build_model, save_tokenizer

os.environ["HF_HUB_OFFLINE"] = "1"
# One thread a worker: two workers with two threads each spin on two cores, ten times slower.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """Writes a random checkpoint with its tokenizer; the directory's name is neutral by default."""

    def make(
        architecture: str = "Llama", name: str = "model", bos: bool = True, **shape: Any
    ) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint") / name
        build_model(architecture, **shape).save_pretrained(folder)
        save_tokenizer(folder, bos)
        return folder

    return make


@pytest.fixture(scope="session")
def folder_of(make_checkpoint) -> Callable[[str], Path]:
    """A checkpoint of one of tests/architectures.py's cases; made once, not to be changed."""
    from planting.architectures import ARCHITECTURES

    @cache
    def make(case: str) -> Path:
        architecture, shape = ARCHITECTURES[case]
        return make_checkpoint(architecture, **shape)

    return make


@pytest.fixture(scope="session")
def loaded_of(folder_of) -> Callable[[str, str], Any]:
    """The same, loaded on a back end; loaded once, not to be changed."""
    from gainlens.models.loading import load

    return cache(lambda case, backend: load(folder_of(case), backend=backend))
