"""Measure what needs passes of its own, beyond a capture."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gainlens.core.spec import RunSpec
from gainlens.metrics.metric import Metric
from gainlens.runs.measured import Measured

if TYPE_CHECKING:
    from gainlens.models.loaded import LoadedModel


def with_passes(
    one: Measured,
    metric: Metric,
    spec: RunSpec,
    loaded: "LoadedModel | None" = None,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Measure what a metric reads and a capture alone does not give: token_loss and skip_loss.

    They run on the Hugging Face model if it holds the same tensors, which is faster.
    """
    captured = one.decomposition.capture
    wanted = {"token_loss", "skip_loss"} & set(metric.columns)
    if all(getattr(captured, name) is not None for name in wanted) or one.reopen is None:
        return one
    from gainlens.interventions.skipping import with_losses

    loaded = loaded or one.reopen()
    captured = with_losses(
        captured,
        loaded if loaded.hf_model is None else loaded.hf_model,
        one.report.prompts,
        skip="skip_loss" in wanted,
        batch_tokens=spec.batch_tokens,
        progress=progress,
    )
    return replace(one, decomposition=replace(one.decomposition, capture=captured))
