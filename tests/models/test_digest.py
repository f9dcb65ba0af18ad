"""The name of a checkpoint's weights."""

from pathlib import Path

import pytest

from gainlens.models import digest
from gainlens.models.digest import weights_digest


def checkpoint(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(digest, "BLOCK", 8)
    monkeypatch.setattr(digest, "BLOCKS", 4)


def test_a_copy_has_the_same_name_wherever_it_lies(tmp_path):
    one = checkpoint(tmp_path / "one", a=b"x" * 100, b=b"y" * 3)
    other = checkpoint(tmp_path / "other", a=b"x" * 100, b=b"y" * 3)
    (other / "README.md").write_text("about")
    assert weights_digest(one) == weights_digest(str(other))
    assert weights_digest("some/hub-name") is None


@pytest.mark.parametrize("size", [1, 8, 9, 31, 32])
def test_every_byte_of_a_small_file_counts(tmp_path, size):
    content = bytes(range(size))
    own = weights_digest(checkpoint(tmp_path / "own", a=content))
    for place in range(size):
        changed = bytearray(content)
        changed[place] ^= 1
        folder = checkpoint(tmp_path / str(place), a=bytes(changed))
        assert weights_digest(folder) != own, place


@pytest.mark.parametrize(("place", "seen"), [(0, True), (99, True), (31, True), (10, False)])
def test_of_a_large_file_evenly_spaced_blocks_count(tmp_path, place, seen):
    own = weights_digest(checkpoint(tmp_path / "own", a=bytes(100)))
    changed = bytearray(100)
    changed[place] = 1
    assert (weights_digest(checkpoint(tmp_path / "new", a=bytes(changed))) != own) == seen


def test_names_and_sizes_count(tmp_path):
    folders = [
        checkpoint(tmp_path / "1", a=bytes(20), b=b""),
        checkpoint(tmp_path / "2", a=bytes(20)),
        checkpoint(tmp_path / "3", b=bytes(20)),
        checkpoint(tmp_path / "4", a=bytes(21)),
    ]
    assert len({weights_digest(folder) for folder in folders}) == len(folders)
