"""TODO: interventions.theta."""

from collections.abc import Callable, Sequence
from typing import Final

from gainlens.interventions.baseline import Baseline, LastValues, changes, measure_last
from gainlens.interventions.rope_override import rope_theta
from gainlens.models.config import rope_from_config
from gainlens.records.interventions import ThetaDose
from gainlens.weights.rope import check_theta, rope_report

_NO_ROPE: Final = "this model has no rotary position embedding, so it has no theta to vary"


def theta_dose(
    baseline: Baseline,
    thetas: Sequence[float],
    *,
    before: LastValues | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[ThetaDose, ...]:
    """The same weights under each RoPE base: the last block's gain and the loss against theta.

    Args:
        baseline: from `baseline_of`.
        thetas: bases to set; the model's own is always among those that come back, in rising
            order, each once.  Scaling stays as it is.
        before: the model as it is, where it has been measured.
        progress: called with the number of prompts done since the last call.

    ValueError for a model without RoPE, for a base that is none, and where the rotary buffers do
    not turn with the base that was set.

    Examples:
        >>> doses = gainlens.theta_dose(gainlens.baseline_of(loaded, prompts), [5e5])
        >>> [(dose.theta, dose.own) for dose in doses]
        [(10000.0, True), (500000.0, False)]
    """
    own = rope_from_config(baseline.config).theta
    if own is None:
        raise ValueError(_NO_ROPE)
    before = before or measure_last(baseline, progress=progress)
    wanted = sorted({own, *(float(theta) for theta in thetas)})
    afters: list[LastValues] = []
    for theta in wanted:
        if theta == own:
            afters.append(before)
            continue
        with rope_theta(baseline.model, theta):
            check_theta(rope_report(baseline.model, baseline.config), theta)
            afters.append(measure_last(baseline, progress=progress))
    found = changes(before, afters, baseline.rule, baseline.dtype)
    return tuple(
        ThetaDose(theta, theta == own, change, after.log_gain)
        for theta, change, after in zip(wanted, found, afters, strict=True)
    )


def swap_refusal(baseline: Baseline, thetas: Sequence[float]) -> str | None:
    """Why a model's theta cannot be another; None where it can."""
    if thetas and rope_from_config(baseline.config).theta is None:
        return _NO_ROPE
    try:
        for theta in thetas:
            with rope_theta(baseline.model, theta):
                pass
    except ValueError as problem:
        return str(problem)
    return None
