"""Compare RoPE as the config states it with what the model's rotary buffers do.

The pair of dimensions i turns by f_i radians per token, f_i = theta^(-2i/rotary_dim) before
scaling.  Attention multiplies by the buffers, so theta is measured from them on every back end.  If
the config states another theta, that is an error.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
from jaxtyping import Float64
from torch import nn

from gainlens.core.formulas import theta_bound
from gainlens.models.config import rope_from_config, rope_type, rotary_dim_of
from gainlens.models.loaded import AnyModel, module_of
from gainlens.models.sites import config_of
from gainlens.records.weights import RopeReport
from gainlens.weights.rope_frequencies import KNOWN, scaled_frequencies

TOLERANCE = 0.01
"""Relative tolerance of theta and of each frequency.  bfloat16 buffers are off by up to 2^-8; the
bases that models are trained with differ by factors."""
_TABLE_ROWS = 2048
"""Number of positions read from a cos/sin table; more do not make the result more accurate."""
_LARGEST_LOG_THETA = 40.0


def inverse_frequencies(model: nn.Module) -> Float64[np.ndarray, " rank"] | None:
    """Return the radians per token of each rotated pair, after scaling, from the model's buffers.

    Reads `inv_freq` on Hugging Face models, also under a TransformerBridge, and the cos/sin tables
    of each block on HookedTransformer.  Leaves out sliding layers that have a base of their own.
    None if there is no buffer.  Raises ValueError if blocks disagree with one another.
    """
    first: tuple[str, Float64[np.ndarray, " rank"]] | None = None
    for name, frequencies in _buffers(model):
        if first is None:
            first = name, frequencies
        elif frequencies.shape != first[1].shape or not np.allclose(
            frequencies, first[1], rtol=TOLERANCE, atol=0
        ):
            raise ValueError(
                f"{name} turns its dimensions at other speeds than {first[0]}: the model has no "
                "single RoPE base; load it again, with no rotary buffer edited"
            )
    return None if first is None else first[1]


def measured_theta(
    inv_freq: Float64[np.ndarray, " rank"], scaling: Mapping[str, Any] | None
) -> float:
    """Return the base whose scaled frequencies fit `inv_freq` best, by regression of their logs.

    Without scaling this is the least-squares slope of ln f_i = -(2i / rotary_dim) ln theta.  With
    scaling it is the root in theta of the same normal equation, whose left side falls with theta
    for every known scaling.  Raises ValueError if the best base misses a pair by more than
    TOLERANCE.
    """
    rotary_dim = 2 * len(inv_freq)
    if rotary_dim < 4 or not (np.isfinite(inv_freq).all() and (inv_freq > 0).all()):
        raise ValueError(
            "a RoPE base can be measured from two or more finite positive frequencies, "
            f"and the model's rotary buffers give {inv_freq.tolist()}"
        )
    theta = _fit_theta(inv_freq, scaling)
    expected = scaled_frequencies(theta, scaling, rotary_dim)
    off = np.abs(np.log(inv_freq / expected))
    if off.max() > TOLERANCE:
        pair = int(off.argmax())
        raise ValueError(
            f"the model's rotary buffers fit no RoPE base under rope_scaling = {scaling}: the "
            f"nearest is {theta:.6g}, but pair {pair} turns once in "
            f"{2 * np.pi / inv_freq[pair]:.6g} tokens and that base says "
            f"{2 * np.pi / expected[pair]:.6g}; check that the loader read the config's "
            "rope_scaling, and that no buffer was edited"
        )
    return theta


def _fit_theta(inv_freq: np.ndarray, scaling: Mapping[str, Any] | None) -> float:
    """Solve sum_i i ln(f_i(theta) / f_i) = 0 for theta, by bisection on ln theta."""
    index = np.arange(len(inv_freq))
    low, high = 0.5, _LARGEST_LOG_THETA
    for _ in range(60):  # to float64 rounding
        middle = (low + high) / 2
        expected = scaled_frequencies(math.exp(middle), scaling, 2 * len(inv_freq))
        if index @ np.log(expected / inv_freq) > 0:
            low = middle
        else:
            high = middle
    return math.exp(low)


def rope_report(model: AnyModel | None, config: Any = None) -> RopeReport:
    """Report what a config states of RoPE beside what the model's rotary buffers do.

    Args:
        model: from `load` or `wrap`, or a bare model; None: the config alone.
        config: the Hugging Face config, or its plain dictionary; None: the model's own.

    Wavelengths are 2 pi / frequency after scaling, in tokens.  They are measured if the model has
    rotary buffers, and computed from the config if not.  Raises ValueError if no theta fits the
    buffers.

    Examples:
        >>> report = gainlens.rope_report(loaded)
        >>> round(report.measured_theta), report.rope_theta
        (10000, 10000.0)
    """
    config = config_of(model) if config is None and model is not None else config
    theta, scaling, context = rope_from_config(config)
    inv_freq = None if model is None else inverse_frequencies(module_of(model))
    known = rope_type(scaling) in KNOWN
    measured = None if inv_freq is None or not known else measured_theta(inv_freq, scaling)
    rotary_dim = rotary_dim_of(config)
    if inv_freq is not None:
        inv_freq = inv_freq[inv_freq > 0]  # under proportional RoPE some pairs do not turn
    if inv_freq is None and known and theta is not None and rotary_dim is not None:
        inv_freq = scaled_frequencies(theta, scaling, rotary_dim)
    wavelengths = np.empty(0) if inv_freq is None else 2 * np.pi / inv_freq
    return RopeReport(
        rope_theta=theta,
        rope_scaling=scaling,
        max_position=context,
        measured_theta=measured,
        wavelengths=wavelengths,
        beyond_context=_share_beyond(wavelengths, context),
        theta_bound=None if theta is None or context is None else theta_bound(context),
        note="" if known else f"theta is not measured under rope_type {rope_type(scaling)}",
    )


def _share_beyond(wavelengths: np.ndarray, context: int | None) -> float:
    if not len(wavelengths) or context is None:
        return math.nan
    return float(np.mean(wavelengths > context))


def check_theta(report: RopeReport, theta: float | None = None) -> None:
    """Raise ValueError if the base of the buffers is not `theta`, by default the config's."""
    expected = report.rope_theta if theta is None else theta
    measured = report.measured_theta
    if measured is None:
        return
    if expected is None:
        raise ValueError(
            f"the config names no rope_theta, but the model's rotary buffers turn with base "
            f"{measured:.6g}; pass the config object that the model was built from, or add "
            "rope_theta to config.json"
        )
    if abs(math.log(measured / expected)) > TOLERANCE:
        source = "the config says" if theta is None else "it was to be set to"
        raise ValueError(
            f"RoPE theta disagrees: {source} {expected:.6g}, and the model's rotary buffers turn "
            f"with base {measured:.6g}; the loader did not use that number (transformers 5 moved "
            "rope_theta into rope_parameters): correct config.json or load with another back end"
        )


