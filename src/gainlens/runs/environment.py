"""TODO: runs.environment."""

import platform
from importlib.metadata import version

import torch

from gainlens.activations.gram import kernel_name

THREADS = torch.get_num_threads()
"""torch's number of threads before gainlens changes it."""


def environment() -> dict[str, str]:
    """Versions and hardware that the numbers depend on, to the last bit."""
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
