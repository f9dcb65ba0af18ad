"""Measure each token's loss, and what it becomes if one block writes nothing.

Skipping a block changes nothing before it, so each pass resumes after the block, on the stream that
entered it: over all blocks of a model this costs half as much as whole passes.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from gainlens.activations.batches import Batch, batches, run_halving
from gainlens.activations.losses import Readout
from gainlens.interventions.replay import Passage
from gainlens.models.encoding import Prompts, encode_for
from gainlens.models.hooks import reading
from gainlens.models.loaded import AnyModel
from gainlens.models.memory import enough_memory
from gainlens.models.processes import gathered
from gainlens.models.sites import sites_of
from gainlens.records.capture import Capture


def with_losses(
    captured: Capture,
    model: AnyModel,
    prompts: Prompts,
    *,
    skip: bool = False,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Capture:
    """Return a capture with each token's loss, and with its loss if a block writes nothing.

    Args:
        captured: from `capture`, of the same prompts.
        model: from `load` or `wrap`, or a bare model.
        prompts: a text, a list of texts, token ids [batch, position], or what `encode_for` returns.
        skip: True: also skip each block in turn.
        batch_tokens: as for `capture`.
        progress: called with the number of prompts done since the last call.

    `token_loss` is [token] and `skip_loss` [block, token], in nats per token, NaN at position 0.
    Raises ValueError if the model does more to its logits than a soft cap, if memory runs out, and
    if the capture is of other tokens.

    Examples:
        >>> lossy = gainlens.with_losses(captured, loaded, prompts, skip=True)
        >>> lossy.skip_loss.shape  # block token
        (8, 35)
    """
    encoded = encode_for(model, prompts)
    if not np.array_equal(np.concatenate(encoded.tokens), captured.token_id):
        raise ValueError(
            "the capture is of other tokens than the prompts: give both the same prompts"
        )
    sites = sites_of(model)
    readout = Readout(model, sites)
    readout.check(encoded)
    skipped = range(sites.num_blocks) if skip else range(0)
    last = sites.site(f"blocks.{sites.num_blocks - 1}.hook_resid_post")
    by_prompt: dict[int, Float64[np.ndarray, "row token"]] = {}

    def run(batch: Batch) -> None:
        doing = f"skipping blocks on {len(batch.index)} prompts"
        left: list[Tensor] = []
        with torch.no_grad(), enough_memory(doing, sites.kind):
            with reading([(last, left.append)]):
                passage = Passage(sites, batch.tokens, 0 if skip else sites.num_blocks).run()
            skips = (_losses(readout, passage.skip(block), batch) for block in skipped)
            losses = np.stack([_losses(readout, left[0], batch), *skips])
        by_prompt.update(_by_prompt(batch, losses))

    for batch in batches(model, encoded, sites, batch_tokens):
        run_halving(batch, run)
        if progress is not None:
            progress(len(batch.index))
    everything = gathered(by_prompt)
    plain, *others = np.concatenate([everything[prompt] for prompt in sorted(everything)], axis=1)
    return replace(
        captured,
        token_loss=plain,
        skip_loss=np.stack(others) - plain if skip else captured.skip_loss,
    )


def _losses(readout: Readout, stream: Tensor, batch: Batch) -> Float64[np.ndarray, "_ _"]:
    """Return the losses that follow from what leaves the last block, [prompt, prediction]."""
    losses = readout.losses(readout.normed(stream), batch.tokens, batch.lengths)
    return losses.double().cpu().numpy()


def _by_prompt(
    batch: Batch, losses: Float64[np.ndarray, "row prompt prediction"]
) -> dict[int, Float64[np.ndarray, "row token"]]:
    """Return each prompt's losses without padding; NaN at position 0, which nothing predicts."""
    return {
        prompt: np.concatenate(
            [np.full((len(losses), 1), np.nan), losses[:, row, : length - 1]], axis=1
        )
        for row, (prompt, length) in enumerate(
            zip(batch.index, batch.lengths.tolist(), strict=True)
        )
    }
