"""Check where weights go: on one device if they fit, else over all, with the same numbers."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from planting.hooks import prompts_of
from transformers import AutoConfig

from gainlens.activations.capturing import capture
from gainlens.core.spec import Rule
from gainlens.interventions.baseline import baseline_of
from gainlens.interventions.sweep import sweep_last_blocks
from gainlens.interventions.theta import theta_dose
from gainlens.models import placement
from gainlens.models.loading import load
from gainlens.models.placement import Placement, place, weight_bytes, weight_of
from gainlens.models.processes import World
from gainlens.results.values import to_json
from gainlens.weights.of_model import unembedding


@pytest.fixture(scope="module")
def folder(make_checkpoint):
    return make_checkpoint()


@pytest.fixture
def cramped(monkeypatch, tmp_path):
    """No room for weights in memory: they stay on disk."""
    monkeypatch.setattr(placement, "free_memory", lambda device: 1000)
    monkeypatch.setattr(placement.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "offload"))
    (tmp_path / "offload").mkdir()
    return tmp_path / "offload"


def test_weights_are_counted_without_being_made(folder):
    config = AutoConfig.from_pretrained(folder)
    loaded = load(folder, backend="native")
    assert weight_bytes(config) == sum(p.numel() for p in loaded.model.parameters())


@pytest.mark.parametrize(
    ("room", "dtype", "spread"),
    [(1.01, "float32", False), (0.99, "float32", True), (0.51, "bfloat16", False)],
)
def test_a_model_is_spread_where_its_weights_do_not_fit(folder, monkeypatch, room, dtype, spread):
    config = AutoConfig.from_pretrained(folder)
    free = room * 4 * weight_bytes(config) / placement._SHARE
    monkeypatch.setattr(placement, "free_memory", lambda device: free)
    assert place(config, dtype, "auto") == Placement("cpu", spread)
    assert place(config, dtype, "cpu") == Placement("cpu", False)  # as asked for


def test_processes_cannot_share_what_one_has_not(folder, monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda device: 1000)
    monkeypatch.setattr(placement, "world", lambda: World(1, 2, 1))
    with pytest.raises(ValueError, match="run one process, which lays it over all there is"):
        place(AutoConfig.from_pretrained(folder), None, "auto")


def test_each_process_takes_its_own_gpu(folder, monkeypatch):
    monkeypatch.setattr(placement, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(placement, "free_memory", lambda device: 1 << 40)
    config = AutoConfig.from_pretrained(folder)
    for local, gpu in ((0, "cuda:0"), (3, "cuda:3"), (5, "cuda:1")):
        monkeypatch.setattr(placement, "world", lambda local=local: World(local, 8, local))
        assert place(config, None, "auto").device == place(config, None, "cuda").device == gpu


def test_a_model_on_disk_gives_the_same_numbers(folder, cramped):
    prompts = prompts_of((9, 14, 21, 12) * 5)
    there = load(folder, backend="native")
    away = load(folder, device="auto")
    assert away.checkpoint.backend == "native"
    head = away.model.get_output_embeddings()
    assert head.weight.is_meta
    assert torch.equal(weight_of(head), there.model.get_output_embeddings().weight)
    for mine, other in zip(unembedding(there.model), unembedding(away.model), strict=True):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(other))
    one, two = (capture(loaded.model, prompts) for loaded in (there, away))
    np.testing.assert_array_equal(one.gram, two.gram)
    np.testing.assert_array_equal(one.normed, two.normed)
    mine, other = (baseline_of(loaded, prompts, Rule(resamples=200)) for loaded in (there, away))
    assert to_json(sweep_last_blocks(mine, 2)) == to_json(sweep_last_blocks(other, 2))
    assert to_json(theta_dose(mine, [1e5])) == to_json(theta_dose(other, [1e5]))


def test_the_offload_folder_goes_with_the_model(folder, cramped):
    loaded = load(folder, device="auto")
    assert cramped.is_dir()
    del loaded
    gc.collect()
    assert not Path(cramped).exists()


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
def test_only_native_is_spread(folder, cramped, backend):
    with pytest.raises(ValueError, match=r"only --backend native lays one over.*asked for"):
        load(folder, device="auto", backend=backend)
