"""Keep tokens from attending chosen earlier tokens, on every back end.

TransformerLens shows the attention scores, so they are set to -inf there.  Hugging Face's blocks
are called with an attention mask, so there the mask is changed.
"""

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from gainlens.interventions.replacements import Rows
from gainlens.models.decoders import first_tensor
from gainlens.models.hooks import reading, scoped, writing
from gainlens.models.loaded import AnyModel, ModelSites
from gainlens.models.sites import sites_of

Chosen = Callable[[bytes, int], np.ndarray]
"""Takes a prompt's key and its padded length; returns the position that each query may not attend,
[position], or -1 if it may attend every one."""
_MASK: Final = "attention_mask"
"""Name of the mask's parameter in Hugging Face's blocks."""
_CHECKED: Final = 8
"""Number of tokens on which `check_masking` runs."""
_SAME: Final = 1e-4
"""Share of the largest component by which two streams that must be equal may differ."""


def first_position(key: bytes, length: int) -> np.ndarray:
    """Return position 0 for every query but the first, which has nothing else to attend."""
    chosen = np.zeros(length, dtype=np.int64)
    chosen[0] = -1
    return chosen


def random_position(seed: tuple[int, int], key: bytes, length: int) -> np.ndarray:
    """Return a random earlier position other than 0 for every query from position 2 on.

    A prompt's draw depends on the seed and its own tokens alone, not on its batch.
    """
    chosen = np.full(length, -1, dtype=np.int64)
    share = np.random.default_rng([*seed, crc32(key)]).random(length)
    later = np.arange(2, length)
    chosen[2:] = 1 + np.floor(share[2:] * (later - 1)).astype(np.int64)
    return chosen


@contextmanager
def attention_masked(model: AnyModel, chosen: Chosen) -> Generator[None]:
    """Keep every query from attending its chosen position, in all heads of all blocks.

    Raises ValueError if the model's attention cannot be reached.
    """
    sites = sites_of(model)
    rows = Rows(None)

    def forbidden(shown: Tensor) -> Tensor:
        """Return the mask [batch, 1, query, key] of what shows [batch, position, ...]."""
        length = shown.shape[1]
        places = torch.from_numpy(np.stack([chosen(key, length) for key in rows.keys(shown)]))
        return (places[:, None, :, None] == torch.arange(length)).to(shown.device)

    def rescored(scores: Tensor) -> Tensor:
        return scores.masked_fill(forbidden(scores[:, 0]), -torch.inf)

    see = partial(sites.embedding.register_forward_pre_hook, rows.see, with_kwargs=True)
    names = [f"blocks.{block}.attn.hook_attn_scores" for block in range(sites.num_blocks)]
    if all(name in sites.sites for name in names):
        with scoped([see]), writing([(sites.site(name), rescored) for name in names]):
            yield
        return
    remask = partial(_remask, forbidden)
    hooks = [
        partial(block.register_forward_pre_hook, remask, with_kwargs=True) for block in sites.blocks
    ]
    with scoped([see, *hooks]):
        yield


def _remask(
    forbidden: Callable[[Tensor], Tensor],
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add the forbidden positions to the attention mask that a block is called with."""
    names = list(inspect.signature(module.forward).parameters)
    place = names.index(_MASK) if _MASK in names else len(args)
    mask = args[place] if place < len(args) else kwargs.get(_MASK)
    known = place < len(args) or _MASK in kwargs
    if not known or (mask is not None and mask.dim() != 4):
        raise ValueError(
            f"a {type(module).__name__} is called without an attention mask [batch, head, query, "
            "key], so its attention cannot be masked; --backend hooked may show its scores"
        )
    new = _combined(mask, first_tensor(args, kwargs), forbidden)
    if place < len(args):
        return (*args[:place], new, *args[place + 1 :]), kwargs
    return args, {**kwargs, _MASK: new}


def _combined(mask: Tensor | None, stream: Tensor, forbidden: Callable[[Tensor], Tensor]) -> Tensor:
    """Return an additive mask [batch, head, query, key]; None: causal, left to the attention."""
    wanted = forbidden(stream)
    if mask is None:
        length = stream.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=stream.device).tril()
        mask = mask.expand(len(stream), 1, length, length)
    if mask.dtype != torch.bool:
        return mask.masked_fill(wanted, torch.finfo(mask.dtype).min)
    zero = torch.zeros((), dtype=stream.dtype, device=stream.device)
    lowest = torch.full_like(zero, torch.finfo(stream.dtype).min)
    return torch.where(mask & ~wanted, zero, lowest)


def check_masking(model: AnyModel, tokens: np.ndarray) -> None:
    """Raise ValueError unless a token that no other attends has no part in what follows it.

    Args:
        model: that is to be masked.
        tokens: ids of a prompt of at least two tokens.
    """
    sites = sites_of(model)
    ids = torch.from_numpy(np.asarray(tokens[:_CHECKED], dtype=np.int64))[None].to(sites.device)
    other = ids.clone()
    other[0, 0] = 0 if int(ids[0, 0]) else 1
    plain = [_stream(sites, each) for each in (ids, other)]
    with attention_masked(model, first_position):
        masked = [_stream(sites, each) for each in (ids, other)]
    scale = _SAME * float(masked[0].abs().max())
    if not torch.allclose(*masked, rtol=0.0, atol=scale):
        raise ValueError(
            f"this {sites.kind} model attends position 0 although it is masked, so its sink cannot "
            "be masked"
        )
    if torch.equal(plain[0], masked[0]) and not torch.equal(*plain):
        raise ValueError(f"the mask has no effect on this {sites.kind} model")


def _stream(sites: ModelSites, tokens: Tensor) -> Tensor:
    """Return what leaves the last block at the positions after 0."""
    streams: list[Tensor] = []
    last = sites.site(f"blocks.{sites.num_blocks - 1}.hook_resid_post")
    with torch.no_grad(), reading([(last, streams.append)]):
        sites.run(tokens)
    return streams[0][:, 1:].float()