def _buffers(model: nn.Module) -> Iterator[tuple[str, Float64[np.ndarray, " rank"]]]:
    """Frequencies of every module of the text model that rotates with full attention."""
    if hasattr(model, "get_decoder"):
        model = cast(Any, model).get_decoder()
    for name, module in model.named_modules():
        for buffer in ("full_attention_inv_freq", "inv_freq"):
            if getattr(module, buffer, None) is not None:
                yield name, _inv_freq(module, buffer)
                break
        if hasattr(module, "rotary_sin") and getattr(module, "attn_type", None) != "local":
            yield name, _table_frequencies(name, module)


def _array(tensor: Any) -> Float64[np.ndarray, "..."]:
    return tensor.detach().double().cpu().numpy()


def _inv_freq(module: Any, buffer: str) -> Float64[np.ndarray, " rank"]:
    """Return a buffer; if long prompts change it (dynamic, longrope), its first values."""
    kind = getattr(module, "rope_type", "default")
    if kind in ("dynamic", "longrope"):
        buffer = "original_inv_freq"
    return _array(getattr(module, buffer))


def _table_frequencies(name: str, module: Any) -> Float64[np.ndarray, " rank"]:
    """Fit speeds to cos and sin of every position [position, rotary_dim], by least squares.

    Each phase comes from the smaller of sin and cos, which is rounded relative to its size (arctan2
    of bfloat16 is biased where cos rounds to 1).  Phases are unwrapped: no pair turns by pi per
    token.
    """
    sin, cos = (_array(table[:_TABLE_ROWS]) for table in (module.rotary_sin, module.rotary_cos))
    pairs = slice(None, None, 2) if module.cfg.rotary_adjacent_pairs else slice(sin.shape[1] // 2)
    scale = cos[0, 0]  # YaRN multiplies both tables by its attention factor
    sin, cos = (np.clip(table[:, pairs] / scale, -1, 1) for table in (sin, cos))
    near_axis = np.where(cos >= 0, np.arcsin(sin), np.copysign(np.pi, sin) - np.arcsin(sin))
    phase = np.where(np.abs(sin) <= np.abs(cos), near_axis, np.copysign(np.arccos(cos), sin))
    phase = np.unwrap(phase, axis=0)
    position = np.arange(len(phase), dtype=np.float64)
    speed = position @ phase / (position @ position)
    if not np.abs(phase - np.outer(position, speed)).max() < 0.05:  # bfloat16 gives 0.004
        raise ValueError(
            f"the rotary_sin and rotary_cos of {name} are not turns of constant speed; "
            "load the model again, with no rotary buffer edited"
        )
    return speed
