"""One process with everything imported; it forks one child a command, so that a kill is quick.

Reads lines of JSON, {"arguments": [...], "kill_after": seconds or null}, and answers with the
child's exit status, negative where a signal ended it, and the seconds that it took.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time

from gainlens.cli.compare import compare_command, run
from gainlens.runs import writing as rendering

DRAWN = "gain_curve"
"""The one figure that is drawn: all of them take three quarters of a small comparison's time."""
WHEN_NEEDED = (
    "gainlens.runs.pipeline", "gainlens.report.page", "gainlens.runs.resume",
    "pandas", "pyarrow.parquet",
    "pyarrow.compute", "transformer_lens.loading_from_pretrained", "transformers.models.llama",
    "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto",
    "tokenizers", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "jinja2",
)  # fmt: skip
"""What a command imports when it is first needed."""
STEP = 0.001


def wait(child: int, kill_after: float | None) -> int:
    """The exit status of a child; killed after so many seconds where it still runs."""
    deadline = time.perf_counter() + (float("inf") if kill_after is None else kill_after)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.perf_counter() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(STEP)


def main() -> None:
    """Serve until standard input ends."""
    for name in WHEN_NEEDED:
        importlib.import_module(name)
    drawings = rendering.drawings
    rendering.drawings = lambda *given: {DRAWN: drawings(*given)[DRAWN]}
    gc.freeze()  # else each child's first collection copies the whole heap
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # standard output is for answers alone
            os._exit(run(compare_command, asked["arguments"]))
        status = wait(child, asked["kill_after"])
        print(json.dumps([status, time.perf_counter() - started]), flush=True)


if __name__ == "__main__":
    main()
