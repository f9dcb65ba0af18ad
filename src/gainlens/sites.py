"""The sites of a block on each kind of model, under TransformerLens' hook names; scoped hooks.

Three kinds of model present the same sites: `hooked` (HookedTransformer), `bridge`
(TransformerBridge) and `native` (a Hugging Face causal LM).  A site is a module and the side of it
on which the tensor passes; reading is a torch forward hook, registered inside `try` and removed in
`finally`, so that none survives whatever is raised and no hook of the user's is touched.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["hooked", "bridge", "native"]
Reader = Callable[[Tensor], None]

BLOCK_SITES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


@dataclass(frozen=True)
class Site:
    """Where one activation can be read."""

    name: str
    """TransformerLens' hook name, e.g. blocks.3.hook_mlp_out"""
    module: nn.Module
    side: Literal["input", "output"]


@dataclass(frozen=True)
class ModelSites:
    """What capture needs to know of a model, whatever its kind."""

    kind: Kind
    sites: dict[str, Site]
    """by TransformerLens' hook name"""
    num_layers: int
    d_model: int
    final_norm: nn.Module
    device: torch.device
    run: Callable[[Tensor], object]
    """token ids [batch, position] -> a forward pass without logits"""

    def site(self, name: str) -> Site:
        """A site by name; ValueError names the nearest ones that exist."""
        if name not in self.sites:
            near = get_close_matches(name, self.sites, n=3, cutoff=0.3)
            raise ValueError(
                f"this {self.kind} model has no site {name!r}; the nearest are {', '.join(near)}"
            )
        return self.sites[name]


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


def _tensor_of(value: Any) -> Tensor:
    """Attention modules return (output, weights)."""
    return value[0] if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownVariableType]


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return _tensor_of(args[0] if args else kwargs["hidden_states"])


@contextmanager
def reading(readers: Sequence[tuple[Site, Reader]]) -> Generator[None]:
    """Call each reader with its site's activation during forward passes within the context.

    A reader sees what the model goes on with: hooks that were there before have run.
    """
    handles: list[Any] = []
    try:
        for site, read in readers:
            handles.append(_register(site, read))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _register(site: Site, read: Reader) -> Any:
    if site.side == "input":

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read(_first_tensor(args, kwargs))

        return site.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        read(_tensor_of(output))

    return site.module.register_forward_hook(after)


def _hooked_sites(model: Any) -> ModelSites:
    sites = {name: Site(name, module, "output") for name, module in model.hook_dict.items()}
    return ModelSites(
        kind="hooked",
        sites=sites,
        num_layers=model.cfg.n_layers,
        d_model=model.cfg.d_model,
        final_norm=model.ln_final,
        device=next(model.parameters()).device,
        run=lambda tokens: model(tokens, return_type=None),
    )


def _bridge_sites(model: Any) -> ModelSites:
    """HookPoints of a bridge go by canonical names; TransformerLens' old names are aliases."""
    hook_dict: dict[str, nn.Module] = model.hook_dict
    return ModelSites(
        kind="bridge",
        sites={name: Site(name, module, "output") for name, module in hook_dict.items()},
        num_layers=model.cfg.n_layers,
        d_model=model.cfg.d_model,
        final_norm=model.ln_final,
        device=next(model.parameters()).device,
        run=lambda tokens: model.original_model.base_model(tokens, use_cache=False),
    )


_LAYERS = ("layers", "h", "blocks")
_NORMS = ("norm", "final_layer_norm", "ln_f", "final_layernorm")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "block_sparse_moe")
"""Names under which Hugging Face decoders keep their parts; what is not additive under them is
refused at load."""


def _native_sites(model: Any) -> ModelSites:
    base = model.base_model
    layers = _child(base, _LAYERS, type(model).__name__)
    sites: dict[str, Site] = {}
    for index, layer in enumerate(layers):
        for name, module, side in _native_block(layer, type(model).__name__):
            full = f"blocks.{index}.{name}"
            sites[full] = Site(full, module, side)
    final_norm = _child(base, _NORMS, type(model).__name__)
    sites["ln_final"] = Site("ln_final", final_norm, "output")
    sites["hook_embed"] = Site("hook_embed", model.get_input_embeddings(), "output")
    return ModelSites(
        kind="native",
        sites=sites,
        num_layers=len(layers),
        d_model=model.config.get_text_config().hidden_size,
        final_norm=final_norm,
        device=model.get_input_embeddings().weight.device,
        run=lambda tokens: base(tokens, use_cache=False),
    )


def _native_block(
    layer: Any, model_name: str
) -> list[tuple[str, nn.Module, Literal["input", "output"]]]:
    """What is added to the stream: after the post-norms where the block has them (Gemma 2, 3)."""
    if hasattr(layer, "post_feedforward_layernorm"):
        attn, mlp = layer.post_attention_layernorm, layer.post_feedforward_layernorm
    else:
        attn, mlp = _child(layer, _ATTENTION, model_name), _child(layer, _MLP, model_name)
    return [
        ("hook_resid_pre", layer, "input"),
        ("hook_attn_out", attn, "output"),
        ("hook_mlp_out", mlp, "output"),
        ("hook_resid_post", layer, "output"),
    ]


def _child(module: Any, names: Sequence[str], model_name: str) -> Any:
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise ValueError(
        f"the native back end does not know where {model_name} keeps its {names[0]}: a "
        f"{type(module).__name__} has none of {', '.join(names)}; try --backend bridge"
    )
