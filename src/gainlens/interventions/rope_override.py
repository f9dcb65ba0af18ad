"""Change RoPE's base, scaling or frequencies on fixed weights, by replacing the rotary tables.

This shows what weights trained under one base do under another.  It does not show what weights
trained under that other base do.
"""

import copy
import math
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from gainlens.models.loaded import AnyModel, module_of
from gainlens.models.sites import kind_of
from gainlens.weights.rope import check_theta, inverse_frequencies, rope_report


@contextmanager
def rope_theta(model: AnyModel, theta: float) -> Generator[None]:
    """Run the same weights under another RoPE base for as long as the context is open.

    Works on HookedTransformer, TransformerBridge and Hugging Face models.  Scaling does not change,
    and sliding layers that have a base of their own keep it (Gemma 3).  The model computes what a
    model built with that base would; afterwards it is as before, to the bit.

    Args:
        model: from `load` or `wrap`, or a bare model.
        theta: the base, 10,000 in Llama 2 and 500,000 in Llama 3.

    Examples:
        >>> with gainlens.rope_theta(loaded.model, 5e5):
        ...     swapped = gainlens.capture(loaded.model, prompts)
        >>> bool((swapped.gram != captured.gram).any())
        True

    Raises ValueError for a base that is not a finite number above 1, and for a model without RoPE.
    """
    if not (math.isfinite(theta) and theta > 1):
        raise ValueError(f"a RoPE base is a finite number above 1, such as 500000; got {theta}")
    with _changed(module_of(model), {"rope_theta": float(theta)}, {"rotary_base": float(theta)}):
        yield


@contextmanager
def checked_theta(model: AnyModel, config: Any, theta: float) -> Generator[None]:
    """Open `rope_theta`, and raise ValueError unless the rotary buffers turn with that base.

    config: the Hugging Face config as a plain dictionary.
    """
    with rope_theta(model, theta):
        check_theta(rope_report(model, config), theta)
        yield


@contextmanager
def rope_scaling(model: AnyModel, scaling: Mapping[str, Any] | None) -> Generator[None]:
    """Run the same weights without RoPE scaling for as long as the context is open.

    Takes llama3, yarn, linear, dynamic and longrope scaling away; the base does not change.

    Args:
        model: from `load` or `wrap`, or a bare model.
        scaling: None for no scaling.  Not every back end can set another kind.

    Raises ValueError for any other scaling, and for a model without RoPE.
    """
    if scaling is not None:
        raise ValueError(f"rope_scaling takes None, which removes the scaling; got {scaling!r}")
    plain = {
        "use_NTK_by_parts_rope": False,
        "use_yarn_rope": False,
        "rotary_scaling_factor": 1.0,
    }
    with _changed(module_of(model), None, plain):
        yield


@contextmanager
def rope_frequencies(model: AnyModel, factors: Float64[np.ndarray, " pair"]) -> Generator[None]:
    """Multiply RoPE's frequencies by factors for as long as the context is open.

    Args:
        model: from `load` or `wrap`, or a bare model.
        factors: one per rotated pair of dimensions; sliding layers with a base of their own keep
            their frequencies.

    Raises ValueError for a model without RoPE, and for one whose frequencies depend on the length
    of the prompt (dynamic and longrope).
    """
    bare = module_of(model)
    with ExitStack() as stack:
        if kind_of(bare) == "hooked":
            if bare.cfg.positional_embedding_type != "rotary":
                raise _no_rope(bare)
            speeds = inverse_frequencies(bare)
            assert speeds is not None, "a rotary HookedTransformer has tables"
            for attention in (block.attn for block in bare.blocks):
                if attention.attn_type != "local":
                    stack.enter_context(_turning(attention, speeds * factors))
        else:
            for module in _rotary_modules(bare):
                stack.enter_context(_multiplied(module, factors))
        yield


@contextmanager
def _turning(attention: Any, speeds: Float64[np.ndarray, " pair"]) -> Generator[None]:
    """Give a HookedTransformer tables [position, rotary_dim] for other speeds, radians per
    token."""
    sin, cos = attention.rotary_sin, attention.rotary_cos
    adjacent = attention.cfg.rotary_adjacent_pairs
    columns = np.repeat(speeds, 2) if adjacent else np.concatenate([speeds, speeds])
    angles = torch.from_numpy(np.arange(len(sin))[:, None] * columns)
    scale = cos[0, 0]  # YaRN multiplies both tables by its attention factor
    try:
        attention.rotary_sin, attention.rotary_cos = (
            table.to(sin) * scale for table in (angles.sin(), angles.cos())
        )
        yield
    finally:
        attention.rotary_sin, attention.rotary_cos = sin, cos


