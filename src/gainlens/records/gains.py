"""TODO: records.gains."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gainlens.core.vocabulary import ClassSelection, Reduction, Split


@dataclass(frozen=True)
class Decomposition:
    """Log gain of every block on every token, split into components, in nats."""

    split: Split
    log_gain: Float64[np.ndarray, "layer token"]
    attention: Float64[np.ndarray, "layer token"]
    mlp: Float64[np.ndarray, "layer token"]
    remainder: Float64[np.ndarray, "layer token"]
    """log_gain - attention - mlp: rounding of the model's own additions"""
    final_norm: Float64[np.ndarray, " token"]
    """ln(|ln_final(y)| / |y|) after the last block"""
    norm_in: Float64[np.ndarray, "layer token"]
    """|resid_pre|, L2 norm"""
    norm_out: Float64[np.ndarray, "layer token"]
    """|resid_post|, L2 norm"""
    prompt: Int64[np.ndarray, " token"]
    position: Int64[np.ndarray, " token"]
    is_bos: Bool[np.ndarray, " token"]
    """position 0, BOS token or not"""
    is_massive: Bool[np.ndarray, " token"]
    """massive and not position 0"""

    @property
    def is_ordinary(self) -> Bool[np.ndarray, " token"]:
        return ~(self.is_bos | self.is_massive)

    def tokens_of(self, selection: ClassSelection) -> Bool[np.ndarray, " token"]:
        """Mask of the tokens of a class; `all` is every token."""
        if selection == "all":
            return np.ones_like(self.is_bos)
        return {"bos": self.is_bos, "massive": self.is_massive, "ordinary": self.is_ordinary}[
            selection
        ]


@dataclass(frozen=True)
class PromptGains:
    """One log gain a prompt and block, with its parts, under one class and reduction; nats."""

    selection: ClassSelection
    reduction: Reduction
    log_gain: Float64[np.ndarray, "layer prompt"]
    """NaN where a prompt has no token of the class"""
    attention: Float64[np.ndarray, "layer prompt"]
    mlp: Float64[np.ndarray, "layer prompt"]
    remainder: Float64[np.ndarray, "layer prompt"]


@dataclass(frozen=True)
class BlockGain:
    """One block under the primary estimand."""

    layer: int
    log_gain: float
    """nats, unweighted mean over prompts"""
    attention: float
    mlp: float
    remainder: float
    gain: float
    """exp(log_gain)"""
    low: float
    """of the simultaneous band over blocks, as a ratio"""
    high: float


@dataclass(frozen=True)
class MassiveToken:
    """The life of one massive token (or of position 0)."""

    prompt: int
    position: int
    token_id: int
    text: str
    written_by: int | None
    """block that raises it most above the ordinary tokens, None if it enters massive"""
    written_component: str | None
    """attention or mlp, by the larger logmean part of that block"""
    erased_by: int | None
    """first block after which its norm is below half of its highest, None if there is none"""
    erased_component: str | None
    plateau: float
    """median L2 norm between the two"""
    dims: tuple[int, ...]
    """dimensions of d_model that carry it, largest first"""
