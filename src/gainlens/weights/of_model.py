"""TODO: weights.of_model."""

from typing import Any

import torch
from torch import Tensor, nn

from gainlens.models.placement import weight_of
from gainlens.models.sites import kind_of, sites_of


def unembedding(model: nn.Module) -> tuple[Tensor, Tensor | None, bool]:
    """W_U [d_vocab, d_model] as lm_head holds it, the final norm's weight, and whether tied."""
    if kind_of(model) == "hooked":
        hooked: Any = model
        ln_weight = getattr(hooked.ln_final, "w", None)
        tied = hooked.W_E.shape == hooked.W_U.T.shape and torch.equal(hooked.W_E, hooked.W_U.T)
        return hooked.W_U.T, ln_weight, tied
    hf: Any = getattr(model, "original_model", model)
    head = weight_of(hf.get_output_embeddings())
    embedding = weight_of(hf.get_input_embeddings())
    tied = head.shape == embedding.shape and bool(torch.equal(head, embedding.to(head.device)))
    norm = sites_of(model).final_norm
    ln_weight = weight_of(norm) if hasattr(norm, "weight") else None
    if (
        ln_weight is not None
        and "Gemma" in type(getattr(norm, "original_component", norm)).__name__
    ):
        ln_weight = 1 + ln_weight  # Gemma's RMSNorm multiplies by 1 + weight
    return head, ln_weight, tied


def takes_mean_off(model: nn.Module) -> bool:
    """Whether the final norm takes the mean off the stream (GPT-2's LayerNorm; no RMSNorm does)."""
    sites = sites_of(model)
    norm = getattr(sites.final_norm, "original_component", sites.final_norm)
    ramp = torch.linspace(-1, 1, sites.d_model).to(sites.device, next(model.parameters()).dtype)
    with torch.no_grad():
        plain, raised = (norm(stream[None, None]) for stream in (ramp, ramp + 1))
    return bool((plain - raised).abs().max() < 0.1 * plain.abs().max())
