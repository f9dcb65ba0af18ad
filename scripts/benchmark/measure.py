"""Measure time and peak memory of methods in turns.  A method that does not fit gets a row too."""

import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.methods import METHODS, Method, tokens_of
from benchmark.shapes import build, config_of
from benchmark.table import MEASURED, OUT_OF_MEMORY, REFUSED, BenchRow

_LEAST, _MOST = 3, 15
_STATUS = Path("/proc/self/status")
_CLEAR_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Plan:
    """Fix what one run measures."""

    shape: str
    device: str
    dtype: str
    lengths: tuple[int, ...]
    """of the one prompt, tokens"""
    backends: tuple[str, ...]
    seconds: float
    """about how long each method is repeated at each length or batch size"""
    memory_limit: int
    """of a process on a CPU, bytes"""
    prompts: int = 0
    """how many short prompts; 0 measures one long prompt"""
    batch_tokens: tuple[int, ...] = ()
    """tokens per batch of short prompts"""


def measure(plan: Plan, machine: str) -> list[BenchRow]:
    """Return one row per method, back end and length."""
    rows: list[BenchRow] = []
    refused: dict[str, dict[str, Any]] = {}
    for backend in plan.backends:
        try:
            model = build(plan.shape, backend, plan.dtype, plan.device)
        except ValueError as error:  # a front end that is not installed gets a row too
            model = None
            refused = {m.name: {"status": str(error)} for m in METHODS if backend in m.backends}
        for length in plan.lengths:
            tokens = tokens_of(length, config_of(plan.shape).vocab_size, plan.device)
            found = refused if model is None else _interleaved(plan, backend, model, tokens)
            for method, numbers in found.items():
                row = BenchRow(machine, plan.shape, plan.dtype, length, backend, method, **numbers)
                print(json.dumps(vars(row)), flush=True)
                rows.append(row)
        del model
        _free(plan.device)
    return [_with_ratios(row, rows) for row in rows]


def _interleaved(plan: Plan, backend: str, model: Any, tokens: Tensor) -> dict[str, dict[str, Any]]:
    """Run each method once for its memory and as a warm-up, then all in turns for their times."""
    found: dict[str, dict[str, Any]] = {}
    running: list[Method] = []
    for method in (method for method in METHODS if backend in method.backends):
        if not method.installed:
            found[method.name] = {"status": "not installed"}
            continue
        status, memory = _peak(plan, backend, method, model, tokens)
        found[method.name] = {"status": status, "memory_bytes": memory}
        if status == MEASURED:
            running.append(method)
    times: dict[str, list[float]] = {method.name: [] for method in running}
    for turn in range(_MOST):
        for method in running:
            if turn < _LEAST or sum(times[method.name]) < plan.seconds:
                times[method.name].append(_seconds(method, model, tokens, plan.device))
    for name, seconds in times.items():
        found[name] |= {
            "seconds": statistics.median(seconds),
            "seconds_low": min(seconds),
            "seconds_high": max(seconds),
            "repeats": len(seconds),
        }
    return found


def _seconds(method: Method, model: Any, tokens: Tensor, device: str) -> float:
    synchronize(device)
    started = time.perf_counter()
    with torch.no_grad():
        kept = method.run(model, tokens)
    synchronize(device)
    taken = time.perf_counter() - started
    del kept
    return taken


def _peak(
    plan: Plan, backend: str, method: Method, model: Any, tokens: Tensor
) -> tuple[str, int | None]:
    """Return the status, and the peak memory above the weights that are held already."""
    if plan.device == "cpu":
        return _peak_of_a_process(plan, backend, method, tokens.shape[1])
    # a library may keep memory from its first call, which does not count
    try_once(partial(method.run, model, tokens[:, :2]))
    _free(plan.device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    status = try_once(partial(method.run, model, tokens))
    synchronize(plan.device)
    peak = torch.cuda.max_memory_allocated() - before
    _free(plan.device)
    return status, peak if status == MEASURED else None


def try_once(run: Callable[[], object]) -> str:
    """Run once; return MEASURED or the reason for the failure."""
    try:
        with torch.no_grad():
            run()
    except Exception as error:  # a peer's failure is a row and does not end the run
        return _reason(error)
    return MEASURED


def _reason(error: BaseException) -> str:
    link: BaseException | None = error
    while link is not None:
        text = str(link)
        if isinstance(link, torch.OutOfMemoryError | MemoryError) or "allocate memory" in text:
            return OUT_OF_MEMORY
        link = link.__cause__ or link.__context__
    if isinstance(error, ValueError) and "holds attention of every query" in str(error):
        return REFUSED
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _peak_of_a_process(
    plan: Plan, backend: str, method: Method, length: int
) -> tuple[str, int | None]:
    """Measure the peak in a new process, whose memory no other method has touched."""
    request = [plan.shape, backend, plan.dtype, method.name, length, plan.memory_limit]
    code = "from benchmark.measure import answer; answer()"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(request)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    if done.returncode != 0:
        return (OUT_OF_MEMORY if done.returncode < 0 else done.stderr.strip()[-200:]), None
    status, memory = json.loads(done.stdout.splitlines()[-1])
    return status, memory


def answer() -> None:
    """Run in a method's process: print its status and its peak memory above the weights."""
    shape, backend, dtype, name, length, limit = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    model = build(shape, backend, dtype, "cpu")
    tokens = tokens_of(length, config_of(shape).vocab_size, "cpu")
    method = next(method for method in METHODS if method.name == name)
    with torch.no_grad():
        method.run(model, tokens[:, :2])  # imports of a first run do not count
    gc.collect()
    _CLEAR_PEAK.write_text("5")
    before = _resident("VmRSS")
    status = try_once(partial(method.run, model, tokens))
    memory = _resident("VmHWM") - before if status == MEASURED else None
    print(json.dumps([status, memory]))


def _resident(field: str) -> int:
    """Read VmRSS (now) or VmHWM (peak) in bytes; Linux only."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def _with_ratios(row: BenchRow, rows: Sequence[BenchRow]) -> BenchRow:
    """Add the ratios to the plain passes of the same length."""

    def plain(backend: str) -> BenchRow | None:
        wanted = (backend, "plain", row.tokens)
        return next((r for r in rows if (r.backend, r.method, r.tokens) == wanted), None)

    native, own = plain("native"), plain(row.backend)
    return replace(
        row,
        times_native_plain=_ratio(row.seconds, native and native.seconds),
        times_own_plain=_ratio(row.seconds, own and own.seconds),
        memory_times_native_plain=_ratio(row.memory_bytes, native and native.memory_bytes),
        memory_times_own_plain=_ratio(row.memory_bytes, own and own.memory_bytes),
    )


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base
