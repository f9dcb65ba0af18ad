"""Measure the same weights under several RoPE bases."""

from collections.abc import Callable, Sequence

from gainlens.interventions.baseline import Baseline
from gainlens.interventions.last_block import LastValues, changes, measure_last
from gainlens.interventions.rope_override import checked_theta
from gainlens.models.config import rope_from_config
from gainlens.records.interventions import ThetaDose


def theta_dose(
    baseline: Baseline,
    thetas: Sequence[float],
    *,
    before: LastValues | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[ThetaDose, ...]:
    """Measure the last block's gain and the loss under each RoPE base.

    Args:
        baseline: from `baseline_of`.
        thetas: bases to set; scaling stays as it is.
        before: the model as it is, if it has been measured; None: measured here.
        progress: called with the number of prompts done since the last call.

    Returns one record per base in rising order, the model's own among them.  Raises ValueError for
    a model without RoPE, for a base that is not a finite number above 1, and if the rotary buffers
    do not turn with the base that was set.

    Examples:
        >>> doses = gainlens.theta_dose(gainlens.baseline_of(loaded, prompts), [5e5])
        >>> [(dose.theta, dose.own) for dose in doses]
        [(10000.0, True), (500000.0, False)]
    """
    own_theta = rope_from_config(baseline.config).theta
    if own_theta is None:
        raise ValueError("this model has no rotary position embedding, so it has no theta to vary")
    before = before or measure_last(baseline, progress=progress)
    wanted = sorted({own_theta, *(float(theta) for theta in thetas)})
    afters: list[LastValues] = []
    for theta in wanted:
        if theta == own_theta:
            afters.append(before)
            continue
        with checked_theta(baseline.model, baseline.config, theta):
            afters.append(measure_last(baseline, progress=progress))
    paired = changes(before, afters, baseline.rule, baseline.dtype)
    return tuple(
        ThetaDose(theta, theta == own_theta, change, after.log_gain)
        for theta, change, after in zip(wanted, paired, afters, strict=True)
    )
