"""Run a model so that a prompt's numbers depend on nothing but the prompt.

Three things could make them depend on more.  Dropout is switched off during the pass.  Dynamic
RoPE keeps the frequencies of the longest prompt so far, so they are reset before each pass.  RoPE
that depends on the length of the batch (dynamic and longrope) forbids padding a short prompt to the
length of a long one; `length_key` says which lengths go together.
"""

from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from gainlens.models.memory import Check, Run, enough_memory


def guarded(model: nn.Module, run: Run, kind: str, *checks: Check) -> Run:
    """Return `run` behind checks of its tokens, in eval mode, with a sentence if memory runs out.

    Args:
        model: whose pass `run` is.
        run: token ids [batch, position] -> a forward pass.
        kind: hooked, bridge or native.
        checks: called with the tokens before each pass.
    """

    def checked(tokens: Tensor) -> Any:
        for check in checks:
            check(tokens)
        doing = f"running {tokens.shape[0]} x {tokens.shape[1]:,} tokens"
        with evaluating(model), enough_memory(doing, kind):
            reset_rope(model)
            return run(tokens)

    return checked


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Switch dropout off within the context; afterwards each module is in the mode it was in."""
    training = [module for module in _modules(model) if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def reset_rope(model: nn.Module) -> None:
    """Give dynamic RoPE the frequencies that it starts with."""
    for module in _modules(model):
        for prefix, kind in _rope_types(module):
            start = getattr(module, f"{prefix}original_inv_freq", None)
            if "dynamic" not in kind or start is None:
                continue
            current = getattr(module, f"{prefix}inv_freq")
            setattr(module, f"{prefix}inv_freq", start.to(current.device))
            changed = cast(Any, module)
            if hasattr(module, f"{prefix}max_seq_len_cached"):
                setattr(module, f"{prefix}max_seq_len_cached", changed.original_max_seq_len)
            changed.max_seq_len_cached = changed.original_max_seq_len


def length_key(model: nn.Module) -> Callable[[int], Hashable]:
    """Return a function from a prompt's length to a key; prompts of one key may be padded together.

    Within the original context all lengths share a key.  Beyond it, every length has frequencies of
    its own under dynamic RoPE, and all lengths share the long factors under longrope.
    """
    dynamic: list[int] = []
    longrope: list[int] = []
    for module in _modules(model):
        for prefix, kind in _rope_types(module):
            rotary: Any = module
            if "dynamic" in kind:
                dynamic.append(int(rotary.original_max_seq_len))
            elif kind == "longrope":
                parameters = rotary.config.rope_parameters
                parameters = parameters[prefix.removesuffix("_")] if prefix else parameters
                longrope.append(int(parameters["original_max_position_embeddings"]))

    def key(length: int) -> Hashable:
        beyond = tuple(length > limit for limit in longrope)
        return beyond, length if any(length > limit for limit in dynamic) else 0

    return key


def _modules(model: nn.Module) -> Generator[nn.Module]:
    """Yield every module, one that is shared as often as it is reached.

    Each pass walks over the modules, and `nn.Module.modules` builds their names as well: that takes
    twice as long.
    """
    yield model
    for child in model.children():
        yield from _modules(child)


def _rope_types(module: nn.Module) -> list[tuple[str, str]]:
    """Return the prefix of the buffers' names and the rope_type; Gemma 3 has one per layer type."""
    kind = vars(module).get("rope_type")  # getattr searches parameters and buffers as well
    if isinstance(kind, str):
        return [("", kind)]
    if isinstance(kind, Mapping):
        by_type = cast(Mapping[str, str], kind)
        return [(f"{layer_type}_", value) for layer_type, value in by_type.items()]
    return []
