"""Measure tokens per second on many short prompts, against the tokens per batch.

Every method runs the same prompts in the same batches and ends with numbers in main memory: peers
cache a batch's streams and writes and keep their norms.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmark.measure import Plan, synchronize, try_once
from benchmark.methods import METHODS, Method
from benchmark.shapes import build, config_of
from benchmark.table import MEASURED, ThroughputRow
from gainlens.activations.batches import batches
from gainlens.activations.capturing import capture
from gainlens.models.sites import sites_of
from gainlens.records.inputs import EncodedPrompts

SHORTEST, LONGEST = 10, 300
"""Lengths of the prompts in tokens; their logarithms are equally likely, so the mean is 85."""
_METHODS: Final = ("plain", "gainlens", "nnsight", "run_with_cache, five sites")
_LEAST, _MOST = 3, 7


def short_prompts(number: int, vocabulary: int) -> EncodedPrompts:
    """Draw prompts of SHORTEST to LONGEST random tokens, the same for every method."""
    draw = np.random.default_rng(number)
    lengths = np.exp(draw.uniform(np.log(SHORTEST), np.log(LONGEST), number)).round().astype(int)
    tokens = tuple(draw.integers(0, vocabulary, length) for length in lengths)
    ids = tuple(f"prompt {index}" for index in range(number))
    return EncodedPrompts("bench", "", ids, tokens, True, 0, ())


def measure(plan: Plan, machine: str) -> Iterator[ThroughputRow]:
    """Yield one row per back end, batch size and method."""
    prompts = short_prompts(plan.prompts, config_of(plan.shape).vocab_size)
    for backend in plan.backends:
        model = build(plan.shape, backend, plan.dtype, plan.device)
        methods = [m for m in METHODS if backend in m.backends and m.name in _METHODS]
        for size in plan.batch_tokens:
            found = _in_turns(plan, methods, model, prompts, size)
            total = sum(len(ids) for ids in prompts.tokens)
            about = (total, size, _padding(plan, model, prompts, size), backend)
            for name, numbers in found.items():
                row = ThroughputRow(
                    machine, plan.shape, plan.dtype, plan.prompts, *about, name, **numbers
                )
                print(json.dumps(vars(row)), flush=True)
                yield row
        del model
        gc.collect()


def _in_turns(
    plan: Plan, methods: Sequence[Method], model: Any, prompts: EncodedPrompts, size: int
) -> dict[str, dict[str, Any]]:
    """Run each method once as a warm-up, then all in turns."""
    runs: dict[str, Callable[[], object]] = {}
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        run = _over_prompts(plan, method, model, prompts, size)
        status = try_once(run) if method.installed else "not installed"
        found[method.name] = {"status": status}
        if status == MEASURED:
            runs[method.name] = run
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(_MOST):
        for name, run in runs.items():
            if turn < _LEAST or sum(times[name]) < plan.seconds:
                synchronize(plan.device)
                started = time.perf_counter()
                run()
                synchronize(plan.device)
                times[name].append(time.perf_counter() - started)
    total = sum(len(ids) for ids in prompts.tokens)
    plain = statistics.median(times["plain"]) if times.get("plain") else float("nan")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        found[name] |= {
            "seconds": middle,
            "seconds_low": min(seconds),
            "seconds_high": max(seconds),
            "repeats": len(seconds),
            "tokens_per_second": total / middle,
            "times_own_plain": middle / plain,
        }
    return found


def _over_prompts(
    plan: Plan, method: Method, model: Any, prompts: EncodedPrompts, size: int
) -> Callable[[], object]:
    """Return a function that runs a method over all prompts."""
    if method.name == "gainlens":
        return lambda: capture(model, prompts, batch_tokens=size)

    def run() -> list[Tensor]:
        kept: list[Tensor] = []
        with torch.no_grad():
            for batch in batches(model, prompts, sites_of(model), size):
                kept += _norms(method.run(model, batch.tokens))
        return [norms.cpu() for norms in kept]

    return run


def _norms(kept: object) -> list[Tensor]:
    """Return the norm of each token in every tensor that a method kept."""
    if isinstance(kept, Tensor):
        return [kept.float().norm(dim=-1)]
    values = kept.values() if isinstance(kept, Mapping) or hasattr(kept, "values") else kept
    return [] if values is None else [norms for value in values for norms in _norms(value)]  # pyright: ignore[reportGeneralTypeIssues]


def _padding(plan: Plan, model: Any, prompts: EncodedPrompts, size: int) -> float:
    made = list(batches(model, prompts, sites_of(model), size))
    return 1 - sum(int(b.lengths.sum()) for b in made) / sum(b.tokens.numel() for b in made)
