"""One process with everything imported; it forks a child per command, which saves the imports.

Reads lines of JSON, {"arguments": [...], "kill_after": seconds or null, "environments": [{...}],
"folder": where the children's outputs go or null}: one child per environment, all at once.  Answers
with their exit statuses, negative if a signal ended a child, and the seconds that they took.
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


def wait(children: list[int], kill_after: float | None) -> list[int]:
    """Return the exit status of each child; those that still run after so long are killed."""
    deadline = time.perf_counter() + (float("inf") if kill_after is None else kill_after)
    found: dict[int, int] = {}
    while len(found) < len(children):
        for child in children:
            done, status = (0, 0) if child in found else os.waitpid(child, os.WNOHANG)
            if done:
                found[child] = os.waitstatus_to_exitcode(status)
        if time.perf_counter() >= deadline:
            for child in children:
                if child not in found:
                    os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(STEP)
    return [found[child] for child in children]


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
        children = []
        for place, environment in enumerate(asked["environments"]):
            child = os.fork()
            if not child:
                os.environ |= environment
                command(asked["arguments"], asked["folder"], place)
            children.append(child)
        statuses = wait(children, asked["kill_after"])
        print(json.dumps([statuses, time.perf_counter() - started]), flush=True)


def command(arguments: list[str], folder: str | None, place: int) -> None:
    """Run the compare command in this child and end; standard output is for answers alone."""
    for number, name in ((1, "out"), (2, "err")):
        if folder or name == "out":
            path = f"{folder}/{place}.{name}" if folder else os.devnull
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    status = run(compare_command, arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
