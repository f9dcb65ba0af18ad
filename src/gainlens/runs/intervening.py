"""Run the interventions that claims name on a loaded model, each with its random control."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gainlens.activations.capturing import capture
from gainlens.claims.claim import Claim
from gainlens.claims.evidence import Arms
from gainlens.claims.intervention import Intervention
from gainlens.core.spec import MeasureSpec
from gainlens.interventions.controlled import Arm, Subject, plan_of
from gainlens.interventions.skipping import with_losses
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.registry import METRICS
from gainlens.models.loaded import LoadedModel
from gainlens.records.gains import Decomposition
from gainlens.runs.measured import Measured

ArmsByIntervention = Mapping[Intervention, Arms | str]
"""By intervention: the model's numbers under it, or why it could not be run."""
_LOSSES = {"token_loss", "skip_loss"}


def arms_by_intervention(
    claims: Sequence[Claim], one: Measured, loaded: LoadedModel, spec: MeasureSpec
) -> ArmsByIntervention:
    """Run every intervention of some claims once on one model, and its control.

    Args:
        claims: those without an intervention are passed over.
        one: the model as it is.
        loaded: the model.
        spec: the rule, whose seed draws the controls, and the size of a batch.

    The keys are `Intervention.passes`.
    """
    columns: dict[Intervention, set[str]] = {}
    for claim in claims:
        if claim.intervention is not None:
            read = METRICS[claim.estimand.metric].columns
            columns.setdefault(claim.intervention.passes, set()).update(read)
    return {
        wanted: _arms(wanted, of_metrics, one, loaded, spec)
        for wanted, of_metrics in columns.items()
    }


def _arms(
    wanted: Intervention,
    columns: set[str],
    one: Measured,
    loaded: LoadedModel,
    spec: MeasureSpec,
) -> Arms | str:
    """Run one intervention; columns: what the claims' metrics read.

    If they read the loss alone, the passes run on the Hugging Face model of the same tensors, and
    nothing else is captured.
    """
    loss_alone = columns == {"token_loss"}
    model = loaded.hf_model if loss_alone and loaded.hf_model is not None else loaded.model
    plain, prompts = one.decomposition, one.report.prompts
    subject = Subject(model, loaded.checkpoint.config, prompts, plain, spec.rule, spec.batch_tokens)

    def under(arm: Arm) -> Decomposition:
        with arm():
            captured = plain.capture
            if not loss_alone:
                captured = capture(
                    model,
                    prompts,
                    patterns="sink" in columns,
                    heads="heads" in columns,
                    batch_tokens=spec.batch_tokens,
                )
            if columns & _LOSSES:
                captured = with_losses(
                    captured,
                    model,
                    prompts,
                    skip="skip_loss" in columns,
                    batch_tokens=spec.batch_tokens,
                )
        if loss_alone:
            return replace(plain, capture=captured)
        rule = spec.rule
        found = decompose(captured, split=rule.split, massive_ratio=rule.massive_ratio)
        return replace(found, is_massive=plain.is_massive)

    try:
        plan = plan_of(wanted, subject)
        controls = tuple(map(under, plan.controls))
        return Arms(under(plan.treated), controls, plan.acts, plan.population)
    except ValueError as problem:
        return str(problem)
