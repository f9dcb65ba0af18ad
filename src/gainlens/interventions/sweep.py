"""Ablate every component of the last blocks in turn.

An ablation changes nothing before its block, so each pass resumes there on the stream that entered
it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from gainlens.activations.batches import Batch, batches, run_halving
from gainlens.core.spec import SweepHow
from gainlens.interventions.ablation import Where, replacements_of, writers_of
from gainlens.interventions.baseline import Baseline
from gainlens.interventions.last_block import (
    LastValues,
    Meter,
    PromptValues,
    changes,
    last_values,
    sentence_batches,
)
from gainlens.interventions.replacements import Rows, observe_reference, observers
from gainlens.interventions.replay import Passage, can_keep
from gainlens.models.hooks import reading, writing
from gainlens.models.memory import enough_memory
from gainlens.models.processes import world
from gainlens.models.sites import ModelSites, Reader, sites_of
from gainlens.records.interventions import AblationEffect

COMPONENT_SITES: Final = ("hook_attn_out", "hook_mlp_out")


def sweep_last_blocks(
    baseline: Baseline,
    blocks: int = 1,
    *,
    hows: Sequence[SweepHow] = ("zero", "mean"),
    heads: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[AblationEffect, ...]:
    """Ablate every component of the last blocks in turn, and compare with the model as it is.

    Args:
        baseline: from `baseline_of`; means are over its prompts.
        blocks: number of blocks, from the end; all, if the model has fewer.
        hows: zero, mean, or both.
        heads: True: also each attention head on its own.
        progress: called with the number of prompts done since the last call.

    Returns the change of the last block's gain, the notebook's number, the loss and the behaviour,
    from the last block back, attention before the MLP before the heads.  Raises ValueError if
    `blocks` is less than 1, and if the stream vanishes under an ablation.

    Examples:
        >>> baseline = gainlens.baseline_of(loaded, prompts)
        >>> [effect.site for effect in gainlens.sweep_last_blocks(baseline, hows=("zero",))]
        ['blocks.-1.hook_attn_out', 'blocks.-1.hook_mlp_out']
    """
    sweep = Sweep(baseline, blocks, hows, heads)
    return sweep.effects(sweep.measure_plain(), progress)


class Sweep:
    """Ablate the components of the last blocks: call `measure_plain`, then `effects`."""

    def __init__(
        self, baseline: Baseline, blocks: int, hows: Sequence[SweepHow], heads: bool
    ) -> None:
        if blocks < 1:
            raise ValueError(f"a sweep ablates at least the last block, --sweep 1; got {blocks}")
        self._baseline = baseline
        self._sites = sites_of(baseline.model)
        self._names = component_names(self._sites, min(blocks, self._sites.num_blocks), heads)
        self._keys = [(name, how) for how in hows for name in self._names]
        self._replaced = [
            replaced
            for how in hows
            for replaced in replacements_of(
                self._sites,
                dict.fromkeys(self._names, how),
                baseline.prompts,
                Rows(None),
                Where(),
            )
        ]
        self._first = min(address.block for address, _ in self._replaced)
        self._meter = Meter(baseline, self._sites)
        self._kept: dict[tuple[int, ...], Passage] = {}

    def measure_plain(self) -> LastValues:
        """Measure the model as it is.

        The same pass gives the means, and its streams are kept for `effects` if they fit.  No pass
        is run if the capture's own was read, unless a mean is wanted.
        """
        replaced = self._replaced
        plain = self._baseline.plain
        if plain is not None and not any(one.needs_reference for _, one in replaced):
            self._kept = plain.kept
            with reading(self._meter.readers()):
                self._sentence()
            return last_values(self._meter.reduced(plain.values), self._meter.notebook_last_gain())
        if world().size > 1:  # a mean is over all prompts, and each process passes only its share
            observe_reference(self._baseline.model, self._sites, replaced, self._baseline.prompts)
            replaced = []
        keeps = can_keep(self._baseline.prompts, self._sites, self._first)
        values: dict[int, PromptValues] = {}

        def run(batch: Batch) -> None:
            waiting: list[Callable[[], None]] = []  # until the batch is known to fit
            later = [
                (site, _put_off(reader, waiting)) for site, reader in observers(replaced, batch)
            ]
            with reading([*later, *self._meter.readers()]), self._memory(batch):
                passage = self._passage(batch)
                found = self._meter.prompt_values(batch)
            for observe in waiting:
                observe()
            values.update(found)
            if keeps:
                self._kept[batch.index] = passage

        for batch in self._batches():
            run_halving(batch, run)
        with reading(self._meter.readers()):
            self._sentence()
        return last_values(values, self._meter.notebook_last_gain())

    def effects(
        self, before: LastValues, progress: Callable[[int], None] | None = None
    ) -> tuple[AblationEffect, ...]:
        """Run every ablation on every prompt, from the ablated block on, and pair with `before`."""
        writers = writers_of(self._replaced, Where(), Rows(None))
        values: list[dict[int, PromptValues]] = [{} for _ in writers]

        def run(batch: Batch) -> None:
            with self._memory(batch):
                passage = self._kept.get(batch.index) or self._passage(batch)
                for writer, under in zip(writers, values, strict=True):
                    with writing([(writer.address.site, writer)]), reading(self._meter.readers()):
                        passage.resume(writer.address.block)
                    under |= self._meter.prompt_values(batch)  # halves write the same again

        for batch in self._batches():
            run_halving(batch, run)
            if progress is not None:
                progress(len(batch.index))
        afters: list[LastValues] = []
        sentence = self._sentence()
        for writer, under in zip(writers, values, strict=True):
            with writing([(writer.address.site, writer)]), reading(self._meter.readers()):
                sentence.resume(writer.address.block)
            afters.append(last_values(under, self._meter.notebook_last_gain()))
        paired = changes(before, afters, self._baseline.rule, self._baseline.dtype)
        effects = [
            AblationEffect(name, how, change, after.log_gain)
            for (name, how), change, after in zip(self._keys, paired, afters, strict=True)
        ]
        return tuple(sorted(effects, key=lambda effect: self._names.index(effect.site)))

    def _batches(self) -> Iterator[Batch]:
        baseline = self._baseline
        return batches(baseline.model, baseline.prompts, self._sites, baseline.batch_tokens)

    def _passage(self, batch: Batch) -> Passage:
        return Passage(self._sites, batch.tokens, self._first).run()

    def _memory(self, batch: Batch) -> AbstractContextManager[None]:
        doing = f"measuring ablations on {len(batch.index)} prompts"
        return enough_memory(doing, self._sites.kind)

    def _sentence(self) -> Passage:
        """Run the notebook's sentence."""
        (batch,) = sentence_batches(self._baseline, self._sites)
        return self._passage(batch)


def _put_off(reader: Reader, waiting: list[Callable[[], None]]) -> Reader:
    """Return a reader that puts its work into a list instead of doing it."""
    return lambda tensor: waiting.append(partial(reader, tensor))


def component_names(sites: ModelSites, blocks: int, heads: bool) -> list[str]:
    """Return hook names with the block counted from the end, last block first."""
    names: list[str] = []
    for back in range(1, blocks + 1):
        names += [f"blocks.-{back}.{name}" for name in COMPONENT_SITES]
        if heads:
            names += [f"blocks.-{back}.attn.hook_z[{head}]" for head in range(sites.num_heads)]
    return names
