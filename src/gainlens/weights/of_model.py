"""Read W_U and the final norm of a model in memory, and report on them."""

import copy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gainlens.models.loaded import AnyModel, LoadedModel, module_of
from gainlens.models.placement import weight_of
from gainlens.models.sites import kind_of, sites_of
from gainlens.records.weights import UnembedReport
from gainlens.weights.unembed import UnembedGram, spectrum_report, unembed_gram

_PROBE = 1024.0
"""Size of the probe's entries, so that a norm's epsilon is negligible beside its square."""


class Unembedding(NamedTuple):
    """Hold how a model turns its last stream into logits."""

    weight: Float[Tensor, "d_vocab d_model"]
    """W_U as lm_head holds it"""
    norm_scale: Float[Tensor, " d_model"]
    """what the final norm multiplies each dimension by"""
    tied: bool
    """whether lm_head holds the embedding's numbers"""
    mean_off: bool
    """whether the final norm subtracts the mean of the stream (LayerNorm)"""


def unembedding(model: AnyModel) -> Unembedding:
    """Read W_U and measure the final norm of a model in memory.

    Raises ValueError if TransformerLens had processed the weights: they are no longer the
    checkpoint's.
    """
    if isinstance(model, LoadedModel) and model.checkpoint.processed:
        raise ValueError(
            "TransformerLens folded or centred this model's weights, so the checkpoint's W_U is "
            "not in it; use gainlens.load, or HookedTransformer.from_pretrained_no_processing"
        )
    bare = module_of(model)
    if kind_of(bare) == "hooked":
        weight, embedding = bare.W_U.T, bare.W_E
    else:
        hf_model = getattr(bare, "original_model", bare)
        weight = weight_of(hf_model.get_output_embeddings())
        embedding = weight_of(hf_model.get_input_embeddings())
    tied = weight.shape == embedding.shape and bool(
        torch.equal(weight, embedding.to(weight.device))
    )
    norm = sites_of(model).final_norm
    scale, mean_off = norm_action(norm, weight.shape[1], sites_of(model).device)
    return Unembedding(weight, scale.to(weight.device), tied, mean_off)


def norm_action(norm: Any, d_model: int, device: torch.device) -> tuple[Tensor, bool]:
    """Measure a norm by calling it.

    Returns what it multiplies each dimension by, [d_model], and whether it subtracts the mean
    first.  The weight alone does not say: some norms multiply by 1 + weight.
    """
    module: nn.Module = getattr(norm, "original_component", norm)
    if not any(weight.is_meta for weight in module.parameters()):
        module = copy.deepcopy(module).double()

    def called(stream: Tensor) -> Tensor:
        with torch.no_grad():
            return module(stream[None, None])[0, 0].double().cpu()

    dtype = next((weight.dtype for weight in module.parameters()), torch.float64)
    signs = torch.ones(d_model, device=device, dtype=dtype)
    signs[::2] = -1
    bias = called(torch.zeros_like(signs))
    ramp = torch.linspace(-1, 1, d_model, device=device, dtype=dtype)
    plain, raised = called(ramp) - bias, called(ramp + 1) - bias
    mean_off = bool((plain - raised).abs().max() < 0.1 * plain.abs().max())
    stream = signs.double().cpu() * _PROBE
    if mean_off:
        stream -= stream.mean()
    normalised = stream / stream.square().mean().sqrt()
    return (called(signs * _PROBE) - bias) / normalised, mean_off


def unembed_report(
    model: AnyModel | UnembedGram,
    ln_weight: Float[Tensor, " d_model"] | None = None,
    *,
    tied: bool = False,
    mean_off: bool = False,
) -> UnembedReport:
    """Report on W_U: all singular values, raw, centred and with the final norm folded in.

    Args:
        model: from `load` or `wrap`, or a bare model; or what `unembed_gram` returns of a W_U of
            your own, which the other arguments then describe.
        ln_weight: [d_model], what the final norm multiplies by; None: by 1.
        tied: whether lm_head is the embedding's own matrix.
        mean_off: whether the final norm subtracts the mean of the stream first (LayerNorm).

    Singular values and norms are L2, in the weights' units.  Raises ValueError for a model whose
    weights TransformerLens processed.

    Examples:
        >>> report = gainlens.unembed_report(loaded)
        >>> report.shape, report.tied
        ((4096, 128), False)
    """
    if isinstance(model, UnembedGram):
        return spectrum_report(model, ln_weight, tied=tied, mean_off=mean_off)
    own = unembedding(model)
    gram = unembed_gram(own.weight)
    return spectrum_report(gram, own.norm_scale, tied=own.tied, mean_off=own.mean_off)
