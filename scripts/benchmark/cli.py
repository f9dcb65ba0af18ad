"""Run scripts/bench.py: turn flags into rows, a table, a description and a figure."""

import argparse
import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmark import throughput
from benchmark.figure import bench_figure, throughput_figure
from benchmark.measure import Plan, measure
from benchmark.table import DATA, BenchRow, Row, ThroughputRow, merged, read_rows, write_rows
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
    flags.add_argument(
        "--prompts", type=int, default=0, help="many short prompts, instead of one of --tokens"
    )
    flags.add_argument(
        "--batch-tokens", type=int, nargs="+", default=[1024, 4096], help="with --prompts"
    )
    flags.add_argument("--backends", nargs="+", default=["native", "hooked", "bridge"])
    flags.add_argument(
        "--seconds", type=float, default=5.0, help="about how long per method and length"
    )
    flags.add_argument("--memory-limit", type=float, default=12.0, help="GB per process on a cpu")
    flags.add_argument("--out", type=Path, default=DATA)
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
        prompts=given.prompts,
        batch_tokens=tuple(given.batch_tokens) if given.prompts else (),
    )
    machine = machine_name(plan.device)
    given.out.mkdir(parents=True, exist_ok=True)
    if plan.prompts:
        many = tuple(throughput.measure(plan, machine))
        figure = throughput_figure(add_rows(given.out / "throughput.csv", many, ThroughputRow))
    else:
        one = measure(plan, machine)
        figure = bench_figure(add_rows(given.out / "bench.csv", one, BenchRow))
    add_description(given.out / "bench.json", description(plan, machine))
    save(figure, given.figures, "throughput" if plan.prompts else "bench", ("png", "svg"))


def add_rows(path: Path, rows: Sequence[Row], kind: type[Row]) -> tuple[Row, ...]:
    """Merge rows into a table; return all of its rows."""
    every = merged(read_rows(path, kind) if path.is_file() else (), rows)
    write_rows(path, every)
    return every


def add_description(path: Path, run: dict[str, Any]) -> None:
    """Describe a run beside the others; it replaces one of the same machine and plan."""
    runs = json.loads(path.read_text("utf-8"))["runs"] if path.is_file() else []
    same = ("machine", "shape", "dtype", "tokens", "prompts", "batch_tokens", "backends")
    kept = [old for old in runs if any(old.get(key) != run[key] for key in same)]
    path.write_text(json.dumps({"runs": [*kept, run]}, indent=2) + "\n", "utf-8")


def description(plan: Plan, machine: str) -> dict[str, Any]:
    """Describe how the rows were made."""
    if plan.prompts:
        sizes = " ".join(map(str, plan.batch_tokens))
        workload = f"--prompts {plan.prompts} --batch-tokens {sizes}"
    else:
        workload = f"--tokens {' '.join(map(str, plan.lengths))}"
    return {
        "command": (
            f"python scripts/bench.py --shape {plan.shape} --device {plan.device} --dtype "
            f"{plan.dtype} {workload} "
            f"--backends {' '.join(plan.backends)} --seconds {plan.seconds:g}"
        ),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "shape": plan.shape,
        "dtype": plan.dtype,
        "tokens": [] if plan.prompts else list(plan.lengths),
        "prompts": plan.prompts,
        "batch_tokens": list(plan.batch_tokens),
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
