"""Split every log gain into attention's and the MLP's part.

Per block and token, x enters, attention adds a, the MLP adds m and y leaves; y = x + a + m up to
rounding.
"""

import numpy as np
from jaxtyping import Float64

from gainlens.core.vocabulary import HEAD_COLUMNS, Split
from gainlens.records.capture import Capture

_SERIES = 1e-4
"""Below this relative change the logarithmic mean comes from its series, which is exact to 1e-12
there: u / log1p(u) would be 0/0 at 0."""


Parts = tuple[Float64[np.ndarray, "block item"], Float64[np.ndarray, "block item"]]
"""Attention's and the MLP's part of log gains, nats; an item is a token, or a prompt."""


def log_mean(
    p: Float64[np.ndarray, "*shape"], q: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """Return the logarithmic mean (q - p) / ln(q / p) of positive numbers (Ang 2004)."""
    u = (q - p) / p
    small = np.abs(u) < _SERIES
    safe = np.where(small, 1.0, u)
    return p * np.where(small, 1 + u / 2 - u**2 / 12 + u**3 / 24, safe / np.log1p(safe))


def split_log_gain(capture: Capture, split: Split) -> Parts:
    """Return attention's and the MLP's part of every token's log gain, nats.

    Each split sums to the log gain up to the model's own rounding.  `logmean` is free of
    cancellation and stays finite if |x+m| vanishes.
    """
    if split == "logmean":
        weight = 2 * log_mean(capture.column("xx"), capture.column("yy"))
        attention, mlp = writes_onto_sum(capture)
        return attention / weight, mlp / weight
    x, xa, xm, y = (np.log(capture.column(name)) / 2 for name in ("xx", "xa_sq", "xm_sq", "yy"))
    return ordered_split(split, x, xa, xm, y)


def head_split(capture: Capture) -> Float64[np.ndarray, "block head token"]:
    """Return every head's part of every token's log gain, nats, under the logarithmic-mean split.

    Args:
        capture: from `capture(..., heads=True)`.

    Head h writes h: its part is <h, x+y> / 2L.  The heads sum to attention's part, less that of
    attention's bias b_O (GPT-2, GPT-NeoX).  Raises ValueError if the capture has no heads.

    Examples:
        >>> with_heads = gainlens.capture(loaded.model, prompts, heads=True)
        >>> parts = gainlens.head_split(with_heads)
        >>> parts.shape  # block head token; nats
        (8, 4, 35)
        >>> bool(abs(parts.sum(axis=1) - gains.attention).max() < 1e-5)
        True
    """
    if capture.heads is None:
        raise ValueError("this capture has no heads: make it with capture(..., heads=True)")
    weight = 2 * log_mean(capture.column("xx"), capture.column("yy"))
    on_x, on_y = (capture.heads[:, :, HEAD_COLUMNS.index(name)] for name in ("hx", "hy"))
    return (on_x + on_y) / weight[:, None, :]


def writes_onto_sum(
    capture: Capture,
) -> tuple[Float64[np.ndarray, "block token"], Float64[np.ndarray, "block token"]]:
    """Return <a, x+y> and <m, x+y>; their sum is |y|^2 - |x|^2."""
    xa, xm, am = (capture.column(name) for name in ("xa", "xm", "am"))
    return 2 * xa + capture.column("aa") + am, 2 * xm + capture.column("mm") + am


def ordered_split(
    split: Split, x: np.ndarray, xa: np.ndarray, xm: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Split by one order of adding (path) or the mean of both, from the logs of the four norms."""
    if split == "path":
        return xa - x, y - xa
    return ((xa - x) + (y - xm)) / 2, ((xm - x) + (y - xa)) / 2


def cosines(capture: Capture) -> dict[str, Float64[np.ndarray, "block token"]]:
    """Return cos(x, a), cos(x, m) and cos(x, y): a negative cosine means erasing.

    Args:
        capture: from `capture`.

    The keys are attention, mlp and block; each array is [block, token], and NaN if the component
    writes nothing.

    Examples:
        >>> sorted(gainlens.cosines(captured))
        ['attention', 'block', 'mlp']
    """
    xx, xa, xm = (capture.column(name) for name in ("xx", "xa", "xm"))
    with np.errstate(invalid="ignore", divide="ignore"):  # a component that writes nothing: NaN
        return {
            "attention": xa / np.sqrt(xx * capture.column("aa")),
            "mlp": xm / np.sqrt(xx * capture.column("mm")),
            "block": (xx + xa + xm) / np.sqrt(xx * capture.column("yy")),
        }
