"""Replace an activation by zero, a mean, another prompt's activation, or a user's function.

Each method is a class: `observe` learns from a reference prompt's activation, `replace` gives the
new one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from gainlens.activations.batches import Batch, batches
from gainlens.core.messages import check_one_of
from gainlens.core.spec import HOWS
from gainlens.interventions.addresses import Address
from gainlens.models.hooks import reading
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import ModelSites, Reader, Site
from gainlens.records.inputs import EncodedPrompts

How = str | Callable[..., Tensor | None]
"""zero, mean, resample, or a TransformerLens hook function (tensor, hook) -> tensor."""


class Rows:
    """Identify the rows of the running batch among the prompts of a reference.

    A row is known by its token ids without the padding on their right.
    """

    def __init__(self, reference: EncodedPrompts | None) -> None:
        self.passes = 0
        self._tokens: Tensor | None = None
        self._keys: list[bytes] | None = None
        prompts = () if reference is None else reference.tokens
        self.reference_keys = tuple(prompt_key(tokens) for tokens in prompts)
        # Prompts that differ only in trailing 0s share a key: the longest covers the others.
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        self._index = {self.reference_keys[index]: index for index in by_length}

    def see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the token ids of a forward pass, as a pre-hook of the embedding."""
        self._tokens = args[0] if args else next(iter(kwargs.values()))
        self._keys = None
        self.passes += 1

    def keys(self, tensor: Tensor) -> list[bytes]:
        """Return the key of each row of an activation [batch, position, ...]."""
        tokens = self._tokens
        if tokens is None or tokens.shape != tensor.shape[:2]:
            raise ValueError(
                f"an activation of shape {tuple(tensor.shape)} does not match the token ids of "
                f"shape {None if tokens is None else tuple(tokens.shape)}, so its rows are not "
                "known. Run the model on token ids [batch, position]"
            )
        if self._keys is None:
            self._keys = [prompt_key(row) for row in tokens.cpu().numpy()]
        return self._keys

    def prompt(self, key: bytes) -> int | None:
        """Return the index of the reference prompt with this key, None if there is none."""
        return self._index.get(key)


def prompt_key(tokens: np.ndarray) -> bytes:
    """Return the key of a prompt: its token ids without trailing 0s."""
    return np.trim_zeros(np.asarray(tokens, dtype=np.int64), "b").tobytes()


class Replacement:
    """Replace an activation [batch, position, ...] in one of several ways."""

    needs_reference = False

    def observe(self, batch: Batch, tensor: Tensor) -> None:
        """Learn from the activation of a batch of reference prompts."""

    def check(self) -> None:
        """Raise ValueError if the reference gave too little to replace with."""

    def replace(self, tensor: Tensor) -> Tensor:
        """Return a new activation of the same shape."""
        raise NotImplementedError


class Zero(Replacement):
    """Replace by 0."""

    def replace(self, tensor: Tensor) -> Tensor:
        return torch.zeros_like(tensor)


class Mean(Replacement):
    """Replace by the mean over the reference's tokens: one of position 0, one of all others."""

    needs_reference = True

    def __init__(self) -> None:
        self._first: Tensor | float = 0.0
        self._later: Tensor | float = 0.0
        self._num_first = self._num_later = 0

    def observe(self, batch: Batch, tensor: Tensor) -> None:
        wide = tensor.detach().double()  # thousands of tokens are summed, some of them massive
        is_later = (torch.arange(1, wide.shape[1]) < batch.lengths[:, None]).to(wide.device)
        self._first = self._first + wide[:, 0].sum(0)
        self._later = self._later + wide[:, 1:][is_later].sum(0)
        self._num_first += len(wide)
        self._num_later += int(is_later.sum())

    def check(self) -> None:
        if not self._num_later:
            raise ValueError("the reference has no token after position 0 to take a mean over")

    def replace(self, tensor: Tensor) -> Tensor:
        later = torch.as_tensor(self._later / self._num_later).to(tensor)
        mean = later.expand(tensor.shape).clone()
        mean[:, 0] = torch.as_tensor(self._first / self._num_first).to(tensor)
        return mean


