"""Massive activations: which block writes them, which erases them, and with which component."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from gainlens.gain import prompt_slices
from gainlens.records import Capture, Decomposition, MassiveToken

_CARRIER = 0.05
"""A dimension carries a token where it holds this share of the squared norm."""


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
    capture: Capture,
    decomposition: Decomposition,
    texts: Sequence[str],
    ratio: float = 10.0,
) -> tuple[MassiveToken, ...]:
    """The life of every massive token, position 0 included where it is massive.

    texts: the token's text, one a token, for reading.  Position 0 attends only to itself, so of
    prompts that begin with the same token only the first is listed.  The component that writes
    (erases) is the one with the larger (smaller) part of that block's log gain.
    """
    states = massive_states(decomposition, ratio)
    seen_first: set[int] = set()
    lives: list[MassiveToken] = []
    for token in np.flatnonzero(states[:-1].any(axis=0)).tolist():
        if capture.position[token] == 0:
            if int(capture.token_id[token]) in seen_first:
                continue
            seen_first.add(int(capture.token_id[token]))
        lives.append(_life(capture, decomposition, states[:, token], token, texts[token]))
    return tuple(lives)


def _life(
    capture: Capture, decomposition: Decomposition, massive: np.ndarray, token: int, text: str
) -> MassiveToken:
    start = int(np.argmax(massive))
    after = np.flatnonzero(~massive[start:])
    stop = start + int(after[0]) if len(after) else len(massive)
    written = start - 1 if start else None
    erased = stop - 1 if stop < len(massive) else None
    parts = np.stack([decomposition.attention[:, token], decomposition.mlp[:, token]])
    names = ("attention", "mlp")
    middle = max((start + stop) // 2 - 1, start - 1, 0)
    share = capture.top_value[middle, token] ** 2 / capture.column("yy")[middle, token]
    return MassiveToken(
        prompt=int(capture.prompt[token]),
        position=int(capture.position[token]),
        token_id=int(capture.token_id[token]),
        text=text,
        written_by=written,
        written_component=None if written is None else names[int(np.argmax(parts[:, written]))],
        erased_by=erased,
        erased_component=None if erased is None else names[int(np.argmin(parts[:, erased]))],
        plateau=float(np.median(_stream_norms(decomposition)[start:stop, token])),
        dims=tuple(int(dim) for dim in capture.top_index[middle, token][share >= _CARRIER]),
    )
