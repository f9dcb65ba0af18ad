"""Measure small models, and draw, in worker processes while the main process does the rest.

Results are bit-identical to a serial run.  Workers print nothing and write figures alone.  If a
worker fails or dies, the main process does its work again and reports what is wrong with it.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gainlens.core.spec import ComparisonSpec
from gainlens.models.processes import collect_seldom, started
from gainlens.models.sizes import all_small
from gainlens.prompts.texts import BUILT_IN

if TYPE_CHECKING:
    from gainlens.runs.measured import Measured

_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """Processes that work for this one; none, if the models are not small."""

    measuring: "Mapping[str, Future[Measured]]" = field(default_factory=dict[str, Any])
    """running measurements by model key; the other models are left to this process"""
    pool: Executor | None = None

    def begin(self, task: Callable[[], T]) -> Callable[[], T]:
        """Give a task to a process, and return a function that waits for what it returns.

        If no process has begun the task by then, there is none, or it dies, that function does the
        task here.
        """
        if self.pool is None:
            return task
        try:
            future = self.pool.submit(task)
        except BrokenExecutor:
            return task

        def wait() -> T:
            if future.cancel():
                return task()
            try:
                return future.result()
            except BrokenExecutor:
                return task()

        return wait


@contextmanager
def started_for(spec: ComparisonSpec) -> Generator[Workers]:
    """Measure some of a comparison's models in worker processes, if its models are small.

    The processes end with the context, whatever they do.
    """
    keys = [model.key for model in spec.models]
    count = min(_cores(), len(keys)) if _in_parallel(spec) else 1
    if count == 1:
        yield Workers()
        return
    with _pool(count - 1) as pool:
        with _interruptions_ignored():
            running = {
                key: pool.submit(_measure, spec, key)
                for place, key in enumerate(keys)
                if place % count
            }
        yield Workers(running, pool)


@contextmanager
def _pool(count: int) -> Generator[ProcessPoolExecutor]:
    """Hold so many silent processes, and kill them at the end, whatever they do."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=_SPAWN, initializer=_begin)
    try:
        yield pool
    finally:
        for worker in set(multiprocessing.active_children()) - before:
            worker.kill()
        pool.shutdown(cancel_futures=True)


def in_order(vector: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the SVG texts that several processes drew in the order of the figures' names."""
    order = {name: place for place, name in enumerate(names)}
    return dict(sorted(vector.items(), key=lambda one: order[one[0].removesuffix("_narrow")]))


def result_of(workers: Workers | None, key: str) -> "Measured | None":
    """Wait for one model's measurement; None if no worker measures it, or if its worker failed."""
    if workers is None or key not in workers.measuring:
        return None
    try:
        return workers.measuring[key].result()
    except Exception:  # the main process meets the same error when it measures the model
        return None


def _in_parallel(spec: ComparisonSpec) -> bool:
    """Return True if every model and every prompt is known to be small before anything runs."""
    if started().size > 1 or spec.prompts not in BUILT_IN:
        return False
    return all_small([model.hf_name for model in spec.models], spec.tokens or 0)


def _cores() -> int:
    """Return the number of cores that this process may use, at most OMP_NUM_THREADS."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(limit)) if limit.isdigit() and int(limit) else usable


@contextmanager
def _interruptions_ignored() -> Generator[None]:
    """Let processes that are started meanwhile ignore Ctrl-C from their first instruction on.

    Ctrl-C reaches them too; they end with their pool.
    """
    try:
        before: Any = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # only the main thread may set handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin() -> None:
    """Send what a worker prints nowhere."""
    collect_seldom()
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)


def _measure(spec: ComparisonSpec, key: str) -> "Measured":
    """Measure one model in a worker."""
    from gainlens.models.quiet import chatter_silenced

    with chatter_silenced():
        from gainlens.runs.inputs import open_inputs, thetas_to_swap
        from gainlens.runs.measuring import measure_model

        inputs = open_inputs(spec)
        return measure_model(spec, inputs[key], thetas_to_swap(spec, inputs))
