"""Measure which blocks matter: `gainlens.layers`."""

from collections.abc import Callable
from dataclasses import fields

from gainlens.core.spec import MeasureSpec
from gainlens.models.encoding import Prompts
from gainlens.runs.block_importance import MEASURES, Layers
from gainlens.runs.measure import Source, measure
from gainlens.runs.measurement import Measurement


def layers(
    model: Source,
    prompts: Prompts | None = None,
    *,
    tokens: int | None = None,
    spec: MeasureSpec | None = None,
    progress: Callable[[int], None] | None = None,
) -> Layers:
    """Measure what each block of a model does to the stream, and what skipping it costs.

    Args:
        model: from `load` or `wrap`, a bare model, a hub name (also NAME@REVISION), or a directory.
        prompts: as for `measure`.
        tokens: cut or join prompts to exactly so many tokens; None: prompts as they are.
        spec: back end, dtype, device and rule; the defaults if None.
        progress: called with the number of prompts done since the last call.

    `skip_loss` is in nats per token; it runs the blocks after the skipped one again.  Raises
    ValueError if the model cannot be loaded or measured, or post-processes its logits.

    Examples:
        >>> found = gainlens.layers(loaded, ["x = 1", "Hello, world."])
        >>> found.removal.withheld  # no order from so few prompts
        'too few prompts with a loss: 2, at least 16 are needed'
        >>> found.layers["skip_loss"].shape
        (8,)
    """
    spec = spec or MeasureSpec(name="layers", models=())
    spec = spec.model_copy(update={"metric": tuple(dict.fromkeys((*spec.metric, *MEASURES)))})
    measured = measure(
        [model],
        prompts,
        tokens=() if tokens is None else tokens,
        heads=False,
        spec=spec,
        progress=progress,
    )
    given = (field.name for field in fields(Measurement) if field.init)
    return Layers(**{name: getattr(measured, name) for name in given})
