"""Compute the log gain of every block on every token, with its split and the token classes."""

import numpy as np

from gainlens.core.messages import check_one_of
from gainlens.core.vocabulary import SPLITS, Split
from gainlens.metrics.massive import massive_tokens
from gainlens.metrics.splits import split_log_gain
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition


def decompose(
    capture: Capture, *, split: Split = "logmean", massive_ratio: float = 10.0
) -> Decomposition:
    """Split every block's log gain on every token into attention, MLP and remainder, in nats.

    Args:
        capture: from `capture`.
        split: logmean, shapley or path; each sums to the log gain.
        massive_ratio: a token is massive from this many times the median norm at some block.

    Raises ValueError if a stream has norm 0 or is not finite, because such a token has no gain, and
    for an unknown split.

    Examples:
        >>> gains = gainlens.decompose(captured)
        >>> gains.log_gain.shape  # block token; nats
        (8, 35)
        >>> parts = gains.attention + gains.mlp + gains.remainder
        >>> bool(abs(parts - gains.log_gain).max() < 1e-12)
        True
    """
    check_one_of("split", split, SPLITS)
    xx, yy = capture.column("xx"), capture.column("yy")
    bad = ~(np.isfinite(capture.gram).all(axis=0) & (xx > 0) & (yy > 0))
    if bad.any():
        block, token = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"block {block} has a residual stream of norm 0 or not finite at position "
            f"{capture.position[token]} of prompt {capture.prompt[token]}, so it has no gain "
            f"(|x|^2 = {xx[block, token]:g}, |y|^2 = {yy[block, token]:g}); "
            "measure in float32 or bfloat16, or leave that prompt out"
        )
    log_gain = np.log(yy / xx) / 2
    attention, mlp = split_log_gain(capture, split)
    norm_out = np.sqrt(yy)
    return Decomposition(
        capture=capture,
        split=split,
        log_gain=log_gain,
        attention=attention,
        mlp=mlp,
        remainder=log_gain - attention - mlp,
        final_norm=np.log(capture.normed / norm_out[-1]),
        norm_in=np.sqrt(xx),
        norm_out=norm_out,
        is_bos=capture.position < capture.prefix,
        is_massive=massive_tokens(capture, massive_ratio),
    )
