"""Put prompts of like length together into right-padded batches of token ids."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from warnings import warn

import numpy as np
import torch
from torch import Tensor

from gainlens.models.loaded import AnyModel, ModelSites, module_of
from gainlens.models.memory import DoesNotFit
from gainlens.models.processes import share
from gainlens.records.inputs import EncodedPrompts

BATCH_TOKENS: Final = {"cpu": 1024, "cuda": 8192}
"""Padded tokens per batch, by device type.  On an H200 an 8B model captured 1,000 prompts of 10 to
300 tokens at 28,900 tokens/s with 2,048 tokens per batch, at 32,300 with 8,192 and at 30,300 with
32,768 (data/throughput.csv)."""
_MOST_PADDING = 0.03
"""A batch is closed when the next prompt would make more than this share of it padding ..."""
_LEAST_FILLED = 0.25
"""... unless it holds less than this share of the tokens that a batch may have: a small batch costs
more than its padding."""


@dataclass(frozen=True)
class Batch:
    """Hold some prompts side by side, padded on the right with 0."""

    index: tuple[int, ...]
    """which prompts, in the order of the rows"""
    lengths: Tensor
    """tokens of each row, [batch], on the CPU"""
    tokens: Tensor
    """[batch, position]"""


def batches(
    model: AnyModel,
    prompts: EncodedPrompts,
    sites: ModelSites,
    batch_tokens: int | None = None,
    *,
    all_of_them: bool = False,
) -> Iterator[Batch]:
    """Yield every prompt once, longest first, in batches of at most `batch_tokens` padded tokens.

    None takes BATCH_TOKENS of the device.  If processes work together, each gets its share of the
    batches, or all of them with `all_of_them`.  `sites` are the model's: the batches lie on their
    device.

    A causal model's real positions do not see padding on their right.  Prompts go one by one
    through a HookedTransformer whose tokenizer pads on the left: it would mask the right side.  If
    RoPE depends on the length of the batch, only prompts for which it is the same go together.
    """
    side = getattr(getattr(module_of(model), "tokenizer", None), "padding_side", "right")
    if batch_tokens is None:
        batch_tokens = BATCH_TOKENS.get(sites.device.type, BATCH_TOKENS["cpu"])
    groups = _groups(prompts.tokens, batch_tokens if side == "right" else 0, sites.alike)
    for group in groups if all_of_them else share(groups):
        lengths = torch.tensor([len(prompts.tokens[index]) for index in group])
        tokens = torch.zeros(len(group), int(lengths[0]), dtype=torch.long)
        for row, index in enumerate(group):
            tokens[row, : lengths[row]] = torch.from_numpy(prompts.tokens[index])
        yield Batch(tuple(group), lengths, tokens.to(sites.device))


def _groups(
    tokens: Sequence[np.ndarray], budget: int, alike: Callable[[int], Hashable]
) -> list[list[int]]:
    """Return the indices of the prompts of each batch, longest first."""
    groups: list[list[int]] = []
    longest = filled = 0
    for index in sorted(range(len(tokens)), key=lambda i: -len(tokens[i])):
        length = len(tokens[index])
        padded = longest * (len(groups[-1]) + 1) if groups else budget + 1
        is_padding = 1 - (filled + length) / padded > _MOST_PADDING
        is_filled = filled >= _LEAST_FILLED * budget
        if padded > budget or alike(longest) != alike(length) or (is_padding and is_filled):
            groups.append([])
            longest, filled = length, 0
        groups[-1].append(index)
        filled += length
    return groups


def run_halving(batch: Batch, run: Callable[[Batch], None]) -> None:
    """Run a batch; if memory cannot hold it, warn and run its halves.

    The warning is the same for every batch, so Python shows it once.  Raises DoesNotFit if a single
    prompt does not fit.
    """
    try:
        run(batch)
    except DoesNotFit:
        if len(batch.index) == 1:
            raise
        warn(
            "a batch did not fit into memory, so its halves are run; --batch-tokens N makes the "
            "batches smaller",
            RuntimeWarning,
            stacklevel=1,
        )
        middle = len(batch.index) // 2
        for half in (slice(middle), slice(middle, None)):
            lengths = batch.lengths[half]
            tokens = batch.tokens[half, : int(lengths.max())]
            run_halving(Batch(batch.index[half], lengths, tokens), run)
