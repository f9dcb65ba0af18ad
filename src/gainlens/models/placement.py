"""Decide where a model's weights go: one device, or all GPUs, then memory, then disk."""

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from gainlens.models.memory import free_memory
from gainlens.models.processes import world

_SHARE: Final = 0.85
"""Of a device's free memory, for weights: the rest is for activations."""


@dataclass(frozen=True)
class Placement:
    """Say where a model is loaded."""

    device: str
    """cpu, cuda:0, ...: where token ids go"""
    spread: bool
    """over several devices, main memory and disk, as they have room (native back end only)"""


def place(config: Any, dtype: str | None, device: str) -> Placement:
    """Decide where the weights of a config go.

    device: cpu and cuda:N are taken as they are; cuda is this process's GPU; auto is that (else
    the
    CPU) where the weights fit its free memory, else everything there is.  dtype: None is the
    default on that device.  ValueError where there is no such device, and where several processes
    would have to share what there is.
    """
    if device.startswith("cuda") and not has_gpu():
        raise ValueError(
            f"there is no CUDA device here, and {device} was asked for: give --device cpu or auto"
        )
    mine = f"cuda:{world().local_rank % torch.cuda.device_count()}" if has_gpu() else "cpu"
    if device != "auto":
        return Placement(mine if device == "cuda" else device, spread=False)
    wanted = weight_bytes(config) * getattr(torch, default_dtype(config, mine, dtype)).itemsize
    fits = wanted <= _SHARE * free_memory(mine)
    if not fits and world().size > 1:
        raise ValueError(
            f"the weights take {wanted / 2**30:,.1f} GiB and {mine} has "
            f"{free_memory(mine) / 2**30:,.1f} free, so each of several processes cannot hold a "
            "model of its own: run one process, which lays it over all there is"
        )
    return Placement(mine, spread=not fits)


def has_gpu() -> bool:
    """Return whether there is a CUDA device."""
    return torch.cuda.is_available()


def default_dtype(config: Any, device: str, dtype: str | None = None) -> str:
    """float32 on CPU, on a GPU the checkpoint's own where it is one that gainlens measures in."""
    if dtype is not None:
        return dtype
    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    measured = ("float32", "bfloat16", "float16")
    return own if device != "cpu" and own in measured else "float32"


def weight_bytes(config: Any) -> int:
    """Parameters of a config's model: bytes where each takes one."""
    from transformers import AutoModelForCausalLM

    maker: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in maker.from_config(config).parameters())


def spread_options() -> dict[str, Any]:
    """Return the options that make from_pretrained spread a model over all devices."""
    gpus = torch.cuda.device_count() if has_gpu() else 0
    memory: dict[int | str, int] = {"cpu": int(_SHARE * free_memory("cpu"))}
    memory |= {index: int(_SHARE * free_memory(f"cuda:{index}")) for index in range(gpus)}
    return {
        "device_map": "auto",
        "max_memory": memory,
        "offload_folder": tempfile.mkdtemp(prefix="offload-"),
    }


def forget_folder(model: nn.Module, folder: str) -> None:
    """Remove an offload folder when its model is gone."""
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)


def weight_of(module: nn.Module) -> Tensor:
    """A module's weight, read from where it was offloaded to if it is not in memory."""
    weight: Any = module.weight
    if not weight.is_meta:
        return weight
    return next(hook.weights_map for hook in _hooks(module) if hook.weights_map)["weight"]


def _hooks(module: nn.Module) -> list[Any]:
    """accelerate's hooks that bring a module's weights to where it computes."""
    from accelerate.hooks import AlignDevicesHook

    hook: Any = getattr(module, "_hf_hook", None)
    return [one for one in getattr(hook, "hooks", (hook,)) if isinstance(one, AlignDevicesHook)]


def device_of(module: nn.Module) -> torch.device:
    """Return where a module computes; offloaded weights come there when it runs."""
    device = next(module.parameters()).device
    if device.type != "meta":
        return device
    return torch.device(next(hook.execution_device for hook in _hooks(module)))
