"""Refuse what a back end cannot hold, in one sentence that says which setting to change.

That is a prompt beyond the model's positions, attention that no memory holds, and memory that did
run out.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor

Run = Callable[[Tensor], Any]
"""token ids [batch, position] -> a forward pass"""
Check = Callable[[Tensor], None]
"""Raises ValueError for token ids [batch, position] that the model cannot hold."""

_MATRICES = 2
"""Attention scores and their softmax are alive together if attention is materialised."""
_CPU_MEMORY = ("can't allocate memory", "not enough memory")
"""Words of torch's CPU allocator, in a RuntimeError, on Linux and on Windows."""


class DoesNotFit(ValueError):
    """A batch that memory cannot hold; a smaller one may fit."""


def no_longer_than(most: int | None, advice: str) -> Check:
    """Return a check that refuses prompts of more than `most` tokens; None: there is no limit."""

    def check(tokens: Tensor) -> None:
        if most is not None and tokens.shape[1] > most:
            raise ValueError(
                f"a prompt of {tokens.shape[1]:,} tokens does not fit this model, which holds "
                f"{most:,}: {advice}, or give a shorter one (--tokens {most})"
            )

    return check


def attention_fits(kind: str, heads: int, weight: Tensor) -> Check:
    """Return a check that refuses prompts whose attention alone exceeds the device's memory.

    Args:
        kind: hooked, bridge or native.
        heads: number of heads per block.
        weight: any parameter of the model, for its dtype and device.
    """
    other = "" if kind == "native" else "--backend native does not hold it, or "

    def check(tokens: Tensor) -> None:
        rows, length = tokens.shape
        needed = _MATRICES * rows * heads * length**2 * weight.element_size()
        available = memory_of(weight.device)
        if available is not None and needed > available:
            raise DoesNotFit(
                f"this {kind} model holds attention of every query on every key: {length:,} tokens "
                f"need {needed / 2**30:,.0f} GiB per block, and {weight.device} has "
                f"{available / 2**30:,.0f}; {other}give a shorter prompt (--tokens)"
            )

    return check


def memory_of(device: torch.device) -> int | None:
    """Return the bytes that a device has in all, used or not; None if that cannot be known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total if device.type == "cpu" else None


def free_memory(device: str) -> int:
    """Return the free bytes of a device."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


@contextmanager
def enough_memory(doing: str, backend: str) -> Generator[None]:
    """Turn an error about memory within the context into a ValueError that says what to change.

    Args:
        doing: what needed the memory, as in "loading the model".
        backend: hooked, bridge or native.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        other = "" if backend == "native" else "--backend native, which needs the least, or "
        raise DoesNotFit(
            f"memory ran out while {doing} ({first_line(error)}): take {other}--dtype bfloat16, "
            "shorter prompts (--tokens), or --device auto, which uses all there is"
        ) from error


def ran_out(error: BaseException) -> bool:
    """Return whether an error is about memory, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _CPU_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
