"""What an intervention does: the last block's gain, the notebook's number and the loss, before and
after, paired over prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from gainlens.activations.batches import Batch, batches
from gainlens.activations.capturing import capture
from gainlens.activations.losses import Readout
from gainlens.claims.intervals import mean_intervals
from gainlens.claims.outcomes import behaviour_of
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import UNIT_ROUNDOFF
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.reductions import reduce_norms
from gainlens.models.hooks import reading
from gainlens.models.loading import LoadedModel
from gainlens.models.processes import gathered
from gainlens.models.sites import ModelSites, Reader, Site, sites_of
from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import load_prompts
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.interval import Interval
from gainlens.records.interventions import Change, LastBlock


@dataclass(frozen=True)
class Baseline:
    """A model as it is on its prompts: what every intervention on it is compared with."""

    model: Any
    dtype: str
    config: Any
    """the Hugging Face config as a plain dictionary"""
    prompts: EncodedPrompts
    sentence: EncodedPrompts
    """the notebook's one sentence"""
    capture: Capture
    decomposition: Decomposition
    """fixes the token classes: an intervention is judged on the same tokens"""
    rule: Rule


def baseline_of(
    loaded: LoadedModel,
    prompts: EncodedPrompts,
    rule: Rule | None = None,
    *,
    captured: Capture | None = None,
    decomposition: Decomposition | None = None,
    sentence: EncodedPrompts | None = None,
) -> Baseline:
    """Measure a loaded model once (or take what was measured), for interventions to compare with.

    Args:
        loaded: from `load`.
        prompts: token ids, from `encode_for`.
        rule: estimand and interval, `Rule()` where not given.
        captured: of these prompts, where there is one already.
        decomposition: of that capture.
        sentence: the notebook's sentence; None: encoded here.

    Raises ValueError where the model cannot be captured, or makes its logits in a way that is not
    known: then it has no loss here, and no intervention can be judged by it.

    Examples:
        >>> baseline = gainlens.baseline_of(loaded, prompts)
        >>> baseline.decomposition.log_gain.shape
        (8, 35)
    """
    rule = rule or Rule()
    captured = captured or capture(loaded.model, prompts)
    Readout(loaded.model, sites_of(loaded.model)).check(prompts)
    sentence = sentence or encode(
        load_prompts("notebook"),
        loaded.tokenizer,
        context=loaded.checkpoint.context,
        tokens=None,
        allow_extrapolation=False,
        vocab_size=loaded.checkpoint.d_vocab,
    )
    return Baseline(
        model=loaded.model,
        dtype=loaded.checkpoint.dtype,
        config=loaded.checkpoint.config,
        prompts=prompts,
        sentence=sentence,
        capture=captured,
        decomposition=decomposition
        or decompose(captured, split=rule.split, massive_ratio=rule.massive_ratio),
        rule=rule,
    )


@dataclass(frozen=True)
class PromptValues:
    """The last block on one prompt.  Numbers, no arrays: small ones kept between a forward pass's
    large ones would keep their memory from being given back."""

    log_gain: float
    """primary estimand, nats; NaN for the notebook's sentence"""
    loss: float
    """mean over predictions, nats per token"""
    last_gain: float
    """mean norm after the final norm over the mean norm that enters the block: the notebook's"""
    without_gain: int
    """tokens whose stream has norm 0 or is not finite"""
    count: int
    """tokens"""


