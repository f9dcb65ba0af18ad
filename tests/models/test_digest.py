"""The name of a checkpoint's weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gainlens.models import digest
from gainlens.models.digest import weights_digest


def checkpoint(folder: Path, file: str = "model.safetensors", **tensors: bytes) -> Path:
    folder.mkdir()
    arrays = {name: np.frombuffer(content, np.uint8) for name, content in tensors.items()}
    save_file(arrays, folder / file, metadata={"saved in": folder.name})
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(digest, "BLOCK", 8)


def test_equal_weights_have_one_name_however_they_are_saved(tmp_path):
    one = checkpoint(tmp_path / "one", a=b"x" * 100, b=b"y" * 3)
    shards = checkpoint(tmp_path / "shards", "model-1.safetensors", a=b"x" * 100)
    save_file({"b": np.frombuffer(b"y" * 3, np.uint8)}, shards / "model-2.safetensors")
    files = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    checkpoint(tmp_path / "other", "unread.safetensors", c=b"z").rename(shards / "older")
    assert weights_digest(one) == weights_digest(str(shards))
    assert weights_digest("some/hub-name") is None


@pytest.mark.parametrize("size", [1, 8, 9, 15, 16])
def test_every_byte_of_a_small_tensor_counts(tmp_path, size):
    content = bytes(range(size))
    own = weights_digest(checkpoint(tmp_path / "own", a=content))
    for place in range(size):
        changed = bytearray(content)
        changed[place] ^= 1
        folder = checkpoint(tmp_path / str(place), a=bytes(changed))
        assert weights_digest(folder) != own, place


@pytest.mark.parametrize(("place", "seen"), [(0, True), (7, True), (99, True), (50, False)])
def test_of_a_large_tensor_the_first_and_the_last_block_count(tmp_path, place, seen):
    own = weights_digest(checkpoint(tmp_path / "own", a=bytes(100), b=bytes(9)))
    changed = bytearray(100)
    changed[place] = 1
    new = checkpoint(tmp_path / "new", a=bytes(changed), b=bytes(9))
    assert (weights_digest(new) != own) == seen


def test_names_and_sizes_count(tmp_path):
    folders = [
        checkpoint(tmp_path / "1", a=bytes(20), b=b"0"),
        checkpoint(tmp_path / "2", a=bytes(20)),
        checkpoint(tmp_path / "3", b=bytes(20)),
        checkpoint(tmp_path / "4", a=bytes(21)),
    ]
    assert len({weights_digest(folder) for folder in folders}) == len(folders)


def test_a_merged_adapter_and_its_settings_count(tmp_path):
    base = checkpoint(tmp_path / "base", a=bytes(20))
    adapter = checkpoint(tmp_path / "adapter", "adapter_model.safetensors", a=bytes(4))
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps({"lora_alpha": 8}))
    merged = weights_digest(base, str(adapter))
    settings.write_text(json.dumps({"lora_alpha": 16}))
    assert len({weights_digest(base), merged, weights_digest(base, str(adapter))}) == 3


@pytest.mark.parametrize(("place", "seen"), [(0, True), (99, True), (31, True), (10, False)])
def test_of_a_gguf_file_evenly_spaced_blocks_count(tmp_path, monkeypatch, place, seen):
    monkeypatch.setattr(digest, "PER_FILE", 4)
    own, new = tmp_path / "own.gguf", tmp_path / "new.gguf"
    own.write_bytes(bytes(100))
    changed = bytearray(100)
    changed[place] = 1
    new.write_bytes(changed)
    assert (weights_digest(own) != weights_digest(new)) == seen
