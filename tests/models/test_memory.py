"""A model that does not fit gives one sentence that says what to change, on every back end."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS, HOOKED, TRANSFORMER_LENS
from planting.hooks import prompts_of

from gainlens.activations.capturing import capture
from gainlens.activations.losses import loss
from gainlens.models import memory as limits
from gainlens.models.hooks import reading
from gainlens.models.loading import load
from gainlens.models.memory import enough_memory, memory_of
from gainlens.models.sites import sites_of

CPU = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
WINDOWS = "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore lines"),
    "cpu": RuntimeError(CPU),
    "windows": RuntimeError(WINDOWS),
    "python": MemoryError(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("backend", BACK_ENDS)
def test_memory_that_runs_out_in_a_capture_says_what_to_change(loaded_of, backend, error):
    model = loaded_of("llama", backend).model
    burst = [(sites_of(model).site("blocks.1.hook_mlp_out"), raising(error))]
    with (
        pytest.raises(ValueError, match=r"memory ran out while running 1 x 5 tokens") as caught,
        reading(burst),
    ):
        capture(model, prompts_of((5,)))
    said = str(caught.value)
    assert "\n" not in said
    assert ("--backend native" in said) == (backend != "native")
    for setting in ("--dtype bfloat16", "--tokens", "--device auto"):
        assert setting in said
    with pytest.raises(ValueError, match="memory ran out"), reading(burst):
        loss(model, prompts_of((5,)))


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_memory_that_runs_out_while_loading_says_what_to_change(folder_of, monkeypatch, error):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", raising(error))
    with pytest.raises(ValueError, match=r"memory ran out while loading .*--dtype bfloat16"):
        load(folder_of("llama"), backend="native")


@pytest.mark.parametrize("backend", [name for name in BACK_ENDS if name != "native"])
def test_memory_that_runs_out_in_a_conversion_says_what_to_change(folder_of, monkeypatch, backend):
    homes = {"hooked": "HookedTransformer", "bridge": "model_bridge.TransformerBridge"}
    entry = {"hooked": "__init__", "bridge": "boot_transformers"}
    name = f"transformer_lens.{homes[backend]}.{entry[backend]}"
    monkeypatch.setattr(name, raising(ERRORS["cpu"]))
    with pytest.raises(ValueError, match=r"memory ran out while loading .*--backend native"):
        load(folder_of("llama"), backend=backend)


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="shapes differ"), enough_memory("it", "native"):
        raise RuntimeError("shapes differ")


@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_hooked_refuses_a_prompt_beyond_its_context_and_native_takes_it(loaded_of):
    beyond = prompts_of((129,))
    with pytest.raises(ValueError, match=r"129 tokens .* holds 128: --backend native"):
        capture(loaded_of("llama", "hooked").model, beyond)
    assert capture(loaded_of("llama", "native").model, beyond).gram.shape[-1] == 129


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_learned_positions_end(loaded_of, backend):
    model = loaded_of("gpt2", backend).model
    assert capture(model, prompts_of((128,))).gram.shape[-1] == 128
    with pytest.raises(ValueError, match=r"holds 128: its positions are a table.*--tokens 128"):
        capture(model, prompts_of((129,)))


@pytest.mark.parametrize("case", ["llama", "gemma2"])
def test_attention_that_no_memory_holds_is_refused_before_it_is_tried(loaded_of, monkeypatch, case):
    """4 heads, 30 x 30, two matrices of float32: 28,800 bytes."""
    backend = "native" if case == "gemma2" else TRANSFORMER_LENS
    model = loaded_of(case, backend).model
    monkeypatch.setattr(limits, "memory_of", lambda device: 28_799)
    with pytest.raises(ValueError, match=f"this {backend} model holds attention.*--tokens") as one:
        capture(model, prompts_of((30,)))
    assert ("--backend native" in str(one.value)) == (case == "llama")
    assert np.isfinite(capture(model, prompts_of((29,))).gram).all()
    monkeypatch.setattr(limits, "memory_of", lambda device: 28_800)
    capture(model, prompts_of((30,)))


def test_native_with_sdpa_needs_no_such_memory(loaded_of, monkeypatch):
    monkeypatch.setattr(limits, "memory_of", lambda device: 0)
    capture(loaded_of("llama", "native").model, prompts_of((30,)))


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux says its memory there")
def test_memory_is_that_of_the_machine(monkeypatch):
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert memory_of(torch.device("cpu")) == pytest.approx(kib * 1024, rel=0.01)
    assert memory_of(torch.device("meta")) is None
    card = SimpleNamespace(total_memory=7)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert memory_of(torch.device("cuda:0")) == 7
