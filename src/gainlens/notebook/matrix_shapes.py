"""The shapes of the neighbours' files that hold norms and ranks of matrices."""

import math
from collections.abc import Iterator
from typing import ClassVar, Final

from pydantic import Field

from gainlens.notebook.documents import Count, Positive, Series
from gainlens.notebook.gain_shapes import measured
from gainlens.notebook.record import Finding, Record
from gainlens.notebook.rescored import Spectrum
from gainlens.notebook.result_file import difference
from gainlens.notebook.shapes import Shape, Where

_ROUNDED: Final = 1e-3
"""Relative difference from which a Frobenius norm is not the one that the row norms give."""


class Matrix(Shape):
    """Norms of W_U or of the embedding, checked against the row norms.

    |W|_F^2 = rows (mean^2 + sd^2).
    """

    NAME: ClassVar = "matrices"
    KEYS: ClassVar = {"shape", "spectral_norm", "frobenius_norm"}
    shape: list[Count] = Field(min_length=2, max_length=2)
    spectral_norm: Positive
    frobenius_norm: Positive
    mean_row_norm: Positive | None = None
    std_row_norm: Positive | None = None
    last_gain: Positive | None = None

    def records(self, where: Where) -> Iterator[Record]:
        rows, columns = self.shape
        matrix = "W_E" if where.key == "embedding" else "W_U"
        if self.mean_row_norm is not None and self.std_row_norm is not None:
            frobenius = math.sqrt(rows) * math.hypot(self.mean_row_norm, self.std_row_norm)
            if difference(frobenius, self.frobenius_norm) > _ROUNDED:
                place = f"{where.model}: frobenius_norm of {matrix}"
                yield Finding(place=place, stated=self.frobenius_norm, recomputed=frobenius)
        yield Spectrum(
            model=where.model, matrix=matrix, called=where.key, rows=rows, columns=columns,
            spectral_norms=(self.spectral_norm,), frobenius_norms=(self.frobenius_norm,),
        )  # fmt: skip
        if self.last_gain is not None:
            yield measured(
                where, "last_gain", "copied", "unknown", "notebook", stated=self.last_gain
            )


class AttentionWeights(Shape):
    """Spectral norm, Frobenius norm and effective rank of W_Q, W_K, W_V and W_O per block."""

    NAME: ClassVar = "attention weights"
    KEYS: ClassVar = {"W_V_spectral_norm"}
    W_V_spectral_norm: Series
    W_V_frobenius_norm: Series = Field(default_factory=list)
    W_V_effective_rank: Series = Field(default_factory=list)
    W_O_spectral_norm: Series = Field(default_factory=list)
    W_O_frobenius_norm: Series = Field(default_factory=list)
    W_O_effective_rank: Series = Field(default_factory=list)
    W_Q_spectral_norm: Series = Field(default_factory=list)
    W_Q_frobenius_norm: Series = Field(default_factory=list)
    W_Q_effective_rank: Series = Field(default_factory=list)
    W_K_spectral_norm: Series = Field(default_factory=list)
    W_K_frobenius_norm: Series = Field(default_factory=list)
    W_K_effective_rank: Series = Field(default_factory=list)

    def records(self, where: Where) -> Iterator[Record]:
        values = self.model_dump()
        for matrix in ("W_V", "W_O", "W_Q", "W_K"):
            if spectral := values[f"{matrix}_spectral_norm"]:
                yield Spectrum(
                    model=where.model, matrix=matrix, called=f"{matrix}_spectral_norm",
                    spectral_norms=tuple(spectral),
                    frobenius_norms=tuple(values[f"{matrix}_frobenius_norm"]),
                    effective_ranks=tuple(values[f"{matrix}_effective_rank"]),
                )  # fmt: skip


class ValueNorms(Shape):
    """Spectral norms of W_V alone, per block."""

    NAME: ClassVar = "value norms"
    KEYS: ClassVar = {"W_V_op_norms"}
    W_V_op_norms: Series

    def records(self, where: Where) -> Iterator[Record]:
        yield Spectrum(
            model=where.model, matrix="W_V", called="W_V_op_norms",
            spectral_norms=tuple(self.W_V_op_norms),
        )  # fmt: skip


class MeanNorms(Shape):
    """Means over blocks of W_V's norms; the ratio of two means is no block's stable rank."""

    NAME: ClassVar = "mean value norms"
    KEYS: ClassVar = {"mean_spectral", "mean_frobenius"}
    mean_spectral: Positive | None
    mean_frobenius: Positive | None

    def records(self, where: Where) -> Iterator[Record]:
        yield Spectrum(
            model=where.model, matrix="W_V, mean over blocks", called="mean_spectral",
            spectral_norms=(self.mean_spectral,),
        )  # fmt: skip


class StateRanks(Shape):
    """Effective rank of hidden states over prompts; the last state is after the final norm."""

    NAME: ClassVar = "ranks of states"
    KEYS: ClassVar = {"effective_rank", "intrinsic_dim_ratio"}
    effective_rank: Series
    intrinsic_dim_ratio: Series

    def records(self, where: Where) -> Iterator[Record]:
        yield Spectrum(
            model=where.model, matrix="hidden states", called="effective_rank",
            effective_ranks=tuple(self.effective_rank),
        )  # fmt: skip
