"""Measure the last block and the loss under an intervention, and pair them with those before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from gainlens.activations.batches import Batch, batches, run_halving
from gainlens.activations.losses import Readout
from gainlens.claims.behaviour import behaviour_of
from gainlens.claims.cells import enough_prompts
from gainlens.claims.intervals import mean_intervals
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import UNIT_ROUNDOFF
from gainlens.interventions.baseline import Baseline
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.reductions import reduce_norms
from gainlens.models.hooks import reading
from gainlens.models.loaded import AnyModel
from gainlens.models.processes import gathered
from gainlens.models.sites import ModelSites, Reader, Site, sites_of
from gainlens.records.interval import Interval
from gainlens.records.interventions import Change, LastBlock


@dataclass(frozen=True)
class PromptValues:
    """Hold the last block's numbers on one prompt.

    These are scalars: small arrays allocated between large activations would keep that memory from
    being freed.
    """

    log_gain: float
    """primary estimand, nats"""
    loss: float
    """mean over predictions, nats per token"""
    num_without_gain: int
    """tokens whose stream has norm 0 or is not finite"""
    num_tokens: int


class TokenValues(NamedTuple):
    """The last block at one prompt's tokens."""

    norm_in: np.ndarray
    norm_out: np.ndarray
    losses: np.ndarray
    """of the next token, nats"""


@dataclass(frozen=True)
class LastValues:
    """Hold the last block's numbers, one per prompt."""

    log_gain: Float64[np.ndarray, " prompt"]
    """primary estimand, nats"""
    loss: Float64[np.ndarray, " prompt"]
    """nats per token"""
    notebook_last_gain: float
    """the notebook's ratio, on the notebook's sentence"""


class LastReader:
    """Read the last block of one forward pass at a time, token by token."""

    def __init__(self, model: AnyModel, sites: ModelSites) -> None:
        self._readout = Readout(model, sites)
        block = f"blocks.{sites.num_blocks - 1}"
        self._sites = [sites.site(f"{block}.hook_resid_{end}") for end in ("pre", "post")]
        self._streams: dict[str, Tensor] = {}

    def readers(self) -> list[tuple[Site, Reader]]:
        """Return the readers, to be registered after the hooks that intervene."""

        def reader(name: str) -> Reader:
            return lambda tensor: self._streams.__setitem__(name, tensor)

        return [(site, reader(name)) for site, name in zip(self._sites, "xy", strict=True)]

    def token_values(self, batch: Batch) -> dict[int, TokenValues]:
        """Return |x|, |y| and the loss of every token of the pass that has just run, by prompt."""
        with torch.no_grad():
            x, y, normed = self._take()
            losses = self._readout.losses(normed, batch.tokens, batch.lengths)
        values = [
            tensor.double().cpu().numpy()
            for tensor in (x.float().norm(dim=-1), y.float().norm(dim=-1), losses)
        ]
        return {
            prompt: TokenValues(*(of_batch[row, :length] for of_batch in values))
            for row, (prompt, length) in enumerate(
                zip(batch.index, batch.lengths.tolist(), strict=True)
            )
        }

    def notebook_last_gain(self) -> float:
        """Return the notebook's ratio of the pass that has just run on its sentence.

        It is the mean norm after the final norm over the mean norm that enters the last block.
        """
        with torch.no_grad():
            x, _, normed = self._take()
            norm_in, norm_out = (t.float().norm(dim=-1).double().mean() for t in (x, normed))
        return float(norm_out.cpu() / norm_in.cpu())

    def _take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, y and ln_final(y) of the pass, and forget them."""
        x, y = self._streams.pop("x"), self._streams.pop("y")
        return x, y, self._readout.normed(y)


class Meter(LastReader):
    """Read the last block of one forward pass at a time, prompt by prompt.

    skip: number of predictions left out at the beginning of every prompt.
    """

    def __init__(self, baseline: Baseline, sites: ModelSites, skip: int = 0) -> None:
        super().__init__(baseline.model, sites)
        self._skip = skip
        self._rule = baseline.rule
        mask = baseline.decomposition.tokens_of(baseline.rule.token_class)
        self._masks = [mask[tokens] for tokens in prompt_slices(baseline.decomposition.prompt)]

    def prompt_values(self, batch: Batch) -> dict[int, PromptValues]:
        """Return the values of every prompt of the pass that has just run, by prompt."""
        return self.reduced(self.token_values(batch))

    def reduced(self, values: Mapping[int, TokenValues]) -> dict[int, PromptValues]:
        """Return one number per prompt of what was read of its tokens."""
        return {prompt: self._reduced(prompt, *of_tokens) for prompt, of_tokens in values.items()}

    def _reduced(
        self, prompt: int, norm_in: np.ndarray, norm_out: np.ndarray, losses: np.ndarray
    ) -> PromptValues:
        has_gain = np.isfinite(norm_in) & np.isfinite(norm_out) & (norm_in > 0) & (norm_out > 0)
        log_gain = np.array(np.nan)
        if has_gain.all():
            alone = np.zeros(len(norm_in), np.int64)
            log_gain = reduce_norms(
                norm_in[None], norm_out[None], alone, self._masks[prompt], self._rule.reduction
            )
        predicted = losses[self._skip : len(norm_in) - 1]
        return PromptValues(
            log_gain=float(log_gain.squeeze()),
            loss=float(predicted.mean()) if len(predicted) else np.nan,
            num_without_gain=int((~has_gain).sum()),
            num_tokens=len(norm_in),
        )


def measure_last(
    baseline: Baseline, skip: int = 0, progress: Callable[[int], None] | None = None
) -> LastValues:
    """Measure the last block and the loss of the model as it runs now.

    Inside the context of an intervention, that is the model under it.

    Args:
        baseline: the model, its prompts and their token classes.
        skip: number of predictions left out at the beginning of every prompt.
        progress: called with the number of prompts done since the last call.

    Raises ValueError if the last block's stream has norm 0 or is not finite at some token.
    """
    sites = sites_of(baseline.model)
    meter = Meter(baseline, sites, skip)
    values: dict[int, PromptValues] = {}

    def run(batch: Batch) -> None:
        sites.run(batch.tokens)
        values.update(meter.prompt_values(batch))

    with torch.no_grad(), reading(meter.readers()):
        for batch in batches(baseline.model, baseline.prompts, sites, baseline.batch_tokens):
            run_halving(batch, run)
            if progress is not None:
                progress(len(batch.index))
        for batch in sentence_batches(baseline, sites):
            sites.run(batch.tokens)
    return last_values(values, meter.notebook_last_gain())


def sentence_batches(baseline: Baseline, sites: ModelSites) -> list[Batch]:
    """Return the notebook's sentence as its one batch, which every process runs."""
    return list(batches(baseline.model, baseline.sentence, sites, all_of_them=True))


