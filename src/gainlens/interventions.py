"""Interventions on one model: every component of the last blocks ablated in turn, and RoPE's base.

What runs again is only what an intervention changes: a sweep takes the forward pass up at the
ablated block.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gainlens.ablation import Plan, Where, plan
from gainlens.batching import Batch, batches
from gainlens.last_block import (
    Baseline,
    LastValues,
    Meter,
    Tokens,
    changes,
    last_values,
    measure_last,
)
from gainlens.nll import Readout
from gainlens.passage import Passage
from gainlens.records import AblatedVerdict, AblationEffect, ThetaDose
from gainlens.replacements import Address, Donors, Mean, Rows, from_reference, table_readers
from gainlens.rope import rope_from_config
from gainlens.sites import ModelSites, reading, sites_of, writing
from gainlens.theta import rope_theta
from gainlens.verdict import outcome_of

SweepHow = Literal["zero", "mean"]
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

    >>> baseline = gainlens.baseline_of(loaded, prompts)
    >>> [effect.site for effect in gainlens.sweep_last_blocks(baseline, hows=("zero",))]
    ['blocks.-1.hook_attn_out', 'blocks.-1.hook_mlp_out']
    """
    if blocks < 1:
        raise ValueError(f"a sweep ablates at least the last block, --sweep 1; got {blocks}")
    sites = sites_of(baseline.model)
    names = component_names(sites, min(blocks, sites.num_layers), heads)
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
        AblationEffect(name, how, change) for (name, how), change in zip(keys, found, strict=True)
    ]
    return tuple(sorted(effects, key=lambda effect: names.index(effect.site)))


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
    tokens: list[Tokens]


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
            yield _Run(index, batch, passage, meter.take(batch))


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
    layers = [layer_of(address) for planned in plans for address, _ in planned.makers]
    first = min(layers)
    if tables and not _can_keep(baseline, sites, sites.num_layers - first):
        from_reference(baseline.model, sites, tables, baseline.prompts)
        tables = []
    meter = Meter(sites, Readout(baseline.model, sites))
    runs: Iterable[_Run] = _runs(baseline, sites, meter, first, tables)
    if tables:
        runs = list(runs)
    writers = [w for planned in plans for w in planned.writers(Where(), Rows(None))]
    found: list[dict[int, Tokens]] = [{} for _ in range(1 + len(writers))]
    for run in runs:
        found[0].update(zip(run.index, run.tokens, strict=True))
        for place, (writer, layer) in enumerate(zip(writers, layers, strict=True), start=1):
            with writing([(writer.address.site, writer)]), reading(meter.readers()):
                run.passage.resume(layer)
            found[place].update(zip(run.index, meter.take(run.batch), strict=True))
        if progress is not None:
            progress(len(run.index))
    return [last_values([tokens[i] for i in sorted(tokens)], baseline) for tokens in found]


def layer_of(address: Address) -> int:
    """The block that a site belongs to."""
    return int(address.name.split(".")[1])


def _can_keep(baseline: Baseline, sites: ModelSites, blocks: int) -> bool:
    tokens = sum(len(ids) for ids in baseline.prompts.tokens)
    return 4 * tokens * sites.d_model * blocks <= KEEP_BYTES


def ablated_verdicts(
    short: Sequence[AblationEffect], long: Sequence[AblationEffect]
) -> tuple[AblatedVerdict, ...]:
    """The outcome of short against long with each component ablated in one of them, and in both.

    The sweeps' common components, in the order of the short model's.
    """
    others = {(effect.site, effect.how): effect.change for effect in long}
    found: list[AblatedVerdict] = []
    for effect in short:
        mine, other = effect.change, others.get((effect.site, effect.how))
        if other is None:
            continue
        found.append(
            AblatedVerdict(
                site=effect.site,
                how=effect.how,
                before=outcome_of(mine.before.behaviour, other.before.behaviour),
                short_ablated=outcome_of(mine.after.behaviour, other.before.behaviour),
                long_ablated=outcome_of(mine.before.behaviour, other.after.behaviour),
                both_ablated=outcome_of(mine.after.behaviour, other.after.behaviour),
            )
        )
    return tuple(found)


def theta_dose(baseline: Baseline, thetas: Sequence[float]) -> tuple[ThetaDose, ...]:
    """The same weights under each RoPE base: the last block's gain and the loss against theta.

    The model's own base is always among them; in rising order, each base once.  Scaling stays as
    it is.  ValueError for a model without RoPE and for a base that is none.
    """
    own = rope_from_config(baseline.config).theta
    if own is None:
        raise ValueError("this model has no rotary position embedding, so it has no theta to vary")
    before = measure_last(baseline)
    wanted = sorted({own, *(float(theta) for theta in thetas)})
    afters: list[LastValues] = []
    for theta in wanted:
        if theta == own:
            afters.append(before)
            continue
        with rope_theta(baseline.model, theta):
            afters.append(measure_last(baseline))
    found = changes(before, afters, baseline.rule, baseline.dtype)
    return tuple(
        ThetaDose(theta, theta == own, change) for theta, change in zip(wanted, found, strict=True)
    )
