"""TODO: runs.progress."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Watch(Protocol):
    """Whoever wants to see progress."""

    def model(self, name: str, prompts: int) -> AbstractContextManager[Any]:
        """Entered while a model is loaded and measured; `prompts` is how many are to be run, each
        once for the capture and once for each intervention."""
        ...

    def advance(self, prompts: int) -> None:
        """So many prompts more are done."""
        ...


class Silent:
    def model(self, name: str, prompts: int) -> AbstractContextManager[Any]:
        return nullcontext()

    def advance(self, prompts: int) -> None: ...
