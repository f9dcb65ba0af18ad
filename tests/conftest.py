"""Make checkpoints for the tests: real Hugging Face directories, without any download."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
# One thread per worker, set before torch is imported: two workers with two threads each would spin
# on two cores and take ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from planting.checkpoints import build_model, save_tokenizer


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """Return a function that writes a random checkpoint with its tokenizer."""

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
    """Return the directory of a case of planting/architectures.py; do not change it."""
    from planting.architectures import ARCHITECTURES

    @cache
    def make(case: str) -> Path:
        architecture, shape = ARCHITECTURES[case]
        return make_checkpoint(architecture, **shape)

    return make


@pytest.fixture(scope="session")
def loaded_of(folder_of) -> Callable[[str, str], Any]:
    """Return a case loaded on a back end; do not change it."""
    from gainlens.models.loading import load

    return cache(lambda case, backend: load(folder_of(case), backend=backend))
