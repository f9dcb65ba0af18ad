"""Define the reports on W_U and on RoPE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class UnembedReport:
    """Describe W_U = lm_head [d_vocab, d_model], the notebook's numbers first."""

    shape: tuple[int, int]
    vocab_size: int
    hidden_dim: int
    frobenius_norm: float
    spectral_norm: float
    mean_row_norm: float
    sigma_per_sqrt_vocab: float
    edge_ratio: float
    stable_rank: float
    effective_rank: float
    mean_row_cosine: float
    """|cos| of the top right singular vector with the mean row"""
    spectrum: Float64[np.ndarray, " rank"]
    """singular values, largest first"""
    centred_spectrum: Float64[np.ndarray, " rank"]
    """singular values of W_U minus its mean row, which softmax cannot see"""
    folded_spectrum: Float64[np.ndarray, " rank"]
    """singular values of W_U with ln_final's weight folded in, for a LayerNorm without the mean"""
    subspace_rank: int
    """k, the rank of the visible and of the null subspace"""
    tied: bool
    """whether lm_head shares the embedding's weights"""


@dataclass(frozen=True)
class RopeReport:
    """Describe RoPE as the config says it and as the model's rotary buffers show it."""

    rope_theta: float | None
    """None if the model has no RoPE"""
    rope_scaling: Mapping[str, Any] | None
    max_position: int | None
    measured_theta: float | None
    """base recovered from the rotary buffers"""
    wavelengths: Float64[np.ndarray, " rank"]
    """tokens per turn of each rotated pair of dimensions, after scaling"""
    beyond_context: float
    """fraction of rotated dimensions whose wavelength exceeds max_position"""
    theta_bound: float | None
    """lower bound 0.0424 c^1.628 on theta for context c (Men et al. 2024, arXiv 2405.14591)"""
    note: str = ""
    """why something of this is not known; empty if nothing is missing"""
