"""Capture a model on prompts: forward passes in, a few numbers per block and token out."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from gainlens.activations.batches import Batch, batches, run_halving
from gainlens.activations.recorder import CaptureRecorder, Extra, Subspaces
from gainlens.models.config import parallel_blocks
from gainlens.models.encoding import Prompts, encode_for
from gainlens.models.loaded import AnyModel, module_of
from gainlens.models.sites import kind_of, sites_of
from gainlens.records.capture import Capture


def capture(
    model: AnyModel,
    prompts: Prompts,
    *,
    subspaces: Subspaces | None = None,
    patterns: bool = False,
    heads: bool = False,
    extra: Extra | None = None,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
    beside: Callable[[Batch], AbstractContextManager[None]] | None = None,
) -> Capture:
    """Capture inner products and top components of every token at every block.

    No activation outlives its block.  Hooks that the model had before stay, and run first.

    Args:
        model: from `load` or `wrap`, or a bare model.
        prompts: a text, a list of texts, token ids [batch, position], or what `encode_for` returns.
        subspaces: two orthonormal bases [d_model, k] of W_U (weights.unembed): adds the share of
            the last block's writes in each.
        patterns: add the attention weight on position 0, if the model has hook_pattern.
        heads: add the projections of every head's write, which `gainlens.head_split` turns into
            nats; the model must have attn.hook_z.
        extra: further columns by name; a function gets one block's BlockRows (x, a, m, y without
            padding, block, prompt, position) and returns one number per token.
        batch_tokens: prompts of like length run together, right-padded, up to this many tokens;
            None: BATCH_TOKENS of the device.  A batch that does not fit is halved.
        progress: called with the number of prompts done since the last call.
        beside: returns the context in which a batch runs, for what else is read of the same pass.

    Raises ValueError if an activation is not finite, if the model cannot hold a prompt, if memory
    runs out, and if an extra column has another length or is not finite; RuntimeError if a site
    does not fire.

    Examples:
        >>> captured.gram.shape  # column block token; squared L2 norms
        (9, 8, 35)
        >>> bool((captured.column("yy") > 0).all())
        True
        >>> largest = lambda rows: rows.y.abs().amax(dim=-1)
        >>> gainlens.capture(loaded, prompts, extra={"largest": largest}).extra["largest"].shape
        (8, 35)
    """
    prompts = encode_for(model, prompts)
    sites = sites_of(model)
    recorder = CaptureRecorder(
        sites, prompts, subspaces=subspaces, patterns=patterns, heads=heads, extra=extra
    )

    def run(batch: Batch) -> None:
        with nullcontext() if beside is None else beside(batch):
            recorder.record(batch)

    with recorder.hooks():
        for batch in batches(model, prompts, sites, batch_tokens):
            run_halving(batch, run)
            if progress is not None:
                progress(len(batch.index))
    return replace(recorder.capture(), parallel=_is_parallel(module_of(model)))


def _is_parallel(model: Any) -> bool:
    """Return True if attention and the MLP of a block both read its input."""
    if kind_of(model) == "hooked":
        return bool(model.cfg.parallel_attn_mlp)
    return parallel_blocks(getattr(model, "original_model", model).config.to_dict())
