"""Make checkpoints for the tests: real Hugging Face directories, without any download."""

import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
# One thread per worker, set before torch is imported: two workers with two threads each would spin
# on two cores and take ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from planting.checkpoints import build_model, save_tokenizer

gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests, so that two workers end at about one time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Leave what the imports have made out of every later search for garbage."""
    gc.freeze()


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


@pytest.fixture(scope="session")
def planted_pair(tmp_path_factory) -> dict[str, list[str]]:
    """Return flags of a planted pair, which expands (1.25) and contracts (0.6); do not change it.

    Under `models` are --short and --long, under `prompts` the file of TEXTS.
    """
    from planting.planted_blocks import TEXTS, planted_checkpoint

    folder = tmp_path_factory.mktemp("pair")
    short = planted_checkpoint(folder / "short", 1.25)
    long = planted_checkpoint(folder / "long", 0.6, theta=5e5, context=256)
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    return {
        "models": ["--short", str(short.folder), "--long", str(long.folder)],
        "prompts": ["--prompts", str(prompts)],
    }


@pytest.fixture(scope="session")
def compared(planted_pair, tmp_path_factory) -> Path:
    """Return the run folder of the planted pair's default comparison, with one figure; do not
    change it."""
    from planting.runs import drawing_only

    from gainlens.cli.compare import compare_command, run

    out = tmp_path_factory.mktemp("run") / "out"
    flags = [*planted_pair["models"], *planted_pair["prompts"], "--out", str(out), "--quiet"]
    with drawing_only("gain_curve"):
        assert run(compare_command, flags) == 0
    return out


@pytest.fixture
def one_figure() -> Iterator[None]:
    """Draw one figure of a comparison alone: all take three quarters of a planted one's time."""
    from planting.runs import drawing_only

    with drawing_only("gain_curve"):
        yield
