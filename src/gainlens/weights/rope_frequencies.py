"""Compute the frequencies of RoPE under each scaling, with numpy alone.

The pair of dimensions i turns by theta^(-2i/rotary_dim) radians per token (Su et al. 2021, arXiv
2104.09864).  Long-context models scale that; the formulas follow transformers' modeling_rope_utils.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from gainlens.models.config import positive, rope_type, setting

KNOWN: Final = ("default", "linear", "dynamic", "mrope", "llama3", "yarn", "longrope", "su")
"""Kinds of scaling whose frequencies are computed here."""


def scaled_frequencies(
    theta: float, scaling: Mapping[str, Any] | None, rotary_dim: int
) -> Float64[np.ndarray, " rank"]:
    """Return radians per token of each rotated pair, as transformers initialises them.

    `dynamic` and `longrope` depend on the prompt's length; these are those within the original
    context.  Raises ValueError for a rope_type that is not known or lacks a setting.
    """
    plain = theta ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)
    scaling = scaling or {}
    kind = rope_type(scaling)
    try:
        if kind == "dynamic" and scaling.get("alpha"):
            # HunYuan: base theta alpha^(d / (d - 2)) at every length
            pair = np.arange(0, rotary_dim, 2, dtype=np.float64)
            return plain * setting(scaling, "alpha") ** (-pair / (rotary_dim - 2))
        if kind in ("default", "dynamic", "mrope"):
            return plain
        if kind == "linear":
            return plain / positive("factor", scaling["factor"])
        if kind in ("longrope", "su"):
            return plain / _factors(scaling["short_factor"], len(plain))
        if kind == "llama3":
            return plain * _llama3_factor(plain, scaling)
        if kind == "yarn":
            return plain * _yarn_factor(theta, rotary_dim, scaling)
    except KeyError as missing:
        raise ValueError(
            f"rope_scaling of type {kind} needs {missing}; the config gives {dict(scaling)}"
        ) from missing
    raise ValueError(
        f"rope_type {kind!r} is not known; known are {', '.join(KNOWN)}: RoPE of this model cannot "
        "be checked"
    )


def _factors(values: object, pairs: int) -> Float64[np.ndarray, " rank"]:
    given = values if isinstance(values, list | tuple) else [values]
    if len(given) not in (1, pairs):
        raise ValueError(
            f"the config gives {len(given)} values of short_factor and the model turns {pairs} "
            "pairs of dimensions: as many are needed; correct config.json"
        )
    return np.array([positive("short_factor", value) for value in given])


def _llama3_factor(plain: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
    """Return 1 for pairs that turn often within the original context, 1/factor for the others."""
    turns = setting(scaling, "original_max_position_embeddings") * plain / (2 * np.pi)
    low, high = setting(scaling, "low_freq_factor"), setting(scaling, "high_freq_factor")
    if not low < high:
        raise ValueError(
            f"the config gives low_freq_factor = {low:g} and high_freq_factor = {high:g}: the "
            "second must be the larger; correct config.json"
        )
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep + (1 - keep) / setting(scaling, "factor")


def _yarn_factor(theta: float, rotary_dim: int, scaling: Mapping[str, Any]) -> np.ndarray:
    """Return YaRN's ramp over the index of the pair (Peng et al. 2023, arXiv 2309.00071, 3.2)."""
    original = setting(scaling, "original_max_position_embeddings")

    def pair_with(turns: float) -> float:
        span = original / (turns * 2 * np.pi)
        return rotary_dim * math.log(span) / (2 * math.log(theta))

    low = pair_with(positive("beta_fast", scaling.get("beta_fast") or 32))
    high = pair_with(positive("beta_slow", scaling.get("beta_slow") or 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    ramp = (np.arange(rotary_dim // 2) - low) / ((high - low) or 0.001)
    keep = 1 - np.clip(ramp, 0, 1)
    return keep + (1 - keep) / setting(scaling, "factor")
