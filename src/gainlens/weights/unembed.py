"""Compute the spectrum of W_U (lm_head), and the subspaces that the logits see best and least.

W_U is read once, in blocks of rows, into the Gram matrix G = W^T W of size d_model, summed in
float64.  Every spectrum, the top direction and both subspaces come from G and the mean row.
Forming W^T W squares the ratio r = σ_max/σ.  So a common row is subtracted first, and its exact
contribution is added back: only the r of the centred W_U matters.  Measured relative error of σ:

    products in float64    5e-15 r^2           noise below 1e-8 σ_max
    products in float32    1e-7 + 2e-9 r^2     noise below 1e-4 σ_max
    torch's float32 SVD    1e-6 to 5e-4        the notebook's norm

Products are in float64.  On a CPU very large heads use float32, which halves the time and is still
more accurate than the float32 SVD up to r of about 30.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from gainlens.core.formulas import random_edge
from gainlens.records.weights import UnembedReport

SUBSPACE_DIVISOR = 8
"""The visible and the null subspace have d_model / 8 dimensions each by default."""

_BLOCK_ELEMENTS = 1 << 25
"""Weights multiplied at a time, 256 MiB in float64, so that memory does not grow with d_vocab."""
_FLOAT64_WORK = 1e12
"""d_vocab d_model^2 up to which a CPU multiplies in float64: 10 s on two cores."""
_TILE = 512
"""Columns of G computed at a time: G is symmetric, and tiles skip almost half of the work."""
_SAMPLED_ROWS = 1024
"""About how many rows the common row averages; any row would do."""
_RESOLVED = 1e-9
"""Relative difference of eigenvalues below which they count as equal."""


@dataclass(frozen=True)
class UnembedGram:
    """Hold what one pass over W_U [d_vocab, d_model] gives, float64, on W_U's device."""

    gram: Float64[Tensor, "d_model d_model"]
    """W^T W, squared L2 norm"""
    mean_row: Float64[Tensor, " d_model"]
    """mean over the vocabulary: it adds the same to every logit, so softmax ignores it"""
    mean_row_norm: float
    """mean L2 norm of the rows (not the norm of the mean row)"""
    d_vocab: int

    @property
    def d_model(self) -> int:
        """Return the width of the stream."""
        return self.gram.shape[0]

    @property
    def centred(self) -> Float64[Tensor, "d_model d_model"]:
        """Return the Gram matrix of W_U minus its mean row, a rank-one update."""
        return self.gram - self.d_vocab * torch.outer(self.mean_row, self.mean_row)


