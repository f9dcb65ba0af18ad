"""What a comparison does to each of its models beside measuring it: the standing interventions, and
those that were asked for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gainlens.activations.capturing import capture
from gainlens.claims.cells import block_gains
from gainlens.core.spec import Ablation, ComparisonSpec
from gainlens.interventions.ablation import How, ablate
from gainlens.interventions.baseline import Baseline, LastValues, baseline_of, changes, measure_last
from gainlens.interventions.sweep import sweep_blocks
from gainlens.interventions.theta import swap_refusal, theta_dose
from gainlens.interventions.tokens import bos_effects, massive_effects
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.loading import LoadedModel
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.interventions import AblatedModel, AblationEffect, Interventions, ThetaDose


def ablated_model(
    baseline: Baseline,
    ablations: Sequence[Ablation],
    *,
    progress: Callable[[int], None] | None = None,
) -> AblatedModel:
    """The whole gain curve, the last block and the loss under ablations, applied together.

    Means and donors are drawn from the baseline's prompts; the token classes are those of the model
    as it is.  ValueError as `ablate` raises it.
    """
    rule = baseline.rule
    before = measure_last(baseline)
    wanted: dict[str, How] = {ablation.site: ablation.how for ablation in ablations}
    with ablate(baseline.model, wanted, reference=baseline.prompts, seed=rule.seed):
        under = capture(baseline.model, baseline.prompts, progress=progress)
        after = measure_last(baseline)
    classes = replace(
        decompose(under, split=rule.split, massive_ratio=rule.massive_ratio),
        is_massive=baseline.decomposition.is_massive,
    )
    gains = reduce_gains(classes, rule.token_class, rule.reduction)
    (change,) = changes(before, [after], rule, baseline.dtype)
    return AblatedModel(block_gains(gains, rule), change)


def intervene(
    baseline: Baseline,
    spec: ComparisonSpec,
    thetas: Sequence[float],
    *,
    progress: Callable[[int], None] | None = None,
) -> Interventions:
    """The standing interventions of a comparison on one model: sweep and thetas.

    Args:
        baseline: from `baseline_of`.
        spec: what is wanted.
        thetas: those of the pair, or those asked for.
        progress: called with the number of prompts done since the last call.

    A theta that nobody asked for and that this model does not allow becomes a note; what was asked
    for and cannot be is a ValueError.
    """
    before: LastValues | None = None
    sweep: tuple[AblationEffect, ...] = ()
    if spec.sweep:
        before, sweep = sweep_blocks(
            baseline, spec.sweep, spec.sweep_how, spec.sweep_heads, progress
        )
    doses: tuple[ThetaDose, ...] = ()
    notes: tuple[str, ...] = ()
    refused = None if spec.theta else swap_refusal(baseline, thetas)
    if refused is not None:
        notes = (f"theta was not swapped: {refused}",)
    elif thetas:
        doses = theta_dose(baseline, thetas, before=before, progress=progress)
    return Interventions(sweep, doses, notes)


def interventions_of(
    spec: ComparisonSpec,
    thetas: Sequence[float],
    loaded: LoadedModel,
    prompts: EncodedPrompts,
    sentence: EncodedPrompts,
    decomposition: Decomposition,
    progress: Callable[[int], None],
) -> Interventions:
    """Run the default interventions of a comparison on one model, and those that were asked for.

    The default ones ablate the last block's components and swap theta.  They run on the Hugging
    Face model if it holds the same tensors: twice as fast on the twins, and equal to 1e-5.

    Args:
        spec: what is wanted.
        thetas: RoPE bases to set.
        loaded: the model.
        prompts: the texts that it was captured on.
        sentence: the notebook's sentence.
        decomposition: of that capture.
        progress: called with the number of prompts done since the last call.
    """
    if not (spec.sweep or thetas or spec.ablate or spec.controls):
        return Interventions()
    here = partial(
        baseline_of,
        prompts=prompts,
        rule=spec.rule,
        captured=decomposition.capture,
        sentence=sentence,
        decomposition=decomposition,
    )
    quick = replace(loaded, model=loaded.hf_model) if loaded.hf_model is not None else loaded
    try:
        baseline = here(quick)
    except ValueError as problem:
        if spec.sweep > 1 or spec.theta or spec.ablate or spec.controls:
            raise
        return Interventions(notes=(f"no intervention was made: {problem}",))
    done = intervene(baseline, spec, thetas, progress=progress)
    measured = here(loaded)  # asked for by name of a site, which may be this back end's own
    if spec.ablate:
        done = replace(done, ablated=ablated_model(measured, spec.ablate, progress=progress))
    if spec.controls:
        done = replace(done, controls=(*massive_effects(measured), *bos_effects(measured)))
    return done


def passes_of(spec: ComparisonSpec, thetas: Sequence[float], own_theta: float | None) -> int:
    """Return how often a model's prompts are run in all, the capture included, for progress bars.

    own_theta: the model's, which is not measured again.
    """
    swapped = len(set(thetas) - {own_theta}) if own_theta is not None else 0
    return 1 + bool(spec.sweep or swapped) + swapped + bool(spec.ablate)