class Meter:
    """Reads the last block of one forward pass.

    skip: predictions left out at the beginning of every prompt.
    """

    def __init__(self, baseline: Baseline, sites: ModelSites, skip: int = 0) -> None:
        self._readout = Readout(baseline.model, sites)
        self._skip = skip
        self._rule = baseline.rule
        classes = baseline.decomposition
        chosen = classes.tokens_of(baseline.rule.token_class)
        self._masks = [chosen[tokens] for tokens in prompt_slices(classes.prompt)]
        block = f"blocks.{sites.num_blocks - 1}"
        self._sites = [sites.site(f"{block}.hook_resid_{end}") for end in ("pre", "post")]
        self._streams: dict[str, Tensor] = {}

    def readers(self) -> list[tuple[Site, Reader]]:
        """To be registered after whatever intervenes."""

        def reader(name: str) -> Reader:
            return lambda tensor: self._streams.__setitem__(name, tensor)

        return [(site, reader(name)) for site, name in zip(self._sites, "xy", strict=True)]

    def take(self, batch: Batch, index: Sequence[int]) -> list[PromptValues]:
        """The pass that has just run, prompt by prompt; index: which of the baseline's prompts, the
        notebook's sentence behind them."""
        with torch.no_grad():
            x, y = self._streams.pop("x"), self._streams.pop("y")
            normed = self._readout.normed(y)
            losses = self._readout.losses(normed, batch.tokens, batch.lengths)
            norms = [tensor.float().norm(dim=-1) for tensor in (x, y, normed)]
        whole = [tensor.double().cpu().numpy() for tensor in (*norms, losses)]
        return [
            self._reduced(prompt, *(each[row, :length] for each in whole))
            for row, (prompt, length) in enumerate(zip(index, batch.lengths.tolist(), strict=True))
        ]

    def _reduced(
        self,
        prompt: int,
        norm_in: np.ndarray,
        norm_out: np.ndarray,
        normed: np.ndarray,
        losses: np.ndarray,
    ) -> PromptValues:
        has_gain = np.isfinite(norm_in) & np.isfinite(norm_out) & (norm_in > 0) & (norm_out > 0)
        log_gain = np.nan
        if prompt < len(self._masks) and has_gain.all():
            alone, mask = np.zeros(len(norm_in), np.int64), self._masks[prompt]
            log_gain = reduce_norms(
                norm_in[None], norm_out[None], alone, mask, self._rule.reduction
            )
        predicted = losses[self._skip : len(norm_in) - 1]
        return PromptValues(
            log_gain=float(np.squeeze(log_gain)),
            loss=float(predicted.mean()) if len(predicted) else np.nan,
            last_gain=float(normed.mean() / norm_in.mean()),
            without_gain=int((~has_gain).sum()),
            count=len(norm_in),
        )


@dataclass(frozen=True)
class LastValues:
    """The last block, one number a prompt."""

    log_gain: Float64[np.ndarray, " prompt"]
    """primary estimand, nats"""
    loss: Float64[np.ndarray, " prompt"]
    """nats per token"""
    notebook_last_gain: float


def with_sentence(baseline: Baseline) -> EncodedPrompts:
    """The prompts with the notebook's sentence behind them: one set to run."""
    prompts, sentence = baseline.prompts, baseline.sentence
    return replace(prompts, ids=prompts.ids + sentence.ids, tokens=prompts.tokens + sentence.tokens)


def measure_last(
    baseline: Baseline, skip: int = 0, progress: Callable[[int], None] | None = None
) -> LastValues:
    """The last block and the loss as the model is now: inside an intervention, under it.

    skip: predictions left out at the beginning of every prompt; progress: called with the number of
    prompts done since the last call.
    """
    sites = sites_of(baseline.model)
    meter = Meter(baseline, sites, skip)
    found: dict[int, PromptValues] = {}
    for batch in batches(baseline.model, with_sentence(baseline), sites.device):
        with torch.no_grad(), reading(meter.readers()):
            sites.run(batch.tokens)
        found.update(zip(batch.index, meter.take(batch, batch.index), strict=True))
        if progress is not None:
            progress(sum(index < len(baseline.prompts.tokens) for index in batch.index))
    found = gathered(found)
    return last_values([found[i] for i in range(len(found))])


def last_values(values: Sequence[PromptValues]) -> LastValues:
    """All prompts together; the last of `values` is the notebook's sentence."""
    *own, sentence = values
    without = sum(one.without_gain for one in own)
    if without:
        raise ValueError(
            "under this intervention the last block's stream has norm 0 or is not finite at "
            f"{without} of {sum(one.count for one in own)} tokens, so it has no gain there"
        )
    return LastValues(
        log_gain=np.array([one.log_gain for one in own]),
        loss=np.array([one.loss for one in own]),
        notebook_last_gain=sentence.last_gain,
    )


def changes(
    before: LastValues, afters: Sequence[LastValues], rule: Rule, dtype: str
) -> tuple[Change, ...]:
    """Before and each after with their intervals; all share their resamples of prompts."""
    rows = [before.log_gain, before.loss]
    for after in afters:
        rows += [after.log_gain, after.loss]
        rows += [after.log_gain - before.log_gain, after.loss - before.loss]
    intervals = mean_intervals(
        np.stack(rows), confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    first = _last_block(intervals[0], intervals[1], before.notebook_last_gain, rule, dtype)
    found: list[Change] = []
    for place, after in enumerate(afters):
        log_gain, loss, delta_log_gain, delta_loss = intervals[2 + 4 * place : 6 + 4 * place]
        then = _last_block(log_gain, loss, after.notebook_last_gain, rule, dtype)
        found.append(Change(first, then, delta_log_gain, delta_loss))
    return tuple(found)


def _last_block(
    log_gain: Interval, loss: Interval, notebook: float, rule: Rule, dtype: str
) -> LastBlock:
    enough = log_gain.known and log_gain.n >= rule.min_prompts
    behaviour = behaviour_of(log_gain, UNIT_ROUNDOFF[dtype]) if enough else None
    return LastBlock(log_gain, notebook, loss, behaviour)