@contextmanager
def _multiplied(module: Any, factors: Float64[np.ndarray, " pair"]) -> Generator[None]:
    """Multiply the frequencies of a Hugging Face rotary module by factors."""
    kinds = getattr(module, "rope_type", "default")
    kinds = set(kinds.values()) if isinstance(kinds, Mapping) else {kinds}
    if kinds & {"dynamic", "longrope"}:
        raise ValueError(
            "RoPE's frequencies of this model depend on the prompt's length, so they cannot be "
            "multiplied by fixed factors"
        )
    names = ("full_attention_inv_freq", "inv_freq")
    name = next(name for name in names if name in module._buffers)
    own = module._buffers[name]
    try:
        module._buffers[name] = own * torch.from_numpy(factors).to(own)
        yield
    finally:
        module._buffers[name] = own


@contextmanager
def _changed(
    model: Any, parameters: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> Generator[None]:
    """Change the rotary tables of any model.

    parameters: what changes in Hugging Face's rope_parameters, None for no scaling; settings: what
    changes in TransformerLens' config.
    """
    with ExitStack() as stack:
        if kind_of(model) == "hooked":
            stack.enter_context(_hooked(model, settings))
        else:
            for module in _rotary_modules(model):
                stack.enter_context(_rebuilt(module, parameters))
        yield


def _rotary_modules(model: Any) -> list[nn.Module]:
    """Return the rotary modules of a Hugging Face model, also under a TransformerBridge."""
    decoder = _decoder(getattr(model, "original_model", model))
    modules = [module for module in decoder.modules() if _is_rotary(module)]
    if not modules:
        raise _no_rope(model)
    return modules


def _decoder(hf_model: Any) -> nn.Module:
    return hf_model.get_decoder() if hasattr(hf_model, "get_decoder") else hf_model


def _no_rope(model: nn.Module) -> ValueError:
    return ValueError(
        f"this {kind_of(model)} model has no rotary tables of its own ({type(model).__name__}): "
        "there is no RoPE base to change"
    )


@contextmanager
def _hooked(model: Any, settings: Mapping[str, Any]) -> Generator[None]:
    """Replace the sin and cos tables of every block, and the config from which they grow later."""
    if model.cfg.positional_embedding_type != "rotary":
        raise _no_rope(model)
    attentions: list[Any] = [block.attn for block in model.blocks]
    configs = {id(cfg): cfg for cfg in (model.cfg, *(attention.cfg for attention in attentions))}
    saved = {
        key: {name: getattr(cfg, name) for name in settings if hasattr(cfg, name)}
        for key, cfg in configs.items()
    }
    tables: list[tuple[Tensor, Tensor]] = [(a.rotary_sin, a.rotary_cos) for a in attentions]
    try:
        for key, cfg in configs.items():
            for name in saved[key]:
                setattr(cfg, name, settings[name])
        for attention, (sin, _) in zip(attentions, tables, strict=True):
            new = attention.calculate_sin_cos_rotary(
                attention.cfg.rotary_dim,
                len(sin),
                base=attention._rotary_base(),  # that of its kind of layer, sliding or full
                dtype=attention.cfg.dtype,
            )
            attention.rotary_sin, attention.rotary_cos = (table.to(sin.device) for table in new)
        yield
    finally:
        for key, cfg in configs.items():
            for name, value in saved[key].items():
                setattr(cfg, name, value)
        for attention, (sin, cos) in zip(attentions, tables, strict=True):
            attention.rotary_sin, attention.rotary_cos = sin, cos


def _is_rotary(module: Any) -> bool:
    """Return True for Hugging Face's own rotary module, not for TransformerLens' wrapper of it."""
    named = any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))
    return named and hasattr(module, "config")


@contextmanager
def _rebuilt(module: Any, parameters: Mapping[str, Any] | None) -> Generator[None]:
    """Give a rotary module the tables that transformers makes for the changed config."""
    config = copy.deepcopy(module.config)
    config.rope_parameters = _with(config.rope_parameters, parameters)
    fresh = type(module)(config=config)
    buffers, saved = dict(module._buffers), _settings(module)
    try:
        _set(module, _settings(fresh))
        for name, buffer in fresh._buffers.items():
            module._buffers[name] = buffer.to(buffers[name])
        yield
    finally:
        _set(module, saved)
        module._buffers.clear()
        module._buffers.update(buffers)


def _with(old: Mapping[str, Any], parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return rope_parameters with a change; if kinds of layers differ, of full attention's."""
    by_type = {key: value for key, value in old.items() if isinstance(value, Mapping)}
    if by_type:
        chosen = "full_attention" if "full_attention" in by_type else next(iter(by_type))
        return {**old, chosen: _with(by_type[chosen], parameters)}
    if parameters is not None:
        return {**old, **parameters}
    kept = {key: old[key] for key in ("rope_theta", "partial_rotary_factor") if key in old}
    return {"rope_type": "default", **kept}


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return the plain attributes of a module: no hook, buffer or submodule."""
    skip = ("_", "training")
    return {name: value for name, value in vars(module).items() if not name.startswith(skip)}


def _set(module: nn.Module, settings: Mapping[str, Any]) -> None:
    for name in _settings(module):
        delattr(module, name)
    for name, value in settings.items():
        setattr(module, name, value)
