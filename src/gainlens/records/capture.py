"""Define what one model leaves behind on one set of prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from gainlens.core.vocabulary import COMPONENTS, GRAM_COLUMNS


@dataclass(frozen=True)
class Capture:
    """Hold the inner products that all metrics follow from.  No activation vector is kept."""

    prompt: Int64[np.ndarray, " token"]
    """index of each token's prompt, ascending"""
    position: Int64[np.ndarray, " token"]
    """position within the prompt, from 0"""
    token_id: Int64[np.ndarray, " token"]
    gram: Float[np.ndarray, "column block token"]
    """inner products in the order of vocabulary.GRAM_COLUMNS, squared L2 norm; float32, as
    accumulated.  `column` gives them as float64."""
    top_value: Float[np.ndarray, "block token rank"]
    """the largest |components| of resid_post with their sign, largest first; float32"""
    top_index: Int[np.ndarray, "block token rank"]
    """their dimensions in d_model; int32"""
    normed: Float64[np.ndarray, " token"]
    """|ln_final(resid_post of the last block)|, L2 norm"""
    visible: Float64[np.ndarray, "component token"] | None = None
    """share of the squared norm of the last block's writes in the top-k right singular subspace of
    the centred W_U; chance is k / d_model; None if it was not asked for"""
    null: Float64[np.ndarray, "component token"] | None = None
    """the same for the bottom-k subspace, which W_U hardly sees"""
    sink: Float64[np.ndarray, "block head prompt"] | None = None
    """mean attention weight on position 0 over later queries; None if there are no patterns"""
    heads: Float64[np.ndarray, "block head head_column token"] | None = None
    """inner products of each head's write with resid_pre and resid_post, and its squared norm, in
    the order of vocabulary.HEAD_COLUMNS; squared L2 norm; None if they were not asked for"""
    token_text: tuple[str, ...] | None = None
    """each token's text, decoded alone, for the reader; None if it was not asked for"""
    prefix: int = 1
    """how many tokens begin every prompt alike (`EncodedPrompts.prefix`)"""
    parallel: bool = False
    """True if attention and the MLP both read the block's input (GPT-NeoX, GPT-J, Phi)"""
    extra: Mapping[str, Float64[np.ndarray, "block token"]] = field(default_factory=dict[str, Any])
    """columns that `capture(extra=...)` added, by name"""
    token_loss: Float64[np.ndarray, " token"] | None = None
    """-ln p(token | those before it), nats; NaN at position 0; None if it was not asked for"""
    skip_loss: Float64[np.ndarray, "block token"] | None = None
    """the loss with one block's writes left out minus `token_loss`, nats; NaN at position 0; None
    if it was not asked for"""

    def column(self, name: str) -> Float64[np.ndarray, "block token"]:
        """Return one Gram column by name, [block, token], squared L2 norm, float64."""
        return self.gram[GRAM_COLUMNS.index(name)].astype(np.float64)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Return the numbers per token by column name, as tables show them.

        [block, token], or [token] for what belongs to the last block or to the token alone.  A
        column is missing if its numbers were not asked for.
        """
        columns: dict[str, np.ndarray] = dict(zip(GRAM_COLUMNS, self.gram, strict=True))
        columns["normed"] = self.normed
        for name, shares in (("visible", self.visible), ("null", self.null)):
            if shares is not None:
                columns |= {
                    f"{name}_{part}": row for part, row in zip(COMPONENTS, shares, strict=True)
                }
        for rank in range(self.top_value.shape[2]):
            columns[f"top_value_{rank}"] = self.top_value[..., rank]
            columns[f"top_index_{rank}"] = self.top_index[..., rank]
        for name in ("token_loss", "skip_loss"):
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name)
        return columns | dict(self.extra)

    @property
    def num_prompts(self) -> int:
        """Return how many prompts there are."""
        return int(self.prompt[-1]) + 1 if len(self.prompt) else 0
