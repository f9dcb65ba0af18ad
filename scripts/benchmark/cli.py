"""Run scripts/bench.py: turn flags into rows, a table, a description and a figure."""

import argparse
import datetime
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmark.figure import bench_figure
from benchmark.measure import Plan, measure
from benchmark.table import BenchRow, merged, read_rows, write_rows
from gainlens.activations.gram import kernel_name
from gainlens.figures import save

ROOT = Path(__file__).parents[2]
_PACKAGES = ("torch", "triton", "transformers", "transformer-lens", "nnsight", "numpy")


def parser() -> argparse.ArgumentParser:
    """Return the flags, with their units."""
    flags = argparse.ArgumentParser(description="Benchmark the capture beside its peers.")
    flags.add_argument("--shape", default="12x1024", help="llama-3.1-8b, or BLOCKSxD_MODEL")
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    flags.add_argument("--dtype", help="default: float32 on cpu, bfloat16 on cuda")
    flags.add_argument("--tokens", type=int, nargs="+", default=[512, 2048], help="prompt lengths")
    flags.add_argument("--backends", nargs="+", default=["native", "hooked", "bridge"])
    flags.add_argument(
        "--seconds", type=float, default=5.0, help="about how long per method and length"
    )
    flags.add_argument("--memory-limit", type=float, default=12.0, help="GB per process on a cpu")
    flags.add_argument("--out", type=Path, default=ROOT / "src/gainlens/data")
    flags.add_argument("--figures", type=Path, default=ROOT / "figures")
    return flags


def main() -> None:
    """Measure, then write the table, its description and the figure."""
    given = parser().parse_args()
    plan = Plan(
        shape=given.shape,
        device=given.device,
        dtype=given.dtype or ("float32" if given.device == "cpu" else "bfloat16"),
        lengths=tuple(given.tokens),
        backends=tuple(given.backends),
        seconds=given.seconds,
        memory_limit=int(given.memory_limit * 1e9),
    )
    machine = machine_name(plan.device)
    rows = measure(plan, machine)
    write(rows, description(plan, machine), given.out, given.figures)


def write(rows: list[BenchRow], run: dict[str, Any], folder: Path, figures: Path) -> None:
    """Merge the rows into the table and its description, and draw all rows."""
    folder.mkdir(parents=True, exist_ok=True)
    table, about = folder / "bench.csv", folder / "bench.json"
    every = merged(read_rows(table) if table.is_file() else (), rows)
    write_rows(table, every)
    runs = json.loads(about.read_text("utf-8"))["runs"] if about.is_file() else []
    same = ("machine", "shape", "dtype", "tokens", "backends")
    kept = [old for old in runs if any(old[key] != run[key] for key in same)]
    about.write_text(json.dumps({"runs": [*kept, run]}, indent=2) + "\n", "utf-8")
    save(bench_figure(every), figures, "bench", ("png", "svg"))


def description(plan: Plan, machine: str) -> dict[str, Any]:
    """Describe how the rows were made."""
    return {
        "command": (
            f"python scripts/bench.py --shape {plan.shape} --device {plan.device} --dtype "
            f"{plan.dtype} --tokens {' '.join(map(str, plan.lengths))} "
            f"--backends {' '.join(plan.backends)} --seconds {plan.seconds:g}"
        ),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "shape": plan.shape,
        "dtype": plan.dtype,
        "tokens": list(plan.lengths),
        "backends": list(plan.backends),
        "weights": "untrained, drawn from seed 0",
        "gram_kernel": kernel_name(plan.device),
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],  # over 1, 5 and 15 minutes
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def machine_name(device: str) -> str:
    """Return the GPU's name, or the number of the CPU's threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
