"""The files of a checkpoint's directory: each broken one is one sentence, and none lies outside."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gainlens.models.tensors import INDEX, SINGLE, json_object, read_tensor, tensor_files


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    save_file({"a": torch.arange(3.0), "b": torch.ones(2)}, place / SINGLE)
    return place


def index(folder, weight_map) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_tensors_are_found_and_read(folder):
    assert tensor_files(folder) == {"a": folder / SINGLE, "b": folder / SINGLE}
    torch.testing.assert_close(read_tensor(folder / SINGLE, "a"), torch.arange(3.0))
    index(folder, {"c": "part.safetensors"})
    assert set(tensor_files(folder)) == {"a", "b"}, "an index that stayed behind does not count"
    (folder / SINGLE).unlink()
    assert tensor_files(folder) == {"c": folder / "part.safetensors"}


@pytest.mark.fault(
    "an index of shards that names files elsewhere, or is no index", "refused: path and what it is"
)
@pytest.mark.parametrize(
    "shard",
    ["../other.safetensors", "/etc/passwd", "/tmp/x.safetensors", "a/b.safetensors", "x.bin", 3],
)
def test_an_index_names_files_of_its_own_directory(folder, shard):
    (folder / SINGLE).unlink()
    index(folder, {"a": SINGLE, "b": shard})
    with pytest.raises(ValueError, match="weight_map must give a file of this directory"):
        tensor_files(folder)
    index(folder, [SINGLE])
    with pytest.raises(ValueError, match="weight_map must give a file of this directory"):
        tensor_files(folder)


@pytest.mark.parametrize("content", [b"{nope", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_json_is_one_sentence(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is not JSON \(.+\): fetch it") as caught:
        json_object(folder / "config.json")
    assert "\n" not in str(caught.value)
    (folder / "config.json").write_bytes(b"[1]")
    with pytest.raises(ValueError, match="is no JSON object"):
        json_object(folder / "config.json")


@pytest.mark.fault(
    "a truncated or corrupt safetensors file", "refused: file, and to download it again"
)
def test_a_corrupt_shard_is_one_sentence(folder):
    whole = (folder / SINGLE).read_bytes()
    for broken in (b"", whole[:7], whole[:40], whole[:-1], b"\xff" * 64):
        (folder / SINGLE).write_bytes(broken)
        for read in (lambda: tensor_files(folder), lambda: read_tensor(folder / SINGLE, "a")):
            with pytest.raises(ValueError, match="cannot be read as safetensors") as caught:
                read()
            assert "\n" not in str(caught.value)
    (folder / SINGLE).unlink()
    with pytest.raises(ValueError, match="is missing, and a is in it"):
        read_tensor(folder / SINGLE, "a")
