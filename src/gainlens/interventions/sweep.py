"""Interventions on one model: every component of the last blocks ablated in turn, RoPE's base, and
the ablations that were asked for.

What runs again is only what an intervention changes: a sweep takes the forward pass up at the
ablated block.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gainlens.activations.batches import Batch, batches
from gainlens.core.spec import SweepHow
from gainlens.interventions.ablation import Plan, Where, plan
from gainlens.interventions.baseline import (
    Baseline,
    LastValues,
    Meter,
    PromptValues,
    changes,
    last_values,
)
from gainlens.interventions.replacements import (
    Address,
    Donors,
    Mean,
    Rows,
    from_reference,
    table_readers,
)
from gainlens.interventions.replay import Passage
from gainlens.models.hooks import reading, writing
from gainlens.models.processes import gathered, world
from gainlens.models.sites import ModelSites, sites_of
from gainlens.records.interventions import AblationEffect

Tables = Sequence[tuple[Address, Mean | Donors]]
COMPONENT_SITES: Final = ("hook_attn_out", "hook_mlp_out")
KEEP_BYTES: Final = 1 << 29
"""Streams entering the last blocks are kept up to so many bytes."""


def sweep_last_blocks(
    baseline: Baseline,
    blocks: int = 1,
    *,
    hows: Sequence[SweepHow] = ("zero", "mean"),
    heads: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[AblationEffect, ...]:
    """Ablate every component of the last blocks in turn: what becomes of the last block's gain, of
    the notebook's number, of the loss and of the behaviour.

    Args:
        baseline: from `baseline_of`; means are over its prompts.
        blocks: how many, from the end; all, where the model has fewer.
        hows: zero, mean, or both.
        heads: each attention head on its own, beside attention as a whole.
        progress: called with the number of prompts done since the last call.

    From the last block back, attention before the MLP before the heads.  ValueError where `blocks`
    is less than 1, or where the stream vanishes under an ablation.

    Examples:
        >>> baseline = gainlens.baseline_of(loaded, prompts)
        >>> [effect.site for effect in gainlens.sweep_last_blocks(baseline, hows=("zero",))]
        ['blocks.-1.hook_attn_out', 'blocks.-1.hook_mlp_out']
    """
    return sweep_blocks(baseline, blocks, hows, heads, progress)[1]


def sweep_blocks(
    baseline: Baseline,
    blocks: int,
    hows: Sequence[SweepHow],
    heads: bool,
    progress: Callable[[int], None] | None,
) -> tuple[LastValues, tuple[AblationEffect, ...]]:
    """The model as it is, measured on the way, and the effects."""
    if blocks < 1:
        raise ValueError(f"a sweep ablates at least the last block, --sweep 1; got {blocks}")
    sites = sites_of(baseline.model)
    names = component_names(sites, min(blocks, sites.num_blocks), heads)
    plans = [
        plan(
            sites,
            dict.fromkeys(names, how),
            reference=baseline.prompts,
            rows=Rows(None),
            where=Where(),
        )
        for how in hows
    ]
    before, *afters = _run_sweep(baseline, sites, plans, progress)
    found = changes(before, afters, baseline.rule, baseline.dtype)
    keys = [(name, how) for how in hows for name in names]
    effects = [
        AblationEffect(name, how, change, after.log_gain)
        for (name, how), change, after in zip(keys, found, afters, strict=True)
    ]
    return before, tuple(sorted(effects, key=lambda effect: names.index(effect.site)))


def component_names(sites: ModelSites, blocks: int, heads: bool) -> list[str]:
    """Hook names with the block counted from the end, last block first."""
    names: list[str] = []
    for back in range(1, blocks + 1):
        names += [f"blocks.-{back}.{name}" for name in COMPONENT_SITES]
        if heads:
            names += [f"blocks.-{back}.attn.hook_z[{head}]" for head in range(sites.num_heads)]
    return names


@dataclass(frozen=True)
class _Run:
    """One batch as the model is, ready to be taken up at any of the last blocks."""

    index: tuple[int, ...]
    """which prompts; the notebook's sentence counts behind them"""
    batch: Batch
    passage: Passage
    values: list[PromptValues]


def _runs(
    baseline: Baseline, sites: ModelSites, meter: Meter, first: int, tables: Tables
) -> Iterator[_Run]:
    """Every batch once; fills the tables on the way, from the prompts and not the sentence."""
    behind = len(baseline.prompts.tokens)
    for prompts, offset, filled in (
        (baseline.prompts, 0, tables),
        (baseline.sentence, behind, ()),
    ):
        for batch in batches(baseline.model, prompts, sites.device):
            with reading([*table_readers(filled, batch), *meter.readers()]):
                passage = Passage(sites, batch.tokens, first)
            index = tuple(offset + place for place in batch.index)
            yield _Run(index, batch, passage, meter.take(batch, index))


def _run_sweep(
    baseline: Baseline,
    sites: ModelSites,
    plans: Sequence[Plan],
    progress: Callable[[int], None] | None,
) -> list[LastValues]:
    """The model as it is, then under each writer; one pass over the prompts where they can be kept.

    A mean is known when all prompts have passed: the streams are kept until then, or, where they
    are too large, the prompts pass twice.
    """
    tables = [table for planned in plans for table in planned.tables]
    blocks = [block_of(address) for planned in plans for address, _ in planned.makers]
    first = min(blocks)
    apart = world().size > 1  # a mean is over all prompts, and each process passes only some
    if tables and (apart or not _can_keep(baseline, sites, sites.num_blocks - first)):
        from_reference(baseline.model, sites, tables, baseline.prompts)
        tables = []
    meter = Meter(baseline, sites)
    runs: Iterable[_Run] = _runs(baseline, sites, meter, first, tables)
    if tables:
        runs = list(runs)
    writers = [w for planned in plans for w in planned.writers(Where(), Rows(None))]
    found: list[dict[int, PromptValues]] = [{} for _ in range(1 + len(writers))]
    for run in runs:
        found[0].update(zip(run.index, run.values, strict=True))
        for place, (writer, block) in enumerate(zip(writers, blocks, strict=True), start=1):
            with writing([(writer.address.site, writer)]), reading(meter.readers()):
                run.passage.resume(block)
            found[place].update(zip(run.index, meter.take(run.batch, run.index), strict=True))
        if progress is not None and run.index[0] < len(baseline.prompts.tokens):
            progress(len(run.index))
    whole = [gathered(values) for values in found]
    return [last_values([values[i] for i in sorted(values)]) for values in whole]


def block_of(address: Address) -> int:
    """The block that a site belongs to."""
    return int(address.name.split(".")[1])


def _can_keep(baseline: Baseline, sites: ModelSites, blocks: int) -> bool:
    tokens = sum(len(ids) for ids in baseline.prompts.tokens)
    return 4 * tokens * sites.d_model * blocks <= KEEP_BYTES