def unembed_gram(weight: Float[Tensor, "d_vocab d_model"]) -> UnembedGram:
    """Reduce W_U, in any floating dtype and on any device, to its Gram matrix.

    Args:
        weight: [d_vocab, d_model], rows are vocabulary entries as in a Hugging Face lm_head
            (TransformerLens' W_U transposed).

    Raises ValueError if the weights are not loaded, not finite, or all zero.

    Examples:
        >>> import torch
        >>> gram = gainlens.unembed_gram(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
        >>> round(gainlens.unembed_report(gram).spectral_norm, 6)
        3.0
    """
    if weight.is_meta:
        raise ValueError(
            "the weights of lm_head are not in memory (offloaded to the meta device); "
            "read them from the checkpoint's directory with read_unembedding"
        )
    d_vocab, d_model = weight.shape
    weight = weight.detach()
    large = weight.device.type == "cpu" and d_vocab * d_model**2 > _FLOAT64_WORK
    products = torch.float32 if large else torch.float64
    common = weight[:: max(1, d_vocab // _SAMPLED_ROWS)].double().mean(dim=0).to(products)
    gram = torch.zeros(d_model, d_model, dtype=torch.float64, device=weight.device)
    total = torch.zeros(d_model, dtype=torch.float64, device=weight.device)
    norms = torch.zeros((), dtype=torch.float64, device=weight.device)
    for rows in weight.split(max(1, _BLOCK_ELEMENTS // d_model)):
        norms += torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).sum()
        block = rows.to(products) - common
        total += block.sum(dim=0, dtype=torch.float64)
        for start in range(0, d_model, _TILE):
            tile = slice(start, start + _TILE)
            gram[start:, tile] += block[:, start:].T @ block[:, tile]
    common = common.double()
    cross = torch.outer(common, total + d_vocab / 2 * common)
    gram = gram.tril() + gram.tril(-1).T + cross + cross.T
    _check_energy(float(gram.trace()), d_vocab, d_model)
    return UnembedGram(
        gram=gram,
        mean_row=common + total / d_vocab,
        mean_row_norm=float(norms) / d_vocab,
        d_vocab=d_vocab,
    )


def _check_energy(energy: float, d_vocab: int, d_model: int) -> None:
    if not math.isfinite(energy) or energy == 0:
        raise ValueError(
            f"W_U of shape {d_vocab} x {d_model} has squared Frobenius norm {energy:g}, so it has "
            "no spectrum; check that the checkpoint's lm_head is complete"
        )


def spectrum_report(
    unembed: UnembedGram,
    ln_weight: Float[Tensor, " d_model"] | None,
    *,
    tied: bool,
    mean_off: bool = False,
) -> UnembedReport:
    """Report the singular values of W_U, raw, centred and with ln_final's weight folded in.

    Args:
        unembed: from `unembed_gram`.
        ln_weight: what ln_final multiplies by (Gemma: 1 + weight), None for a norm without weights.
        tied: whether lm_head is the embedding's own matrix.
        mean_off: whether ln_final subtracts the mean of the stream first (LayerNorm), so that no
            logit sees the direction of all ones.

    Norms and singular values are L2 norms, in the weights' units.  The Frobenius norm is summed in
    float64: torch.linalg.norm of a float32 matrix adds up in float32, and on CPU
    loses 0.6 % of 32,768 x 2,048 and 10 % of 128,256 x 4,096 random entries.
    """
    d_vocab, d_model = unembed.d_vocab, unembed.d_model
    raw, centred = _eigenvalues(unembed.gram), _eigenvalues(unembed.centred)
    folded = _eigenvalues(_folded(unembed.gram, ln_weight, mean_off))
    rank = min(d_vocab, d_model)
    spectrum = np.sqrt(raw[:rank])
    mean_energy = d_vocab * float(unembed.mean_row.square().sum())
    frobenius, top = math.sqrt(float(unembed.gram.trace())), float(spectrum[0])
    edge = random_edge(frobenius, d_vocab, d_model)
    return UnembedReport(
        shape=(d_vocab, d_model),
        vocab_size=d_vocab,
        hidden_dim=d_model,
        frobenius_norm=frobenius,
        spectral_norm=top,
        mean_row_norm=unembed.mean_row_norm,
        sigma_per_sqrt_vocab=top / math.sqrt(d_vocab),
        edge_ratio=top / edge,
        stable_rank=(frobenius / top) ** 2,
        effective_rank=_effective_rank(spectrum),
        mean_row_cosine=_mean_row_cosine(raw, centred, mean_energy),
        spectrum=spectrum,
        centred_spectrum=np.sqrt(centred[:rank]),
        folded_spectrum=np.sqrt(folded[:rank]),
        subspace_rank=subspace_rank(d_model),
        tied=tied,
    )


def _folded(gram: Tensor, ln_weight: Tensor | None, mean_off: bool) -> Tensor:
    """Return the Gram matrix of W_U with the norm's weight folded in, and its mean off."""
    if ln_weight is not None:
        scale = ln_weight.detach().to(gram)
        gram = scale[:, None] * gram * scale
    if mean_off:
        gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    return gram


def subspace_rank(d_model: int) -> int:
    """Return k, the rank of the visible and of the null subspace."""
    return max(1, d_model // SUBSPACE_DIVISOR)


def subspaces(
    unembed: UnembedGram, rank: int | None = None
) -> tuple[Float32[Tensor, "d_model rank"], Float32[Tensor, "d_model rank"]]:
    """Return right singular subspaces of the centred W_U: the top k directions, and the bottom k.

    The columns are orthonormal, the largest singular value first in the top subspace and the
    smallest first in the bottom one, in float32 on W_U's device.  The report does not compute them:
    its eigenvalues take a quarter of the time of eigenvectors.
    """
    k = subspace_rank(unembed.d_model) if rank is None else rank
    if not 1 <= k <= unembed.d_model:
        raise ValueError(
            f"a subspace of rank {k} was asked for; give 1 to d_model = {unembed.d_model}"
        )
    vectors = torch.linalg.eigh(unembed.centred).eigenvectors.float()
    return vectors[:, -k:].flip(1).contiguous(), vectors[:, :k].contiguous()


def _eigenvalues(gram: Float64[Tensor, "d_model d_model"]) -> Float64[np.ndarray, " d_model"]:
    """Return squared singular values, largest first; what rounding made negative is 0."""
    return torch.linalg.eigvalsh(gram).clamp_min(0).flip(0).cpu().numpy()


def _effective_rank(spectrum: Float64[np.ndarray, " rank"]) -> float:
    """Return exp of the entropy of σ^2 / Σσ^2, in dimensions (Roy & Vetterli 2007)."""
    share = spectrum**2 / np.sum(spectrum**2)
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def _mean_row_cosine(
    raw: Float64[np.ndarray, " d_model"], centred: Float64[np.ndarray, " d_model"], energy: float
) -> float:
    """Return |cos| of the top right singular vector v with the mean row μ, from eigenvalues alone.

    Subtracting energy = V|μ|^2 along μ moves each eigenvalue λ_j to λ'_j.  The residue of the
    secular equation at λ_1 is V(v·μ)^2 = Π_j (λ_1 - λ'_j) / Π_{j>1} (λ_1 - λ_j) (Golub 1973,
    section 5), so no eigenvector is needed.  NaN if the two largest eigenvalues are equal or the
    mean row is 0, to float64 rounding.
    """
    top = raw[0]
    if energy < _RESOLVED * top or top - raw[1:2].sum() < _RESOLVED * top:
        return math.nan
    log_square = np.log(np.maximum(top - centred, np.finfo(float).tiny)).sum()
    log_square -= np.log(top - raw[1:]).sum()
    return min(1.0, math.sqrt(math.exp(log_square) / energy))