class Resample(Replacement):
    """Replace by what the same position of another reference prompt has.

    A prompt's donors follow it in a random order of the reference.  Each position comes from the
    first donor that is long enough; beyond the longest donor its last position is repeated.
    """

    needs_reference = True

    def __init__(self, rows: Rows, seed: int) -> None:
        if len(set(rows.reference_keys)) < 2:
            raise ValueError("resample needs a reference of at least two different prompts")
        self._rows = rows
        self._activations: dict[int, Tensor] = {}
        order = np.random.default_rng(seed).permutation(len(rows.reference_keys))
        self._order: list[int] = order.tolist()

    def observe(self, batch: Batch, tensor: Tensor) -> None:
        for index, length, row in zip(batch.index, batch.lengths.tolist(), tensor, strict=True):
            self._activations[index] = row[:length].detach().clone()

    def replace(self, tensor: Tensor) -> Tensor:
        keys = self._rows.keys(tensor)
        return torch.stack([self._row(key, tensor.shape[1]) for key in keys]).to(tensor)

    def _row(self, key: bytes, length: int) -> Tensor:
        index = self._rows.prompt(key)
        # A prompt starts at its own place in the order, so that no two share their first donor.
        start = (crc32(key) if index is None else self._order.index(index)) % len(self._order)
        order = self._order[start:] + self._order[:start]
        donors = [self._activations[i] for i in order if self._rows.reference_keys[i] != key]
        pieces: list[Tensor] = []
        filled = 0
        for donor in donors:
            if len(donor) > filled:
                pieces.append(donor[filled:length])
                filled += len(pieces[-1])
        if filled < length:
            last = max(donors, key=len)[-1:]
            pieces.append(last.expand(length - filled, *last.shape[1:]))
        return torch.cat(pieces)


@dataclass(frozen=True)
class Hook:
    """Tell a TransformerLens hook function where it is called."""

    name: str
    """the site, e.g. blocks.3.hook_mlp_out"""
    ctx: dict[Any, Any] = field(default_factory=dict[Any, Any])
    """the function's own storage, as on TransformerLens' HookPoint"""

    def layer(self) -> int:
        """Return the block's index, as TransformerLens' HookPoint does."""
        return int(self.name.split(".")[1])


class UserHook(Replacement):
    """Replace by what a TransformerLens hook function returns, checked against the site."""

    def __init__(self, function: Callable[..., Tensor | None], name: str) -> None:
        self._function, self._hook = function, Hook(name)

    def replace(self, tensor: Tensor) -> Tensor:
        given = tensor.clone()  # the function may work in place, as TransformerLens allows
        result: Any = self._function(given, hook=self._hook)
        result = given if result is None else result
        if not isinstance(result, Tensor) or result.shape != tensor.shape:
            is_tensor = isinstance(result, Tensor)
            what = f"shape {tuple(result.shape)}" if is_tensor else type(result).__name__
            raise ValueError(
                f"the hook function at {self._hook.name} returned {what}, and the site needs shape "
                f"{tuple(tensor.shape)}. Return that shape, or None after a change in place"
            )
        return result.to(tensor)


def replacement_of(
    how: How, address: Address, rows: Rows, reference: EncodedPrompts | None, seed: int = 0
) -> Replacement:
    """Return the replacement that a method or hook function stands for.

    Raises ValueError for an unknown method, and for one that needs a reference if there is none.
    """
    if callable(how):
        return UserHook(how, address.name)
    check_one_of(f"the method at {address.name}", how, HOWS)
    if how == "zero":
        return Zero()
    if reference is None:
        raise ValueError(f"{how} at {address.name} needs prompts to draw on: give `reference`")
    return Mean() if how == "mean" else Resample(rows, seed)


Replaced = tuple[Address, Replacement]
"""A site, and what replaces its activation."""


def observers(replaced: Iterable[Replaced], batch: Batch) -> list[tuple[Site, Reader]]:
    """Return readers that let every replacement observe one batch of the reference."""

    def observe(address: Address, replacement: Replacement, tensor: Tensor) -> None:
        replacement.observe(batch, address.part(tensor))

    return [
        (address.site, partial(observe, address, replacement))
        for address, replacement in replaced
        if replacement.needs_reference
    ]


def observe_reference(
    model: AnyModel, sites: ModelSites, replaced: Sequence[Replaced], reference: EncodedPrompts
) -> None:
    """Run the reference once and let every replacement observe it, in every process."""
    if any(replacement.needs_reference for _, replacement in replaced):
        for batch in batches(model, reference, sites, all_of_them=True):
            with torch.no_grad(), reading(observers(replaced, batch)):
                sites.run(batch.tokens)
