"""Start the server of forked_runs.py and ask it to run commands."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPT = Path(__file__).with_name("forked_runs.py")


class Server:
    """A process that runs compare commands in children, which can be killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SCRIPT.parent,
        )

    def ask(self, arguments: list[str], **asked: object) -> tuple[list[int], float]:
        """Return the exit status of each child and the seconds that they took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        whole = {"kill_after": None, "environments": [{}], "folder": None} | asked
        line = json.dumps({"arguments": arguments} | whole)
        print(line, file=self._process.stdin, flush=True)
        statuses, seconds = json.loads(self._process.stdout.readline())
        return statuses, seconds

    def run(self, arguments: list[str], kill_after: float | None = None) -> tuple[int, float]:
        """Return the exit status, -9 if the command still ran after so many seconds; the time."""
        (status,), seconds = self.ask(arguments, kill_after=kill_after)
        return status, seconds

    def together(
        self, arguments: list[str], environments: Sequence[dict[str, str]], folder: Path
    ) -> tuple[list[int], list[tuple[str, str]]]:
        """Run one command in several processes; return statuses, and what each printed."""
        statuses, _ = self.ask(arguments, environments=environments, folder=str(folder))
        return statuses, [
            (
                (folder / f"{place}.out").read_text("utf-8"),
                (folder / f"{place}.err").read_text("utf-8"),
            )
            for place in range(len(environments))
        ]

    def close(self) -> None:
        """End it."""
        self._process.communicate()
