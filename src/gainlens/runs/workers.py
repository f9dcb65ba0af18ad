"""Small models side by side: other processes measure some of a comparison's models meanwhile.

What comes back is what `pipeline.measure` returns, equal to the bit.  These processes touch no
file and say nothing: a model that one of them could not measure is measured again here, and what
is wrong with it is said here.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gainlens.core.spec import ComparisonSpec
from gainlens.models.processes import started
from gainlens.models.sizes import all_small
from gainlens.prompts.texts import BUILT_IN

if TYPE_CHECKING:
    from gainlens.runs.measuring import Measured


_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads


class Helper:
    """A process that measures some models, in the comparison's order."""

    def __init__(self, spec: ComparisonSpec, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self._results, theirs = _SPAWN.Pipe(duplex=False)
        self._process: SpawnProcess = _SPAWN.Process(
            target=_serve, args=(theirs, spec, self.keys), daemon=True
        )
        with _interruptions_ignored():  # Ctrl-C reaches it as well; it ends with this process
            self._process.start()
        theirs.close()

    def measured(self, key: str) -> "Measured | None":
        """Wait for one of its models, asked for in order; None where it has failed."""
        with suppress(EOFError, OSError):
            while True:
                name, found = self._results.recv()
                if name == key:
                    return found
        return None

    def stop(self) -> None:
        """End it, whatever it does."""
        self._results.close()
        self._process.kill()
        self._process.join()


class Helpers:
    """What other processes measure of a comparison."""

    def __init__(self, helpers: Sequence[Helper]) -> None:
        self._of = {key: helper for helper in helpers for key in helper.keys}

    def measured(self, key: str) -> "Measured | None":
        """A model that was measured elsewhere; None where it is to be measured here."""
        return self._of[key].measured(key) if key in self._of else None


@contextmanager
def helpers(spec: ComparisonSpec) -> Generator[Helpers]:
    """As many processes as there are cores and models for, where the models are small; else none.

    They end with the context.
    """
    keys = [model.key for model in spec.models]
    count = min(_cores(), len(keys)) if _side_by_side(spec) else 1
    running: list[Helper] = []
    try:
        for place in range(1, count):
            running.append(Helper(spec, keys[place::count]))
        yield Helpers(running)
    finally:
        for helper in running:
            helper.stop()


def _side_by_side(spec: ComparisonSpec) -> bool:
    """Whether every model and every prompt is small, as far as can be told before anything runs."""
    if started().size > 1 or spec.prompts not in BUILT_IN:
        return False
    return all_small([model.hf_name for model in spec.models], spec.tokens or 0)


def _cores() -> int:
    """Cores that this process may use, no more than OMP_NUM_THREADS."""
    there = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(asked)) if asked.isdigit() and int(asked) else there


@contextmanager
def _interruptions_ignored() -> Generator[None]:
    """A process that is started meanwhile ignores Ctrl-C from its first instruction on."""
    try:
        before: Any = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread: whoever started it decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(results: Connection, spec: ComparisonSpec, keys: Sequence[str]) -> None:
    """In the helper: measure and send."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    from gainlens.models.quiet import chatter_silenced

    with chatter_silenced(), suppress(BrokenPipeError):
        from gainlens.runs.measuring import measure
        from gainlens.runs.pipeline import encode_for_all

        encoded = encode_for_all(spec)
        for model in (model for model in spec.models if model.key in keys):
            try:
                found = measure(spec, model, encoded[model.key])
            except Exception:  # said by whoever measures it again
                found = None
            results.send((model.key, found))
