"""Describe the machine that a run's last digits depend on, and choose torch's thread count."""

import platform
from importlib.metadata import version

import torch

from gainlens.activations.gram import kernel_name
from gainlens.models.sizes import is_small

THREADS = torch.get_num_threads()
"""torch's number of threads before gainlens changes it."""


def environment() -> dict[str, str]:
    """Return the versions and the hardware that the numbers depend on, to the last bit."""
    packages = ("torch", "transformers", "transformer-lens", "numpy", "scipy")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{package: version(package) for package in packages},
        "threads": str(THREADS),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "gram_kernel": kernel_name("cuda" if torch.cuda.is_available() else "cpu"),
    }


def set_threads(d_model: int, longest_prompt: int) -> None:
    """Give a small model one thread, a larger one all; call this before loading.

    The thread count changes the last bits of every sum, so it depends on the model and the prompts
    alone.  longest_prompt: tokens.
    """
    torch.set_num_threads(1 if is_small(d_model, longest_prompt) else THREADS)
