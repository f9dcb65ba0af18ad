"""Show the progress of a comparison: bars on standard error, or a line in a notebook."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


class ProgressWatch:
    """Progress bars of a comparison; `tell` prints lines that stay."""

    def __init__(self, progress: Progress, models: int, quiet: bool) -> None:
        self._progress = progress
        self._quiet = quiet
        self._models = progress.add_task("models", total=models)
        self._prompts = progress.add_task("prompts", total=None, visible=False)

    @contextmanager
    def model(self, name: str, prompts: int) -> Generator[None]:
        """Show the model that is being measured, and count it as done at the end."""
        self._progress.update(self._models, description=escape(name))
        self._progress.reset(self._prompts, total=prompts, visible=True)
        yield
        self._progress.advance(self._models)
        self._progress.update(self._prompts, visible=False)

    def advance(self, prompts: int) -> None:
        """Count this many more prompts as done."""
        self._progress.advance(self._prompts, prompts)

    def tell(self, sentence: str) -> None:
        """Print a line that stays, even if standard error is no terminal."""
        if not self._quiet:
            self._progress.console.print(escape(sentence), highlight=False, soft_wrap=True)

    def phase(self, name: str) -> None:
        """Name what happens after the last model."""
        self._progress.update(self._models, description=name)


class NotebookWatch(ProgressWatch):
    """Show progress as one line of a notebook's output, which is written again as it goes."""

    def __init__(self, models: int) -> None:
        from IPython.display import display

        super().__init__(Progress(disable=True), models, quiet=False)
        self._total, self._finished = models, 0
        self._line: Any = display({"text/plain": ""}, raw=True, display_id=True)

    @contextmanager
    def model(self, name: str, prompts: int) -> Generator[None]:
        """Show the model that is being measured, and count it as done at the end."""
        self._name, self._all, self._done = name, prompts, 0
        self.advance(0)
        yield
        self._finished += 1
        self.phase(f"{self._finished} of {self._total} models measured")

    def advance(self, prompts: int) -> None:
        """Count this many more prompts as done."""
        self._done += prompts
        place = f"model {self._finished + 1} of {self._total}"
        self.phase(f"{place}, {self._name}: {self._done} of {self._all} prompts")

    def phase(self, name: str) -> None:
        """Replace the line."""
        self._line.update({"text/plain": name}, raw=True)


def silent(models: int) -> ProgressWatch:
    """Return a watch that shows nothing, for this many models."""
    return ProgressWatch(Progress(disable=True), models, quiet=True)


@contextmanager
def progress(quiet: bool, models: int) -> Generator[ProgressWatch]:
    """Show progress bars with the time left, if standard error is a terminal."""
    console = Console(stderr=True)
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bars:
        yield ProgressWatch(bars, models, quiet)
