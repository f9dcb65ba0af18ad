"""Wrap a model that is already in memory: `wrap` gives what `load` gives."""

from typing import Any, Final

import torch
from torch import nn

from gainlens.models.checks import (
    check_causal,
    check_outputs,
    check_tokens,
    no_traceback,
    plain_outputs,
)
from gainlens.models.config import context_of, sizes_of
from gainlens.models.loaded import LoadedModel, ModelSites
from gainlens.models.probing import additive_sites
from gainlens.models.refusals import CANNOT, Refusal, unbridged
from gainlens.models.sites import config_of, kind_of
from gainlens.records.inputs import Checkpoint

_PROCESSED: Final = "Pre"
"""TransformerLens appends it to normalization_type (LNPre, RMSPre) when it folds the norm's weight
into the next layer."""


def wrap(model: nn.Module, tokenizer: Any = None, *, name: str | None = None) -> LoadedModel:
    """Check a model that is in memory and return it as `load` would.

    Args:
        model: HookedTransformer, TransformerBridge or Hugging Face causal LM.  It is put into eval
            mode; nothing else of it changes.
        tokenizer: Hugging Face's; None takes the model's own if it has one.  Without a tokenizer,
            prompts are token ids [batch, position].
        name: what to call it in tables; its own name if not given.

    A HookedTransformer with processed weights (folded norms, centred weights) is measured as it is,
    and `checkpoint.processed` says so.  There is no Hugging Face model to compare a
    HookedTransformer's logits with, so that check is skipped and `checkpoint.logits_skipped` says
    why.  Raises ValueError if the model is of no known kind or fails another check.

    Examples:
        >>> wrapped = gainlens.wrap(loaded.model, loaded.tokenizer)
        >>> wrapped.checkpoint.num_blocks, wrapped.checkpoint.processed
        (8, False)
    """
    bare: Any = model
    kind = kind_of(model)
    model.eval()
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(
            f"this model's weights are {dtype}, and gainlens measures in float32, bfloat16 and "
            "float16: convert it with model.to(torch.float32)"
        )
    tokenizer = getattr(bare, "tokenizer", None) if tokenizer is None else tokenizer
    hf_model = None if kind == "hooked" else getattr(bare, "original_model", bare)
    tokens = check_tokens("this model", tokenizer, int(_vocabulary(hf_model, bare)))
    tokens = tokens[:, : _context(bare)].to(next(model.parameters()).device)
    try:
        with no_traceback(model):
            sites, additivity = additive_sites(model, tokens, dtype)
            check_causal(sites, tokens, dtype)
            kl = _logits_kl(sites, hf_model, tokens, dtype)
    except Refusal as refusal:
        raise Refusal(refusal.why, _advice(kind, hf_model, tokens, dtype)) from refusal
    checkpoint = Checkpoint(
        name=name or _name(bare, hf_model),
        hf_name=_name(bare, hf_model),
        revision=None,
        backend=sites.kind,
        dtype=dtype,
        architecture=type(bare if hf_model is None else hf_model).__name__,
        num_blocks=sites.num_blocks,
        num_heads=sites.num_heads,
        d_model=sites.d_model,
        d_vocab=int(_vocabulary(hf_model, bare)),
        context=_context(bare),
        config=config_of(bare),
        training=None,
        additivity=additivity,
        logits_kl=kl,
        logits_skipped=_NO_TWIN if hf_model is None else "",
        processed=hf_model is None and str(bare.cfg.normalization_type).endswith(_PROCESSED),
    )
    return LoadedModel(model, tokenizer, checkpoint, sites, hf_model)


_NO_TWIN: Final = "a HookedTransformer in memory has no Hugging Face model to compare it with"


def _logits_kl(sites: ModelSites, hf_model: Any, tokens: torch.Tensor, dtype: str) -> float | None:
    if sites.kind != "bridge":
        return None
    with unbridged(hf_model):
        plain = plain_outputs(hf_model, tokens)
    return check_outputs(sites, plain, tokens, dtype)


def _advice(kind: str, hf_model: Any, tokens: torch.Tensor, dtype: str) -> str:
    """Return what to do about a model that cannot be measured as it is wrapped."""
    if kind == "hooked":
        return "gainlens.load(..., backend='native') may hold the checkpoint that it was made from"
    if kind == "bridge":
        try:
            with unbridged(hf_model), no_traceback(hf_model):
                sites, _ = additive_sites(hf_model, tokens, dtype)
                check_causal(sites, tokens, dtype)
        except ValueError:
            return CANNOT
        return "wrap the Hugging Face model itself, before a bridge is put around it"
    return CANNOT


def _vocabulary(hf_model: Any, hooked: Any) -> int:
    return hooked.cfg.d_vocab if hf_model is None else sizes_of(hf_model.config).d_vocab


def _context(model: Any) -> int:
    context = context_of(config_of(model))
    if context is None:
        raise ValueError(
            "this model's config says no context length: set config.max_position_embeddings to "
            "the one that it was trained for"
        )
    return context


def _name(model: Any, hf_model: Any) -> str:
    if hf_model is None:
        return model.cfg.model_name or "HookedTransformer"
    return (hf_model.config.name_or_path or type(hf_model).__name__).rstrip("/").split("/")[-1]
