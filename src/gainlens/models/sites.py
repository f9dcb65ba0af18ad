"""Find the sites of a model of each kind, under TransformerLens' hook names.

Three kinds of model present the same sites: `hooked` (HookedTransformer), `bridge`
(TransformerBridge) and `native` (a Hugging Face causal LM).  A site is a module and the side of it
on which the tensor passes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gainlens.models.config import hooked_fields
from gainlens.models.decoders import (
    AttentionOut,
    DecoderBlock,
    base_of,
    decoder_of,
    learned_positions,
    post_norm_of,
    projected,
)
from gainlens.models.forward import guarded, length_key
from gainlens.models.loaded import (
    BLOCK_SITES,
    AnyModel,
    Kind,
    LoadedModel,
    ModelSites,
    Reader,
    Site,
    Writer,
    module_of,
)
from gainlens.models.memory import attention_fits, no_longer_than
from gainlens.models.placement import device_of

__all__ = [
    "BLOCK_SITES",
    "Kind",
    "ModelSites",
    "Reader",
    "Site",
    "Writer",
    "config_of",
    "kind_of",
    "sites_of",
]

_WRITERS: Final[WeakKeyDictionary[nn.Module, tuple[str, str]]] = WeakKeyDictionary()
"""What `models.probing` found of models whose blocks are not additive under the usual names."""
_LEARNED = "its positions are a table, so no back end goes beyond it"
_HEADS_APART = ".attn.hook_z"
"""TransformerLens shows z as [batch, position, head, d_head] on every kind of model."""


def kind_of(model: AnyModel) -> Kind:
    """Return hooked, bridge or native, by the model's class; raise ValueError for anything else."""
    names = {cls.__name__ for cls in type(module_of(model)).__mro__}
    if "HookedTransformer" in names:
        return "hooked"
    if "TransformerBridge" in names:
        return "bridge"
    if "PreTrainedModel" in names:
        return "native"
    raise ValueError(
        f"a {type(model).__name__} is none of HookedTransformer, TransformerBridge and a Hugging "
        "Face PreTrainedModel; load it with gainlens.load or wrap it in one of these"
    )


def sites_of(model: AnyModel) -> ModelSites:
    """Return the sites of a model: those that a LoadedModel carries, else found by name."""
    if isinstance(model, LoadedModel):
        return model.sites
    kind = kind_of(model)
    return {"hooked": _hooked_sites, "bridge": _bridge_sites, "native": native_sites}[kind](model)


def config_of(model: AnyModel) -> Mapping[str, Any]:
    """Return a model's config as a plain dictionary under Hugging Face's names."""
    if isinstance(model, LoadedModel):
        return model.checkpoint.config
    bare: Any = model
    if kind_of(model) == "hooked":
        return hooked_fields(bare.cfg)
    return getattr(bare, "original_model", bare).config.to_dict()


def _hooked_sites(model: Any) -> ModelSites:
    sites = {name: Site(name, module, "output") for name, module in model.hook_dict.items()}
    rotary = model.cfg.positional_embedding_type == "rotary"
    advice = "--backend native goes beyond it" if rotary else _LEARNED
    weight = next(model.parameters())
    checks = (
        no_longer_than(model.cfg.n_ctx, advice),
        attention_fits("hooked", model.cfg.n_heads, weight),
    )
    return ModelSites(
        kind="hooked",
        sites=sites | {"ln_final": Site("ln_final", model.ln_final, "output")},
        num_blocks=model.cfg.n_layers,
        num_heads=model.cfg.n_heads,
        d_model=model.cfg.d_model,
        embedding=model.embed,
        blocks=tuple(model.blocks),
        final_norm=model.ln_final,
        unembed=model.unembed,
        device=weight.device,
        run=guarded(model, lambda tokens: model(tokens, return_type=None), "hooked", *checks),
        logits=guarded(model, model, "hooked", *checks),
        attention_out=lambda block: _hooked_out(model.blocks[block]),
    )


def _hooked_out(block: Any) -> AttentionOut:
    return AttentionOut(
        block.attn.W_O.flatten(0, 1), block.attn.b_O, getattr(block, "ln1_post", None)
    )


