"""List the metrics that ship with gainlens, each a formula on the captured columns.

A function's docstring is the metric's definition: x enters a block, attention writes a, the MLP
writes m, y leaves.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gainlens.metrics.metric import Metric, Over

_SINK = 0.3
"""A head is a sink if its attention on position 0 is above this (Gu et al. 2024, section 3)."""
_FLOAT16_MAX = 65_504.0
_DIVISIA = "additive logarithmic-mean Divisia index, Ang 2004"
_DEPTH = "arXiv 2505.13898"
_GU = "Gu et al. 2024, arXiv 2410.10781; arXiv 2504.02732"
_FIRST = "no token comes before position 0, so it is not predicted"
_SILENT = "the component writes nothing"

BUILT_IN: dict[str, Metric] = {}


def _built_in(
    unit: str,
    neutral: float | None,
    source: str = "",
    over: Over = "block token",
    undefined: str = "",
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Add a function to BUILT_IN; see Metric for the arguments."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        name, definition = function.__name__, (function.__doc__ or "").rstrip(".")
        BUILT_IN[name] = Metric(name, definition, unit, neutral, source, function, over, undefined)
        return function

    return add


@_built_in("nats", 0.0)
def log_gain(log_gain: np.ndarray) -> np.ndarray:
    """ln(|y|/|x|)."""
    return log_gain


@_built_in("nats", 0.0, _DIVISIA)
def attention(attention: np.ndarray) -> np.ndarray:
    """attention's part of the log gain, <a, x+y> / 2L unless another split was asked for."""
    return attention


@_built_in("nats", 0.0, _DIVISIA)
def mlp(mlp: np.ndarray) -> np.ndarray:
    """the MLP's part of the log gain, <m, x+y> / 2L unless another split was asked for."""
    return mlp


@_built_in("nats", 0.0, over="token")
def final_norm(final_norm: np.ndarray) -> np.ndarray:
    """ln(|ln_final(y)|/|y|) after the last block."""
    return final_norm


@_built_in("half turns", 0.0, "arXiv 2403.17887; arXiv 2601.18302")
def angle(xx: np.ndarray, xa: np.ndarray, xm: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """arccos(cos(x, y)) / pi."""
    return np.arccos(_cosine(xx + xa + xm, xx, yy)) / np.pi


@_built_in("1", 0.0, "ShortGPT, arXiv 2403.03853")
def influence(xx: np.ndarray, xa: np.ndarray, xm: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """1 - cos(x, y)."""
    return 1.0 - _cosine(xx + xa + xm, xx, yy)


@_built_in("ratio", 0.0, _DEPTH)
def attention_write(aa: np.ndarray, xx: np.ndarray) -> np.ndarray:
    """|a|/|x|."""
    return np.sqrt(aa / xx)


@_built_in("ratio", 0.0, _DEPTH, undefined="attention leaves a stream of norm 0")
def mlp_write(mm: np.ndarray, xa_sq: np.ndarray, xx: np.ndarray, parallel: bool) -> np.ndarray:
    """|m|/|x+a| in a sequential block, |m|/|x| in a parallel one."""
    enters = xx if parallel else np.where(xa_sq > 0, xa_sq, np.nan)
    return np.sqrt(mm / enters)


@_built_in("ratio", 0.0, _DEPTH)
def write(aa: np.ndarray, mm: np.ndarray, am: np.ndarray, xx: np.ndarray) -> np.ndarray:
    """|a+m|/|x|."""
    return np.sqrt(np.maximum(aa + mm + 2 * am, 0.0) / xx)  # rounding may reach below 0


@_built_in("1", 0.0, "massive activations, arXiv 2402.17762", undefined=_SILENT)
def attention_cosine(xa: np.ndarray, xx: np.ndarray, aa: np.ndarray) -> np.ndarray:
    """cos(x, a): negative if attention erases."""
    return _cosine(xa, xx, aa)


@_built_in("1", 0.0, "massive activations, arXiv 2402.17762", undefined=_SILENT)
def mlp_cosine(xm: np.ndarray, xx: np.ndarray, mm: np.ndarray) -> np.ndarray:
    """cos(x, m): negative if the MLP erases."""
    return _cosine(xm, xx, mm)


@_built_in("model units", None)
def norm(norm_out: np.ndarray) -> np.ndarray:
    """|y|."""
    return norm_out


@_built_in("model units", None)
def max_component(top_value: np.ndarray) -> np.ndarray:
    """largest |component| of y."""
    return np.abs(top_value[..., 0]).astype(np.float64)


@_built_in("bits", None)
def headroom(top_value: np.ndarray) -> np.ndarray:
    """log2(65,504 / max_component): doublings of the stream until float16 overflows."""
    return np.log2(_FLOAT16_MAX / max_component(top_value))


@_built_in("share", None, _GU, "block head prompt", undefined="the prompt has one token")
def sink(sink: np.ndarray) -> np.ndarray:
    """mean attention weight on position 0 over queries after the first, per head."""
    return sink


@_built_in("share", None, _GU, "block prompt", undefined="the prompt has one token")
def sink_share(sink: np.ndarray) -> np.ndarray:
    """share of heads whose mean attention weight on position 0 is above 0.3."""
    return np.where(np.isnan(sink).any(axis=1), np.nan, (sink > _SINK).mean(axis=1))


@_built_in(
    "share", None, "after Stolfo et al. 2024, arXiv 2406.16254", "token",
    undefined="the block writes nothing",
)  # fmt: skip
def visible(visible: np.ndarray, aa: np.ndarray, mm: np.ndarray) -> np.ndarray:
    """share of the last block's squared writes in W_U's top-k subspace; chance is k/d_model."""
    squared = np.stack([aa[-1], mm[-1]])
    total = squared.sum(axis=0)
    inside = np.where(squared > 0, visible * squared, 0.0).sum(axis=0)  # 0 times NaN: no write
    return inside / np.where(total > 0, total, np.nan)


@_built_in("nats per token", None, over="token", undefined=_FIRST)
def loss(token_loss: np.ndarray) -> np.ndarray:
    """-ln p(token), predicted from the tokens before it; belongs to the token that is predicted."""
    return token_loss


@_built_in("nats per token", 0.0, f"ShortGPT, arXiv 2403.03853; {_DEPTH}", undefined=_FIRST)
def skip_loss(skip_loss: np.ndarray) -> np.ndarray:
    """loss with the block's writes left out (y = x) minus the loss of the whole model."""
    return skip_loss


def _cosine(product: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return <u, v> / |u||v| from <u, v>, |u|^2 and |v|^2; NaN if a norm is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(product / np.sqrt(left * right), -1.0, 1.0)
