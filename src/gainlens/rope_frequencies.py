"""The frequencies of RoPE under each scaling that transformers knows.  numpy only.

A pair of dimensions i turns by theta^(-2i/rotary_dim) radians a token (Su et al. 2021, arXiv
2104.09864); what long-context models do to that is here, after transformers' modeling_rope_utils.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64


def rope_type(scaling: Mapping[str, Any]) -> str:
    """The kind of scaling, under its new name or its old one; `default` is none."""
    return scaling.get("rope_type") or scaling.get("type") or "default"


def scaled_frequencies(
    theta: float, scaling: Mapping[str, Any] | None, rotary_dim: int
) -> Float64[np.ndarray, " rank"]:
    """Radians a token of each rotated pair, as transformers initialises them (modeling_rope_utils).

    `dynamic` and `longrope` are taken within the original context, where they are plain and
    short_factor.  Raises ValueError for a rope_type that is not known or lacks a setting.
    """
    plain = theta ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)
    scaling = scaling or {}
    kind = rope_type(scaling)
    try:
        if kind in ("default", "dynamic", "mrope"):
            return plain
        if kind == "linear":
            return plain / scaling["factor"]
        if kind in ("longrope", "su"):
            return plain / np.asarray(scaling["short_factor"], dtype=np.float64)
        if kind == "llama3":
            return plain * _llama3_factor(plain, scaling)
        if kind == "yarn":
            return plain * _yarn_factor(theta, rotary_dim, scaling)
    except KeyError as missing:
        raise ValueError(
            f"rope_scaling of type {kind} needs {missing}; the config gives {dict(scaling)}"
        ) from missing
    raise ValueError(
        f"rope_type {kind!r} is not known; known are default, linear, dynamic, llama3, yarn and "
        "longrope: RoPE of this model cannot be checked"
    )


def _llama3_factor(plain: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
    """1 for pairs that turn often within the original context, 1/factor for those that do not."""
    turns = scaling["original_max_position_embeddings"] * plain / (2 * np.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep + (1 - keep) / scaling["factor"]


def _yarn_factor(theta: float, rotary_dim: int, scaling: Mapping[str, Any]) -> np.ndarray:
    """Peng et al. 2023 (arXiv 2309.00071), section 3.2: a ramp over the index of the pair."""

    def pair_with(turns: float) -> float:
        span = scaling["original_max_position_embeddings"] / (turns * 2 * np.pi)
        return rotary_dim * math.log(span) / (2 * math.log(theta))

    low = pair_with(float(scaling.get("beta_fast") or 32))
    high = pair_with(float(scaling.get("beta_slow") or 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    ramp = (np.arange(rotary_dim // 2) - low) / ((high - low) or 0.001)
    keep = 1 - np.clip(ramp, 0, 1)
    return keep + (1 - keep) / scaling["factor"]
