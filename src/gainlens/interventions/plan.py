"""Run the interventions of a comparison on one model: the default ones and those asked for."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gainlens.activations.capturing import capture
from gainlens.claims.blocks import block_gains
from gainlens.core.spec import Ablation, RunSpec
from gainlens.interventions.ablation import ablate
from gainlens.interventions.baseline import Baseline, baseline_of
from gainlens.interventions.last_block import changes, measure_last
from gainlens.interventions.plain import PlainPass
from gainlens.interventions.sweep import Sweep
from gainlens.interventions.theta import theta_dose
from gainlens.interventions.tokens import bos_effects, massive_effects
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.loaded import LoadedModel
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.interventions import AblatedModel, Interventions


def ablated_model(
    baseline: Baseline,
    ablations: Sequence[Ablation],
    *,
    progress: Callable[[int], None] | None = None,
) -> AblatedModel:
    """Measure every block, the last block and the loss under ablations applied together.

    Means and donors come from the baseline's prompts; the token classes are those of the model as
    it is.  Raises ValueError as `ablate` does.
    """
    rule = baseline.rule
    before = measure_last(baseline)
    wanted = {ablation.site: ablation.how for ablation in ablations}
    with ablate(baseline.model, wanted, reference=baseline.prompts, seed=rule.seed):
        captured = capture(
            baseline.model, baseline.prompts, batch_tokens=baseline.batch_tokens, progress=progress
        )
        after = measure_last(baseline)
    under = replace(
        decompose(captured, split=rule.split, massive_ratio=rule.massive_ratio),
        is_massive=baseline.decomposition.is_massive,
    )
    gains = reduce_gains(under, rule.token_class, rule.reduction)
    (change,) = changes(before, [after], rule, baseline.dtype)
    return AblatedModel(block_gains(gains, rule), change)


def intervene(
    baseline: Baseline,
    spec: RunSpec,
    thetas: Sequence[float],
    *,
    progress: Callable[[int], None] | None = None,
) -> Interventions:
    """Sweep the last blocks and swap theta; both compare with one measurement of the model as is.

    Args:
        baseline: from `baseline_of`.
        spec: what is wanted.
        thetas: RoPE bases to set.
        progress: called with the number of prompts done since the last call.

    If a default theta cannot be set, the result carries a note.  If a theta from --theta cannot be
    set, raises ValueError.
    """
    if not (spec.sweep or thetas):
        return Interventions()
    sweep = Sweep(baseline, spec.sweep, spec.sweep_how, spec.sweep_heads) if spec.sweep else None
    before = sweep.measure_plain() if sweep else measure_last(baseline, progress=progress)
    done = Interventions(sweep=sweep.effects(before, progress) if sweep else ())
    if not thetas:
        return done
    try:
        doses = theta_dose(baseline, thetas, before=before, progress=progress)
    except ValueError as problem:
        if spec.theta:
            raise
        return replace(done, notes=(f"theta was not swapped: {problem}",))
    return replace(done, theta_dose=doses)


def interventions_of(
    spec: RunSpec,
    thetas: Sequence[float],
    loaded: LoadedModel,
    prompts: EncodedPrompts,
    sentence: EncodedPrompts,
    decomposition: Decomposition,
    progress: Callable[[int], None],
    plain: PlainPass | None = None,
) -> Interventions:
    """Run the default interventions of a comparison on one model, and those that were asked for.

    Args:
        spec: what is wanted.
        thetas: RoPE bases to set.
        loaded: the model.
        prompts: the texts that it was captured on.
        sentence: the notebook's sentence.
        decomposition: of that capture.
        progress: called with the number of prompts done since the last call.
        plain: from `plain_pass`, filled by that capture; None: the model is run once more.

    The default ones, the last block's components and the pair's thetas, run on the Hugging Face
    model if it holds the same tensors: this is twice as fast on the twins, and equal to 1e-5.
    """
    if not (spec.sweep or thetas or spec.ablate or spec.controls):
        return Interventions()
    try:
        baseline = baseline_of(
            loaded,
            prompts,
            spec.rule,
            decomposition=decomposition,
            sentence=sentence,
            batch_tokens=spec.batch_tokens,
        )
    except ValueError as problem:
        if spec.sweep > 1 or spec.theta or spec.ablate or spec.controls:
            raise
        return Interventions(notes=(f"no intervention was made: {problem}",))
    baseline = replace(baseline, plain=plain)
    quick = baseline if loaded.hf_model is None else replace(baseline, model=loaded.hf_model)
    done = intervene(quick, spec, thetas, progress=progress)
    if spec.ablate:  # a site may be one that only this back end has
        done = replace(done, ablated=ablated_model(baseline, spec.ablate, progress=progress))
    if spec.controls:
        done = replace(done, controls=(*massive_effects(baseline), *bos_effects(baseline)))
    return done


def passes_of(spec: RunSpec, thetas: Sequence[float], own_theta: float | None) -> int:
    """Return how often a model's prompts are run in all, the capture included, for progress bars.

    own_theta: the model's own base, which is not measured again; None without RoPE.
    """
    swapped = len(set(thetas) - {own_theta}) if own_theta is not None else 0
    return 1 + bool(spec.sweep or swapped) + swapped + bool(spec.ablate)
