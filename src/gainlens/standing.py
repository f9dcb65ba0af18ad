"""What a comparison does to each of its models beside measuring it: the standing interventions, and
those that were asked for."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from gainlens.checkpoints import LoadedModel
from gainlens.controls import bos_effects, massive_effects
from gainlens.hub import read_config
from gainlens.interventions import ablated_model, intervene
from gainlens.last_block import baseline_of
from gainlens.records import Capture, Decomposition, EncodedPrompts, Interventions
from gainlens.rope import rope_from_config
from gainlens.sources import resolve
from gainlens.spec import ComparisonSpec


def interventions_of(
    spec: ComparisonSpec,
    loaded: LoadedModel,
    prompts: EncodedPrompts,
    captured: Capture,
    decomposition: Decomposition,
    progress: Callable[[int], None],
) -> Interventions:
    """The standing ones, the last block's components and the pair's thetas, and those asked for.

    The standing ones run on the Hugging Face model where it holds the same tensors: twice as fast
    on the twins, and equal to 1e-5.
    """
    thetas = thetas_of(spec)
    if not (spec.sweep or thetas or spec.ablate or spec.controls):
        return Interventions()
    here = partial(
        baseline_of,
        prompts=prompts,
        rule=spec.rule,
        captured=captured,
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


def passes_of(spec: ComparisonSpec, own_theta: float | None) -> int:
    """How often a model's prompts are run in all, the capture included; for whoever shows progress.

    own_theta: the model's, which is not measured again.
    """
    thetas = set(thetas_of(spec))
    swapped = len(thetas - {own_theta}) if own_theta is not None else 0
    return 1 + bool(spec.sweep or swapped) + swapped + bool(spec.ablate)


def thetas_of(spec: ComparisonSpec) -> tuple[float, ...]:
    """RoPE bases to measure every model under: those asked for, else the short and the long
    model's own, where they differ."""
    if spec.theta is not None:
        return spec.theta
    pair = [spec.model(role) for role in ("short", "long")]
    found = {
        rope_from_config(
            read_config(resolve(model.hf_name), spec.revision, spec.trust_remote_code)
        ).theta
        for model in pair
    }
    known = tuple(sorted(theta for theta in found if theta is not None))
    return known if len(known) == len(pair) else ()
