"""What a back end cannot hold, refused in one sentence that says which setting to change.

A prompt beyond a model's positions, attention that no memory holds, and memory that did run out.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Any]
"""token ids [batch, position] -> a forward pass"""
Check = Callable[[Tensor], None]
"""token ids [batch, position] -> ValueError, or nothing"""

_MATRICES = 2
"""Attention scores and their softmax are alive together where attention is materialised."""
_CPU_MEMORY = ("can't allocate memory", "not enough memory")
"""How torch's CPU allocator says it, in a RuntimeError, on Linux and on Windows."""


def guarded(run: Run, kind: str, *checks: Check) -> Run:
    """`run` behind checks of its tokens, and with a sentence where its memory runs out.

    kind: hooked, bridge or native.
    """

    def checked(tokens: Tensor) -> Any:
        for check in checks:
            check(tokens)
        with enough_memory(f"running {tokens.shape[0]} x {tokens.shape[1]:,} tokens", kind):
            return run(tokens)

    return checked


def no_longer_than(most: int | None, advice: str) -> Check:
    """Refuses a prompt of more than `most` tokens, with that advice; None: there is no limit."""

    def check(tokens: Tensor) -> None:
        if most is not None and tokens.shape[1] > most:
            raise ValueError(
                f"a prompt of {tokens.shape[1]:,} tokens does not fit this model, which holds "
                f"{most:,}: {advice}, or give a shorter one (--tokens {most})"
            )

    return check


def attention_fits(kind: str, heads: int, weight: Tensor) -> Check:
    """Refuses a prompt whose materialised attention alone is beyond the device's memory.

    heads: of one block; weight: any parameter of the model, for its dtype and device.
    """
    other = "" if kind == "native" else "--backend native does not hold it, or "

    def check(tokens: Tensor) -> None:
        rows, length = tokens.shape
        needed = _MATRICES * rows * heads * length**2 * weight.element_size()
        there = memory_of(weight.device)
        if there is not None and needed > there:
            raise ValueError(
                f"this {kind} model holds attention of every query on every key: {length:,} tokens "
                f"need {needed / 2**30:,.0f} GiB a block, and {weight.device} has "
                f"{there / 2**30:,.0f}; {other}give a shorter prompt (--tokens)"
            )

    return check


def memory_of(device: torch.device) -> int | None:
    """Bytes that the device has in all, used or not; None where it cannot be known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu" and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


@contextmanager
def enough_memory(doing: str, backend: str) -> Generator[None]:
    """Memory that runs out within the context becomes a ValueError that says what to change.

    doing: what needed it, as in "loading it"; backend: hooked, bridge or native.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        other = "" if backend == "native" else "--backend native, which needs the least, or "
        raise ValueError(
            f"memory ran out while {doing} ({first_line(error)}): take {other}--dtype bfloat16, "
            "shorter prompts (--tokens), or --device auto, which uses all there is"
        ) from error


def ran_out(error: BaseException) -> bool:
    """Whether memory is what an error is about, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _CPU_MEMORY)


def first_line(error: BaseException) -> str:
    """What an error says, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
