"""W_U and RoPE of a checkpoint of which only the shard with lm_head is there."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from planting.checkpoints import build_model
from safetensors.torch import save_file

import gainlens
from gainlens.models.loading import load
from gainlens.weights.of_model import unembed_report
from gainlens.weights.rope import rope_report


def spectra_agree(one, two):
    for name in ("spectrum", "centred_spectrum", "folded_spectrum"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-7)
    assert one.tied == two.tied


@pytest.mark.parametrize("case", ["llama", "gemma2", "gpt2", "gpt2-tied", "phi3"])
def test_it_is_what_the_loaded_model_gives(folder_of, case):
    folder = folder_of(case)
    loaded = load(folder, backend="native")
    whole = unembed_report(loaded)
    unembed, rope = gainlens.weights_report(folder)
    spectra_agree(unembed, whole)
    other = rope_report(loaded.model, loaded.checkpoint.config)
    assert rope.rope_theta == other.rope_theta
    assert rope.measured_theta is None
    np.testing.assert_allclose(rope.wavelengths, other.wavelengths, rtol=1e-5)


@pytest.fixture
def sharded(tmp_path):
    """A directory whose index names three shards, of which the first is not there."""
    whole = tmp_path / "whole"
    build_model().save_pretrained(whole, max_shard_size="60KB")
    index = json.loads((whole / "model.safetensors.index.json").read_text("utf-8"))["weight_map"]
    kept = {index["lm_head.weight"], index["model.norm.weight"]}
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    gone = [path for path in part.glob("*.safetensors") if path.name not in kept]
    assert gone
    for path in gone:
        path.unlink()
    return whole, part


def test_shards_without_the_head_may_be_missing(sharded):
    whole, part = sharded
    spectra_agree(gainlens.weights_report(whole)[0], gainlens.weights_report(part)[0])


def test_a_missing_shard_with_the_head_is_named(sharded):
    _, part = sharded
    for path in part.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no safetensors weights|lm_head\.weight is in it"):
        gainlens.weights_report(part)


def test_of_a_hub_model_only_the_shards_that_are_needed_are_fetched(sharded, tmp_path, monkeypatch):
    whole, part = sharded
    cache, fetched = tmp_path / "cache", []

    def snapshot_download(source, revision, allow_patterns):
        assert (source, revision) == ("some/model", "main")
        cache.mkdir(exist_ok=True)
        for name in allow_patterns:
            shutil.copy(whole / name, cache)
            fetched.append(name)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found, _ = gainlens.weights_report("some/model", revision="main")
    spectra_agree(found, gainlens.weights_report(whole)[0])
    wanted = {path.name for path in part.glob("*.safetensors")}
    assert set(fetched) == {"config.json", "model.safetensors.index.json"} | wanted


@pytest.mark.slow
def test_memory_is_that_of_the_head_alone(tmp_path):
    """lm_head of 64 MiB beside 512 MiB of other weights in another shard that is there."""
    folder = tmp_path / "large"
    build_model().save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    head = {"lm_head.weight": torch.ones(32768, 512), "model.norm.weight": torch.ones(512)}
    save_file(head, folder / "b.safetensors")
    others = {f"model.layers.{i}.mlp.up_proj.weight": torch.ones(4096, 4096) for i in range(8)}
    save_file(others, folder / "a.safetensors")
    names = dict.fromkeys(others, "a.safetensors") | dict.fromkeys(head, "b.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}), encoding="utf-8")
    code = (
        "import resource, sys, gainlens, gainlens.weights\n"
        "gainlens.weights_report('gainlens:context512-theta10k')  # every import is made by now\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "report, _ = gainlens.weights_report(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, report.shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    kilobytes, _, shape = done.stdout.partition(" ")
    assert shape.strip() == "(32768, 512)"
    assert int(kilobytes) < 300_000  # the head, a block in float64, the Gram matrices
