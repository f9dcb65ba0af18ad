"""Interventions on one model: every component of the last blocks ablated in turn, and RoPE's base.

What runs again is only what an intervention changes: a sweep takes the forward pass up at the
ablated block.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from gainlens.ablation import AblationWriter, Where, plan
from gainlens.batching import batches
from gainlens.last_block import (
    Baseline,
    LastValues,
    Meter,
    Tokens,
    changes,
    last_values,
    measure_last,
    with_sentence,
)
from gainlens.nll import Readout
from gainlens.passage import Passage
from gainlens.records import AblatedVerdict, AblationEffect, ThetaDose
from gainlens.replacements import Rows
from gainlens.rope import rope_from_config
from gainlens.sites import ModelSites, reading, sites_of, writing
from gainlens.theta import rope_theta
from gainlens.verdict import outcome_of

SweepHow = Literal["zero", "mean"]
COMPONENT_SITES = ("hook_attn_out", "hook_mlp_out")


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
    """
    if blocks < 1:
        raise ValueError(f"a sweep ablates at least the last block, --sweep 1; got {blocks}")
    sites = sites_of(baseline.model)
    names = component_names(sites, min(blocks, sites.num_layers), heads)
    keys = [(name, how) for name in names for how in hows]
    writers = _writers(baseline, sites, names, hows)
    before, *afters = _run_sweep(baseline, sites, [writers[key] for key in keys], progress)
    found = changes(before, afters, baseline.rule, baseline.dtype)
    return tuple(
        AblationEffect(name, how, change) for (name, how), change in zip(keys, found, strict=True)
    )


def component_names(sites: ModelSites, blocks: int, heads: bool) -> list[str]:
    """Hook names with the block counted from the end, last block first."""
    names: list[str] = []
    for back in range(1, blocks + 1):
        names += [f"blocks.-{back}.{name}" for name in COMPONENT_SITES]
        if heads:
            names += [f"blocks.-{back}.attn.hook_z[{head}]" for head in range(sites.num_heads)]
    return names


def _writers(
    baseline: Baseline, sites: ModelSites, names: Sequence[str], hows: Sequence[SweepHow]
) -> dict[tuple[str, str], AblationWriter]:
    found: dict[tuple[str, str], AblationWriter] = {}
    for how in hows:
        planned = plan(
            baseline.model,
            sites,
            dict.fromkeys(names, how),
            reference=baseline.prompts,
            rows=Rows(None),
            where=Where(),
        )
        found |= {(name, how): writer for name, writer in zip(names, planned, strict=True)}
    return found


def _run_sweep(
    baseline: Baseline,
    sites: ModelSites,
    writers: Sequence[AblationWriter],
    progress: Callable[[int], None] | None,
) -> list[LastValues]:
    """The model as it is, then under each writer; one batch is in memory at a time."""
    meter = Meter(sites, Readout(baseline.model, sites))
    found: list[dict[int, Tokens]] = [{} for _ in range(1 + len(writers))]
    layers = [int(writer.address.name.split(".")[1]) for writer in writers]
    for batch in batches(baseline.model, with_sentence(baseline), sites.device):
        with reading(meter.readers()):
            passage = Passage(sites, batch.tokens, min(layers))
        found[0].update(zip(batch.index, meter.take(batch), strict=True))
        for place, (writer, layer) in enumerate(zip(writers, layers, strict=True), start=1):
            with writing([(writer.address.site, writer)]), reading(meter.readers()):
                passage.resume(layer)
            found[place].update(zip(batch.index, meter.take(batch), strict=True))
        if progress is not None:
            progress(len(batch.index))
    count = len(baseline.prompts.tokens) + 1
    return [last_values([tokens[i] for i in range(count)], baseline) for tokens in found]


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