def last_values(values: Mapping[int, PromptValues], notebook_last_gain: float) -> LastValues:
    """Gather the values of all prompts from all processes, in the order of the prompts."""
    gathered_values = gathered(values)
    ordered = [gathered_values[prompt] for prompt in sorted(gathered_values)]
    num_without = sum(value.num_without_gain for value in ordered)
    if num_without:
        raise ValueError(
            "under this intervention the last block's stream has norm 0 or is not finite at "
            f"{num_without} of {sum(value.num_tokens for value in ordered)} tokens, so it has no "
            "gain there"
        )
    return LastValues(
        log_gain=np.array([value.log_gain for value in ordered]),
        loss=np.array([value.loss for value in ordered]),
        notebook_last_gain=notebook_last_gain,
    )


def changes(
    before: LastValues, afters: Sequence[LastValues], rule: Rule, dtype: str
) -> tuple[Change, ...]:
    """Pair the model before with each after; all intervals share their resamples of prompts."""
    rows = [before.log_gain, before.loss]
    for after in afters:
        rows += [after.log_gain, after.loss]
        rows += [after.log_gain - before.log_gain, after.loss - before.loss]
    intervals = [
        enough_prompts(interval, rule)
        for interval in mean_intervals(
            np.stack(rows), confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
        )
    ]
    first = _last_block(intervals[0], intervals[1], before.notebook_last_gain, dtype)
    paired: list[Change] = []
    for index, after in enumerate(afters):
        log_gain, loss, delta_log_gain, delta_loss = intervals[2 + 4 * index : 6 + 4 * index]
        then = _last_block(log_gain, loss, after.notebook_last_gain, dtype)
        paired.append(Change(first, then, delta_log_gain, delta_loss))
    return tuple(paired)


def _last_block(log_gain: Interval, loss: Interval, notebook: float, dtype: str) -> LastBlock:
    behaviour = behaviour_of(log_gain, UNIT_ROUNDOFF[dtype]) if log_gain.known else None
    return LastBlock(log_gain, notebook, loss, behaviour)