def _bridge_sites(model: Any) -> ModelSites:
    """HookPoints of a bridge go by canonical names; TransformerLens' old names are aliases."""
    hf_model = model.original_model
    heads = model.cfg.n_heads
    weight = next(model.parameters())
    sites = {
        name: Site(name, module, "output", heads if name.endswith(_HEADS_APART) else None)
        for name, module in model.hook_dict.items()
    }
    checks = (
        no_longer_than(learned_positions(hf_model), _LEARNED),
        attention_fits("bridge", heads, weight),
    )
    return ModelSites(
        kind="bridge",
        sites=sites | {"ln_final": Site("ln_final", model.ln_final, "output")},
        num_blocks=model.cfg.n_layers,
        num_heads=heads,
        d_model=model.cfg.d_model,
        embedding=hf_model.get_input_embeddings(),
        blocks=tuple(model.blocks),
        final_norm=model.ln_final,
        unembed=hf_model.get_output_embeddings(),
        device=weight.device,
        run=guarded(
            hf_model, lambda tokens: base_of(hf_model)(tokens, use_cache=False), "bridge", *checks
        ),
        logits=guarded(model, model, "bridge", *checks),
        attention_out=lambda block: projected(
            model.blocks[block].attn.o, post_norm_of(model.blocks[block].original_component)
        ),
        alike=length_key(hf_model),
    )


def native_sites(model: Any, writers: tuple[str, str] | None = None) -> ModelSites:
    """Return the sites of a Hugging Face causal LM.

    Args:
        model: the causal LM.
        writers: names within a block of the modules that attention and the MLP add, which are kept
            for the next call; None: those of an earlier call, else the usual names.  What they
            return may be added to in place, and may be flattened.
    """
    if writers is None:
        writers = _WRITERS.get(model)
    else:
        _WRITERS[model] = writers
    config, decoder = model.config.get_text_config(), decoder_of(model, writers)
    base = decoder.whole
    embedding = model.get_input_embeddings()
    norm = decoder.final_norm
    found = [Site("hook_embed", embedding, "output"), Site("ln_final", norm, "output")]
    for index, block in enumerate(decoder.blocks):
        found += _native_block(
            f"blocks.{index}", block, config.num_attention_heads, writers is not None
        )
    checks = [no_longer_than(decoder.positions, _LEARNED)]
    if config._attn_implementation == "eager":
        checks.append(attention_fits("native", config.num_attention_heads, embedding.weight))
    return ModelSites(
        kind="native",
        sites={site.name: site for site in found},
        num_blocks=len(decoder.blocks),
        num_heads=config.num_attention_heads,
        d_model=config.hidden_size,
        embedding=embedding,
        blocks=tuple(block.whole for block in decoder.blocks),
        final_norm=norm,
        unembed=model.get_output_embeddings(),
        device=device_of(embedding),
        run=guarded(model, lambda tokens: base(tokens, use_cache=False), "native", *checks),
        logits=guarded(model, partial(logits_of, model), "native", *checks),
        attention_out=lambda index: projected(
            decoder.blocks[index].projection,
            decoder.blocks[index].post_norm,
            f"block {index} of this {type(model).__name__}",
        ),
        alike=length_key(model),
    )


def logits_of(hf_model: Any, tokens: Tensor) -> Tensor:
    """Return Hugging Face's logits [batch, position, d_vocab]."""
    with torch.no_grad():
        return hf_model(tokens, use_cache=False, return_dict=True).logits


def _native_block(prefix: str, block: DecoderBlock, heads: int, searched: bool) -> list[Site]:
    """Return a block's sites; searched: found by what the block adds, not by the usual names."""
    within = block.whole if searched else None
    sites = [
        Site(f"{prefix}.hook_resid_pre", block.whole, "input"),
        Site(f"{prefix}.hook_attn_out", block.attention, "output", None, searched, within),
        Site(f"{prefix}.hook_mlp_out", block.mlp, "output", None, searched, within),
        Site(f"{prefix}.hook_resid_post", block.whole, "output"),
    ]
    if block.projection is not None:
        sites.append(Site(prefix + _HEADS_APART, block.projection, "input", heads))
    return sites
