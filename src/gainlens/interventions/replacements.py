"""What takes an activation's place: zero, a mean, another prompt's, or the user's own function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from gainlens.activations.batches import Batch, batches
from gainlens.models.hooks import reading
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import ModelSites, Reader, Site
from gainlens.records.inputs import EncodedPrompts

Replacement = Callable[[Tensor], Tensor]
"""[batch, position, ...] -> the same shape."""


@dataclass(frozen=True)
class Address:
    """A site, or one head of it."""

    site: Site
    head: int | None = None

    @property
    def name(self) -> str:
        return self.site.name if self.head is None else f"{self.site.name}[{self.head}]"

    def part(self, tensor: Tensor) -> Tensor:
        """What of the site's activation is meant."""
        return tensor if self.head is None else tensor[..., self.head, :]

    def put(self, tensor: Tensor, part: Tensor) -> Tensor:
        """The site's activation with that part replaced."""
        if self.head is None:
            return part
        whole = tensor.clone()
        whole[..., self.head, :] = part
        return whole


@dataclass(frozen=True)
class Hook:
    """What a TransformerLens hook function is given beside the tensor."""

    name: str
    """the site, e.g. blocks.3.hook_mlp_out"""
    ctx: dict[Any, Any] = field(default_factory=dict[Any, Any])
    """a place of the function's own, as on TransformerLens' HookPoint"""

    def layer(self) -> int:
        """The block's index."""
        return int(self.name.split(".")[1])


class Rows:
    """What the model is being run on: the token ids, and which reference prompt each row is."""

    def __init__(self, reference: EncodedPrompts | None) -> None:
        self.passes = 0
        self._tokens: Tensor | None = None
        self._keys: list[bytes] | None = None
        own = () if reference is None else reference.tokens
        self.reference_keys = tuple(_key(tokens) for tokens in own)
        # of prompts that differ in trailing 0s the longest: it knows all positions of the others
        by_length = sorted(range(len(own)), key=lambda index: len(own[index]))
        self._index = {self.reference_keys[index]: index for index in by_length}

    def see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook of the embedding."""
        self._tokens = args[0] if args else next(iter(kwargs.values()))
        self._keys = None
        self.passes += 1

    def keys(self, tensor: Tensor) -> list[bytes]:
        """The token ids of each row that an activation [batch, position, ...] belongs to."""
        tokens = self._tokens
        if tokens is None or tokens.shape != tensor.shape[:2]:
            raise ValueError(
                f"an activation of shape {tuple(tensor.shape)} cannot be told prompt by prompt: "
                f"the token ids have shape {None if tokens is None else tuple(tokens.shape)}; "
                "run the model on token ids [batch, position]"
            )
        if self._keys is None:
            self._keys = [_key(row) for row in tokens.cpu().numpy()]
        return self._keys

    def prompt(self, key: bytes) -> int | None:
        """Index of the reference prompt with these token ids."""
        return self._index.get(key)


def _key(tokens: np.ndarray) -> bytes:
    """Token ids without the padding on their right."""
    return np.trim_zeros(np.asarray(tokens, dtype=np.int64), "b").tobytes()


def zero() -> Replacement:
    return torch.zeros_like


def own(function: Callable[..., Tensor | None], name: str) -> Replacement:
    """The user's TransformerLens hook function, checked: what it returns must fit the site."""
    hook = Hook(name)

    def replace(tensor: Tensor) -> Tensor:
        given = tensor.clone()  # it may work in place, as TransformerLens allows
        got: Any = function(given, hook=hook)
        got = given if got is None else got
        if not isinstance(got, Tensor) or got.shape != tensor.shape:
            what = f"shape {tuple(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
            raise ValueError(
                f"the hook function at {name} returned {what}, and the site needs a tensor of "
                f"shape {tuple(tensor.shape)}: return the shape that it was given, or None to "
                "leave the tensor as the function left it"
            )
        return got.to(tensor)

    return replace


class Mean:
    """Running mean over reference tokens: of position 0, and of all others."""

    def __init__(self) -> None:
        self._sums: list[Tensor | float] = [0.0, 0.0]
        self._counts = [0, 0]

    def add(self, batch: Batch, tensor: Tensor) -> None:
        # float64: thousands of tokens, some of them massive
        wide = tensor.detach().double()
        later = torch.arange(1, wide.shape[1]) < batch.lengths[:, None]
        later = later.to(wide.device)
        self._sums[0] = self._sums[0] + wide[:, 0].sum(0)
        self._sums[1] = self._sums[1] + wide[:, 1:][later].sum(0)
        self._counts[0] += len(wide)
        self._counts[1] += int(later.sum())

    def replacement(self) -> Replacement:
        if not self._counts[1]:
            raise ValueError("the reference has no token after position 0 to take a mean over")
        first, later = (
            total / count for total, count in zip(self._sums, self._counts, strict=True)
        )

        def replace(tensor: Tensor) -> Tensor:
            mean = torch.as_tensor(later).to(tensor).expand(tensor.shape).clone()
            mean[:, 0] = torch.as_tensor(first).to(tensor)
            return mean

        return replace


class Donors:
    """Every reference prompt's activation, for others to be given."""

    def __init__(self, rows: Rows, seed: int) -> None:
        self._rows = rows
        self._found: dict[int, Tensor] = {}
        count = len(rows.reference_keys)
        self._order: list[int] = np.random.default_rng(seed).permutation(count).tolist()

    def add(self, batch: Batch, tensor: Tensor) -> None:
        for index, length, row in zip(batch.index, batch.lengths.tolist(), tensor, strict=True):
            self._found[index] = row[:length].detach().clone()

    def replacement(self) -> Replacement:
        if len(set(self._rows.reference_keys)) < 2:
            raise ValueError("resample needs a reference of at least two different prompts")

        def replace(tensor: Tensor) -> Tensor:
            keys = self._rows.keys(tensor)
            return torch.stack([self._row(key, tensor.shape[1]) for key in keys]).to(tensor)

        return replace

    def _row(self, key: bytes, length: int) -> Tensor:
        """Each position from the first prompt, in this row's order, that is long enough."""
        mine = self._rows.prompt(key)
        # a prompt's first donor is the next in the order, so that no two prompts share theirs
        start = crc32(key) if mine is None else self._order.index(mine)
        start %= len(self._order)
        order = self._order[start:] + self._order[:start]
        others = [self._found[i] for i in order if self._rows.reference_keys[i] != key]
        pieces: list[Tensor] = []
        have = 0
        for donor in others:
            if len(donor) > have:
                pieces.append(donor[have:length])
                have += len(pieces[-1])
        if have < length:
            last = max(others, key=len)[-1:]
            pieces.append(last.expand(length - have, *last.shape[1:]))
        return torch.cat(pieces)


def table_readers(
    tables: Sequence[tuple[Address, Mean | Donors]], batch: Batch
) -> list[tuple[Site, Reader]]:
    """Readers that fill every mean and every donor from one batch of the reference."""

    def take(address: Address, table: Mean | Donors, tensor: Tensor) -> None:
        table.add(batch, address.part(tensor))

    return [(address.site, partial(take, address, table)) for address, table in tables]


def from_reference(
    model: AnyModel,
    sites: ModelSites,
    tables: Sequence[tuple[Address, Mean | Donors]],
    reference: EncodedPrompts,
) -> None:
    """One pass over the reference prompts that fills every table."""
    if not tables:
        return
    for batch in batches(model, reference, sites.device, all_of_them=True):
        with torch.no_grad(), reading(table_readers(tables, batch)):
            sites.run(batch.tokens)
