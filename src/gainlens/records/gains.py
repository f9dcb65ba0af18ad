"""Define gains: per token and block, per prompt and block, per block; and massive tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gainlens.core.vocabulary import Reduction, Split, TokenClass
from gainlens.records.capture import Capture


@dataclass(frozen=True)
class Decomposition:
    """Hold the log gain of every block on every token and its parts, in nats."""

    capture: Capture
    """the inner products that the numbers come from"""
    split: Split
    log_gain: Float64[np.ndarray, "block token"]
    attention: Float64[np.ndarray, "block token"]
    mlp: Float64[np.ndarray, "block token"]
    remainder: Float64[np.ndarray, "block token"]
    """log_gain - attention - mlp, the rounding of the model's own additions"""
    final_norm: Float64[np.ndarray, " token"]
    """ln(|ln_final(y)| / |y|) after the last block"""
    norm_in: Float64[np.ndarray, "block token"]
    """|resid_pre|, L2 norm"""
    norm_out: Float64[np.ndarray, "block token"]
    """|resid_post|, L2 norm"""
    is_bos: Bool[np.ndarray, " token"]
    """position 0, BOS token or not, and what else begins every prompt alike"""
    is_massive: Bool[np.ndarray, " token"]
    """massive and not `is_bos`"""

    @property
    def prompt(self) -> Int64[np.ndarray, " token"]:
        """Return the index of each token's prompt."""
        return self.capture.prompt

    @property
    def position(self) -> Int64[np.ndarray, " token"]:
        """Return each token's position in its prompt, from 0."""
        return self.capture.position

    @property
    def is_ordinary(self) -> Bool[np.ndarray, " token"]:
        """Return which tokens are neither `is_bos` nor massive."""
        return ~(self.is_bos | self.is_massive)

    def tokens_of(self, token_class: TokenClass) -> Bool[np.ndarray, " token"]:
        """Return the mask of a class's tokens; `all` is every token."""
        if token_class == "all":
            return np.ones_like(self.is_bos)
        return {"bos": self.is_bos, "massive": self.is_massive, "ordinary": self.is_ordinary}[
            token_class
        ]


@dataclass(frozen=True)
class PromptGains:
    """Hold one log gain per prompt and block with its parts, for one class and reduction; nats."""

    token_class: TokenClass
    reduction: Reduction
    log_gain: Float64[np.ndarray, "block prompt"]
    """NaN if a prompt has no token of the class"""
    attention: Float64[np.ndarray, "block prompt"]
    mlp: Float64[np.ndarray, "block prompt"]
    remainder: Float64[np.ndarray, "block prompt"]


def position_label(first: int, last: int | None) -> str:
    """Return a range of positions in words: 0, 1-3 or 128 on."""
    if last is None:
        return f"{first} on"
    return str(first) if first == last else f"{first}-{last}"


@dataclass(frozen=True)
class PositionGains:
    """Hold the last block's log gain on tokens at some positions of each prompt."""

    first: int
    last: int | None
    """last position of the range; None: to the prompt's end"""
    log_gain: Float64[np.ndarray, " prompt"]
    """nats; NaN if a prompt has no such token of the class"""

    @property
    def label(self) -> str:
        """Return the range in words: 0, 1-3 or 128 on."""
        return position_label(self.first, self.last)


@dataclass(frozen=True)
class LastBlockParts:
    """Hold the last block's log gain per prompt, by component and by position; nats."""

    attention: Float64[np.ndarray, " prompt"]
    mlp: Float64[np.ndarray, " prompt"]
    positions: tuple[PositionGains, ...]


@dataclass(frozen=True)
class BlockGain:
    """Hold one block's gain under the primary estimand."""

    block: int
    log_gain: float
    """nats, unweighted mean over prompts"""
    attention: float
    mlp: float
    remainder: float
    gain: float
    """exp(log_gain)"""
    low: float
    """lower end of the simultaneous band over blocks, as a ratio"""
    high: float


def band_meaning(confidence: float) -> str:
    """Say what `low` and `high` of a model's BlockGains are."""
    return (
        f"low and high are the ends of a {confidence:.0%} band over prompts that is simultaneous "
        "over blocks, as ratios; null if there are too few prompts"
    )


@dataclass(frozen=True)
class MassiveToken:
    """Describe the life of one massive token, or of position 0."""

    prompt: int
    position: int
    token_id: int
    text: str
    written_by: int | None
    """block that raises it most above the ordinary tokens; None if it enters massive"""
    written_component: str | None
    """attention or mlp, by the larger logmean part of that block"""
    erased_by: int | None
    """first block after which its norm is below half of its highest; None if none is"""
    erased_component: str | None
    plateau: float
    """median L2 norm between writing and erasing"""
    dims: tuple[int, ...]
    """dimensions of d_model that carry it, largest first"""
