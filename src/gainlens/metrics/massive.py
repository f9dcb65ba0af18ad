"""Find massive tokens and their massive activations, and which blocks write and erase them.

A state is the residual stream between two blocks: state l enters block l, the last state leaves the
last block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from gainlens.core.vocabulary import COMPONENTS
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition, MassiveToken

MASSIVE_RATIO = 10.0
"""A token is massive from this many times the median norm."""
_CARRIER = 0.05
"""A dimension carries a token if it holds at least this share of the squared norm."""
_ERASED = 0.5
"""A token is erased if its norm falls below this share of its highest norm so far."""


def massive_states(
    norms: Float64[np.ndarray, "state token"],
    prompt: Int64[np.ndarray, " token"],
    ratio: float = MASSIVE_RATIO,
    prefix: int = 1,
) -> Bool[np.ndarray, "state token"]:
    """Return a mask of the states whose norm is at least `ratio` times their prompt's median.

    The median is over the tokens after the `prefix` that begins every prompt alike.  A prompt that
    has no other tokens is False throughout; tokens of the prefix may be True.
    """
    massive = np.zeros(norms.shape, dtype=bool)
    for tokens in prompt_slices(prompt):
        later = norms[:, tokens.start + prefix : tokens.stop]
        if later.shape[1]:
            massive[:, tokens] = norms[:, tokens] >= ratio * np.median(later, axis=1, keepdims=True)
    return massive


def massive_tokens(capture: Capture, ratio: float = MASSIVE_RATIO) -> Bool[np.ndarray, " token"]:
    """Return the mask of tokens that are massive at some block's input, the prefix left out.

    A token has one class for all blocks: one that the last block erases is still massive.
    """
    norms = np.sqrt(capture.column("xx"))
    states = massive_states(norms, capture.prompt, ratio, capture.prefix)
    return states.any(axis=0) & (capture.position >= capture.prefix)


def prompt_slices(prompt: Int64[np.ndarray, " token"]) -> list[slice]:
    """Return the slice of the token axis that each prompt takes."""
    starts = np.flatnonzero(np.diff(prompt, prepend=-1))
    return [
        slice(int(start), int(stop))
        for start, stop in zip(starts, [*starts[1:], len(prompt)], strict=True)
    ]


@dataclass(frozen=True)
class MassiveEntry:
    """Describe one massive activation, a component of the stream at one block's output."""

    block: int
    """the token is massive after this block"""
    prompt: int
    position: int
    dim: int
    value: float


def massive_entries(
    decomposition: Decomposition, ratio: float = MASSIVE_RATIO
) -> tuple[MassiveEntry, ...]:
    """Return every massive activation, position 0 included, at the block that makes it massive.

    A token that enters block 0 massive is listed at block 0's output.  The dimensions are those
    that carry the token there: at least 5 % of its squared norm.
    """
    capture = decomposition.capture
    states = massive_states(decomposition.norm_in, capture.prompt, ratio, capture.prefix)
    entries: list[MassiveEntry] = []
    for token in np.flatnonzero(states.any(axis=0)).tolist():
        block = max(int(np.argmax(states[:, token])) - 1, 0)
        prompt, position = int(capture.prompt[token]), int(capture.position[token])
        entries += [
            MassiveEntry(block, prompt, position, int(dim), float(value))
            for dim, value in zip(*_carriers(decomposition, block, token), strict=True)
        ]
    return tuple(entries)


def _carriers(
    decomposition: Decomposition, block: int, token: int
) -> tuple[Int64[np.ndarray, " rank"], Float[np.ndarray, " rank"]]:
    """Return the dimensions that carry a token at a block's output, and their values."""
    capture = decomposition.capture
    values = capture.top_value[block, token].astype(np.float64)
    carries = np.square(values / decomposition.norm_out[block, token]) >= _CARRIER
    return capture.top_index[block, token][carries].astype(np.int64), values[carries]


def massive_lifecycle(
    decomposition: Decomposition, texts: Sequence[str], ratio: float = MASSIVE_RATIO
) -> tuple[MassiveToken, ...]:
    """Follow every massive token, position 0 included, from the block that writes it to its end.

    Args:
        decomposition: from `decompose`.
        texts: every token's text.
        ratio: massive from this many times the median norm at some block's input.

    The writer is, of the blocks before the token is first massive, the one whose log gain exceeds
    the ordinary tokens' median most.  The eraser is the first block after which the norm is below
    half of its highest so far; if only the other tokens grow, nothing is erased.  The component is
    the one with the larger part of the writer's log gain, or the smaller part of the eraser's.
    Tokens that begin every prompt alike have the same numbers in each prompt, so they are listed
    once; likewise position 0 of prompts that begin with the same token.
    """
    capture = decomposition.capture
    norms = np.concatenate([decomposition.norm_in, decomposition.norm_out[-1:]])
    states = massive_states(norms, capture.prompt, ratio, capture.prefix)
    ordinary = np.median(decomposition.log_gain[:, decomposition.is_ordinary], axis=1)
    listed_starts: set[tuple[int, int]] = set()
    lives: list[MassiveToken] = []
    for token in np.flatnonzero(states[:-1].any(axis=0)).tolist():
        if capture.position[token] < capture.prefix:
            start = int(capture.position[token]), int(capture.token_id[token])
            if start in listed_starts:
                continue
            listed_starts.add(start)
        first = int(np.argmax(states[:, token]))
        lives.append(_life(decomposition, norms[:, token], ordinary, first, token, texts[token]))
    return tuple(lives)


def _life(
    decomposition: Decomposition,
    norms: Float64[np.ndarray, " state"],
    ordinary: Float64[np.ndarray, " block"],
    first: int,
    token: int,
    text: str,
) -> MassiveToken:
    """Follow one token whose state `first` is the first massive one.

    norms: of the token; ordinary: median log gain of the ordinary tokens.
    """
    capture = decomposition.capture
    fallen = np.flatnonzero(norms[first:] < _ERASED * np.maximum.accumulate(norms[first:]))
    stop = first + int(fallen[0]) if len(fallen) else len(norms)
    excess = decomposition.log_gain[:first, token] - ordinary[:first]
    writer = int(np.argmax(excess)) if first else None
    eraser = stop - 1 if stop < len(norms) else None
    parts = np.stack([decomposition.attention[:, token], decomposition.mlp[:, token]])
    start = first if writer is None else writer + 1
    middle = max((first + stop) // 2 - 1, 0)
    return MassiveToken(
        prompt=int(capture.prompt[token]),
        position=int(capture.position[token]),
        token_id=int(capture.token_id[token]),
        text=text,
        written_by=writer,
        written_component=None if writer is None else COMPONENTS[int(parts[:, writer].argmax())],
        erased_by=eraser,
        erased_component=None if eraser is None else COMPONENTS[int(parts[:, eraser].argmin())],
        plateau=float(np.median(norms[start:stop])),
        dims=tuple(int(dim) for dim in _carriers(decomposition, middle, token)[0]),
    )
