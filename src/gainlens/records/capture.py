"""TODO: records.capture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from gainlens.core.vocabulary import GRAM_COLUMNS


@dataclass(frozen=True)
class Capture:
    """The sufficient statistics of one model on one set of prompts: no activation is kept."""

    prompt: Int64[np.ndarray, " token"]
    """index of the prompt that a token belongs to, ascending"""
    position: Int64[np.ndarray, " token"]
    """position within the prompt, from 0"""
    token_id: Int64[np.ndarray, " token"]
    gram: Float[np.ndarray, "column block token"]
    """inner products in the order of axes.GRAM_COLUMNS; squared L2 norm; float32, as accumulated:
    `column` gives them for algebra"""
    top_value: Float[np.ndarray, "block token rank"]
    """the largest |components| of resid_post with their sign, largest first; float32"""
    top_index: Int[np.ndarray, "block token rank"]
    """their dimensions in d_model; int32"""
    normed: Float64[np.ndarray, " token"]
    """|ln_final(resid_post of the last block)|, L2 norm"""
    visible: Float64[np.ndarray, "component token"] | None = None
    """share of the squared norm of the last block's attention and MLP write that lies in the top-k
    right singular subspace of the centred W_U; None where not asked for; chance is k / d_model"""
    null: Float64[np.ndarray, "component token"] | None = None
    """the same for the bottom-k subspace: what W_U can hardly see"""
    sink: Float64[np.ndarray, "block head prompt"] | None = None
    """attention weight on position 0, mean over later queries; None where there are no patterns"""
    heads: Float64[np.ndarray, "block head head_column token"] | None = None
    """of every head's write its inner products with resid_pre and resid_post, and its squared norm,
    in the order of axes.HEAD_COLUMNS; squared L2 norm; None where not asked for"""
    token_text: tuple[str, ...] | None = None
    """every token's text, decoded alone, for the reader; None where nobody asked for it"""
    parallel: bool = False
    """True if attention and the MLP both read the block's input (GPT-NeoX, GPT-J, Phi)"""
    extra: Mapping[str, Float64[np.ndarray, "block token"]] = field(default_factory=dict[str, Any])
    """columns that `capture(extra=...)` added, by name"""

    def column(self, name: str) -> Float64[np.ndarray, "block token"]:
        """One Gram column by name, [block, token], squared L2 norm, float64."""
        return self.gram[GRAM_COLUMNS.index(name)].astype(np.float64)

    @property
    def num_prompts(self) -> int:
        return int(self.prompt[-1]) + 1 if len(self.prompt) else 0
