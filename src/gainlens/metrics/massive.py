"""Massive activations: which block writes them, which erases them, and with which component."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from gainlens.core.vocabulary import COMPONENTS
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition, MassiveToken


def massive_tokens(capture: Capture, ratio: float = 10.0) -> Bool[np.ndarray, " token"]:
    """Tokens, position 0 left out, that are massive at some block's input.

    A token is massive where its norm is at least `ratio` times the median over the prompt's tokens
    but the first.  One answer a token, not a block: what the last block erases was still massive.
    """
    norms = np.sqrt(capture.column("xx"))
    massive = np.zeros(len(capture.prompt), dtype=bool)
    for tokens in prompt_slices(capture.prompt):
        later = slice(tokens.start + 1, tokens.stop)
        if later.start < later.stop:
            within = norms[:, later]
            median = np.median(within, axis=1, keepdims=True)
            massive[later] = (within >= ratio * median).any(axis=0)
    return massive


def prompt_slices(prompt: np.ndarray) -> list[slice]:
    """Where each prompt's tokens stand on the token axis."""
    starts = np.flatnonzero(np.diff(prompt, prepend=-1))
    return [
        slice(int(start), int(stop))
        for start, stop in zip(starts, [*starts[1:], len(prompt)], strict=True)
    ]


_CARRIER = 0.05
"""A dimension carries a token where it holds this share of the squared norm."""
_ERASED = 0.5
"""A token is erased where its norm is below this share of the highest so far."""


def _stream_norms(decomposition: Decomposition) -> Float64[np.ndarray, "state token"]:
    """Norm of every block's input, then of the last block's output: num_layers + 1 states."""
    return np.concatenate([decomposition.norm_in, decomposition.norm_out[-1:]])


def massive_states(
    decomposition: Decomposition, ratio: float = 10.0
) -> Bool[np.ndarray, "state token"]:
    """Where each token's norm is at least `ratio` times its prompt's median (position 0 apart).

    State l is the input of block l, the last state the output of the last block.  Prompts of one
    token have no median: False.
    """
    norms = _stream_norms(decomposition)
    massive = np.zeros(norms.shape, dtype=bool)
    for tokens in prompt_slices(decomposition.prompt):
        later = norms[:, tokens.start + 1 : tokens.stop]
        if later.shape[1]:
            massive[:, tokens] = norms[:, tokens] >= ratio * np.median(later, axis=1, keepdims=True)
    return massive


def massive_lifecycle(
    decomposition: Decomposition,
    texts: Sequence[str],
    ratio: float = 10.0,
) -> tuple[MassiveToken, ...]:
    """The life of every massive token, position 0 included where it is massive.

    Args:
        decomposition: from `decompose`.
        texts: the token's text, one a token, for reading.
        ratio: massive from this many times the median norm at some block's input.

    The block that writes is the one, up to where the token first is massive, whose log gain
    exceeds the ordinary tokens' most; the block
    that erases is the first after whose output the norm is below half of the highest so far: that
    the others grow past a tenth of it is no erasing.  The component is the one with the larger
    (smaller) part of that block's log gain.  Position 0 attends only to itself, so of prompts that
    begin with the same token only the first is listed.
    """
    capture = decomposition.capture
    states = massive_states(decomposition, ratio)
    ordinary = np.median(decomposition.log_gain[:, decomposition.is_ordinary], axis=1)
    seen_first: set[int] = set()
    lives: list[MassiveToken] = []
    for token in np.flatnonzero(states[:-1].any(axis=0)).tolist():
        if capture.position[token] == 0:
            if int(capture.token_id[token]) in seen_first:
                continue
            seen_first.add(int(capture.token_id[token]))
        first = int(np.argmax(states[:, token]))
        lives.append(_life(decomposition, ordinary, first, token, texts[token]))
    return tuple(lives)


def _life(
    decomposition: Decomposition,
    ordinary: np.ndarray,
    first: int,
    token: int,
    text: str,
) -> MassiveToken:
    """ordinary: the ordinary tokens' log gain, one a block; first: the first state (input of that
    block) in which the token is massive."""
    capture = decomposition.capture
    norms = np.append(decomposition.norm_in[:, token], decomposition.norm_out[-1, token])
    fallen = np.flatnonzero(norms[first:] < _ERASED * np.maximum.accumulate(norms[first:]))
    stop = first + int(fallen[0]) if len(fallen) else len(norms)
    excess = decomposition.log_gain[:first, token] - ordinary[:first]
    written = int(np.argmax(excess)) if first else None
    erased = stop - 1 if stop < len(norms) else None
    parts = np.stack([decomposition.attention[:, token], decomposition.mlp[:, token]])
    start = first if written is None else written + 1
    middle = max((first + stop) // 2 - 1, 0)
    share = np.square(capture.top_value[middle, token] / decomposition.norm_out[middle, token])
    return MassiveToken(
        prompt=int(capture.prompt[token]),
        position=int(capture.position[token]),
        token_id=int(capture.token_id[token]),
        text=text,
        written_by=written,
        written_component=None if written is None else COMPONENTS[int(parts[:, written].argmax())],
        erased_by=erased,
        erased_component=None if erased is None else COMPONENTS[int(parts[:, erased].argmin())],
        plateau=float(np.median(norms[start:stop])),
        dims=tuple(int(dim) for dim in capture.top_index[middle, token][share >= _CARRIER]),
    )
