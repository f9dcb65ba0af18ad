"""The sites of a block on each kind of model, under TransformerLens' hook names; scoped hooks.

Three kinds of model present the same sites: `hooked` (HookedTransformer), `bridge`
(TransformerBridge) and `native` (a Hugging Face causal LM).  A site is a module and the side of it
on which the tensor passes; reading and writing are torch forward hooks, registered inside `try` and
removed in `finally`, so that none survives and no hook of the user's is touched.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gainlens.models.decoders import (
    AttentionOut,
    DecoderBlock,
    decoder_of,
    learned_positions,
    post_norm_of,
    projected,
)
from gainlens.models.memory import Run, attention_fits, guarded, no_longer_than
from gainlens.models.placement import device_of

Kind = Literal["hooked", "bridge", "native"]
Reader = Callable[[Tensor], None]
Writer = Callable[[Tensor], Tensor]

BLOCK_SITES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


@dataclass(frozen=True)
class Site:
    """Where one activation can be read and written."""

    name: str
    """TransformerLens' hook name, e.g. blocks.3.hook_mlp_out"""
    module: nn.Module
    side: Literal["input", "output"]
    heads: int | None = None
    """where the module passes its heads side by side: readers and writers see them apart, [batch,
    position, head, d_head]"""


@dataclass(frozen=True)
class ModelSites:
    """What capture needs to know of a model, whatever its kind."""

    kind: Kind
    sites: dict[str, Site]
    """by TransformerLens' hook name; ln_final is the whole norm, whose hook_normalized is before
    its weight on some back ends and after it on others"""
    num_blocks: int
    num_heads: int
    d_model: int
    embedding: nn.Module
    """called with the token ids of every forward pass"""
    blocks: tuple[nn.Module, ...]
    """called in turn, the stream first"""
    final_norm: nn.Module
    unembed: nn.Module
    device: torch.device
    run: Run
    """token ids [batch, position] -> a forward pass without logits; ValueError for a prompt that
    the model cannot hold"""
    logits: Run
    """token ids [batch, position] -> the model's own logits [batch, position, d_vocab]"""
    attention_out: Callable[[int], AttentionOut]
    """a block's W_O, b_O and post-norm"""

    def site(self, name: str) -> Site:
        """A site by name; ValueError names the nearest ones that exist."""
        if name in self.sites:
            return self.sites[name]
        near = get_close_matches(name, self.sites, n=3, cutoff=0.3)
        beside = f"the nearest are {', '.join(near)}"
        match = _BLOCK_NAME.fullmatch(name)
        if match and int(match[1]) >= self.num_blocks:
            beside = f"its blocks are 0 to {self.num_blocks - 1}"
        elif match and _ONLY_TRANSFORMER_LENS.fullmatch(match[2]):
            beside = f"hooked and bridge models have it (--backend hooked or bridge); {beside}"
        raise ValueError(f"this {self.kind} model has no site {name!r}; {beside}")


def kind_of(model: nn.Module) -> Kind:
    """hooked, bridge or native, by the model's class; ValueError for anything else."""
    names = {cls.__name__ for cls in type(model).__mro__}
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


def sites_of(model: nn.Module) -> ModelSites:
    """The sites of a model of any of the three kinds."""
    kind = kind_of(model)
    return {"hooked": _hooked_sites, "bridge": _bridge_sites, "native": _native_sites}[kind](model)


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
        run=guarded(lambda tokens: model(tokens, return_type=None), "hooked", *checks),
        logits=guarded(model, "hooked", *checks),
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
        run=guarded(lambda tokens: hf_model.base_model(tokens, use_cache=False), "bridge", *checks),
        logits=guarded(model, "bridge", *checks),
        attention_out=lambda block: projected(
            model.blocks[block].attn.o, post_norm_of(model.blocks[block].original_component)
        ),
    )


_LEARNED = "its positions are a table, so no back end goes beyond it"
_HEADS_APART = ".attn.hook_z"
"""TransformerLens shows z as [batch, position, head, d_head] on every kind of model."""
_BLOCK_NAME = re.compile(r"blocks\.(\d+)\.(.+)")
_ONLY_TRANSFORMER_LENS = re.compile(
    r"hook_(resid_mid|attn_in|mlp_in|[qkv]_input)|ln[12]\.hook_(scale|normalized)"
    r"|attn\.hook_([qkvz]|rot_[qk]|attn_scores|pattern|result)|mlp\.hook_(pre|pre_linear|post)"
)
"""Sites of a block that both of TransformerLens' front ends have and the native back end has not
(hook_z only where attention's output projection is found)."""


def _native_sites(model: Any) -> ModelSites:
    base, config, decoder = model.base_model, model.config.get_text_config(), decoder_of(model)
    embedding = model.get_input_embeddings()
    norm = decoder.final_norm
    found = [Site("hook_embed", embedding, "output"), Site("ln_final", norm, "output")]
    for index, block in enumerate(decoder.blocks):
        found += _native_block(f"blocks.{index}", block, config.num_attention_heads)
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
        run=guarded(lambda tokens: base(tokens, use_cache=False), "native", *checks),
        logits=guarded(lambda tokens: model(tokens, use_cache=False).logits, "native", *checks),
        attention_out=lambda index: projected(
            decoder.blocks[index].projection,
            decoder.blocks[index].post_norm,
            f"block {index} of this {type(model).__name__}",
        ),
    )


def _native_block(prefix: str, block: DecoderBlock, heads: int) -> list[Site]:
    sites = [
        Site(f"{prefix}.hook_resid_pre", block.whole, "input"),
        Site(f"{prefix}.hook_attn_out", block.attention, "output"),
        Site(f"{prefix}.hook_mlp_out", block.mlp, "output"),
        Site(f"{prefix}.hook_resid_post", block.whole, "output"),
    ]
    if block.projection is not None:
        sites.append(Site(prefix + _HEADS_APART, block.projection, "input", heads))
    return sites
