"""Re-score a result file beside the notebook's: what its shapes hold, and its own words."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gainlens.core.messages import shown
from gainlens.notebook import gain_shapes as gains
from gainlens.notebook import matrix_shapes as matrices
from gainlens.notebook.definitions import REDUCTION_LIMITS, STATE_LIMITS
from gainlens.notebook.documents import place
from gainlens.notebook.intervals import FEWEST_PROMPTS
from gainlens.notebook.paired import paired_differences
from gainlens.notebook.record import Finding
from gainlens.notebook.rescored import Limit, Measurement, Rescore, Spectrum, Statement
from gainlens.notebook.shapes import Shape, read_entries

SHAPES: Final[tuple[type[Shape], ...]] = (
    gains.PromptRow, gains.PromptGains, gains.ModelNorms, gains.StatesBeforeNorm,
    gains.ResidualStatesAfterNorm, gains.StatesAfterNorm, gains.SublayerGains,
    gains.SublayerObjects, gains.Heads, gains.CopiedGain, matrices.Matrix,
    matrices.AttentionWeights, matrices.ValueNorms, matrices.MeanNorms, matrices.StateRanks,
)  # fmt: skip
"""An entry is read by the first shape whose keys it has."""


def rescore_neighbour(name: str, document: dict[str, Any]) -> Rescore:
    """Re-score one file; `name` stands in the errors."""
    shapes, records = read_entries(name, document, SHAPES)
    if not records:
        raise ValueError(
            f"{name} holds no gains, norms or spectra in a shape that gainlens reads: give a "
            "result.json, the notebook's JSON or a result file of its neighbours"
        )
    measurements = _merged(name, [row for row in records if isinstance(row, Measurement)])
    statements = tuple(itertools.islice(_statements(document, (), False), 40))
    spectra = tuple(row for row in records if isinstance(row, Spectrum))
    spectral: tuple[Limit, ...] = ("spectra",) if spectra else ()
    return Rescore(
        source=name.strip("'"),
        ours=False,
        shapes=tuple(shapes),
        measurements=measurements,
        differences=paired_differences(measurements, statements),
        spectra=spectra,
        statements=statements,
        findings=tuple(row for row in records if isinstance(row, Finding)),
        limits=(*_limits_of(measurements), *spectral),
    )


def _merged(name: str, measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return one measurement per model and name, from one per prompt."""
    rows: dict[tuple[str, str], list[Measurement]] = {}
    for row in measurements:
        rows.setdefault((row.model, row.called), []).append(row)
    merged: list[Measurement] = []
    for (model, _), group in rows.items():
        prompts: dict[str, float] = {}
        for row in group:
            if twice := row.by_prompt.keys() & prompts.keys():
                given = shown(min(twice))
                raise ValueError(
                    f"{name} cannot be re-scored: {model} has twice the prompt {given}"
                )
            prompts |= row.by_prompt
        merged.append(group[0].model_copy(update={"by_prompt": prompts}))
    return tuple(merged)


def _limits_of(measurements: Sequence[Measurement]) -> Iterator[Limit]:
    for state in STATE_LIMITS:
        if any(row.state == state for row in measurements):
            yield state
    measured = [row for row in measurements if row.state != "copied"]
    for reduction in REDUCTION_LIMITS:
        if any(row.reduction == reduction for row in measured):
            yield reduction
    if any(row.prompts < FEWEST_PROMPTS for row in measured):
        yield "interval"


_VERDICTS: Final = (
    "verdict", "conclusion", "status", "interpretation", "result", "hypothesis_status",
    "signature", "discovery", "Status", "RLHF_Effect", "universal_expansion", "hypothesis",
)  # fmt: skip


def _statements(tree: object, keys: tuple[str | int, ...], inside: bool) -> Iterator[Statement]:
    """Yield the file's own conclusions: strings under a verdict's name, at most four deep."""
    if len(keys) > 4 or not isinstance(tree, dict | list):
        return
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    family = tree.get("Family") if isinstance(tree, dict) else None
    for key, item in items:
        word = str(key)
        named = word in _VERDICTS or word.endswith("_verdict")
        if isinstance(item, str) and (named or inside):
            group = shown(family) if isinstance(family, str) else None
            yield Statement(place=place((*keys, key)), text=shown(item, 200), group=group)
        yield from _statements(item, (*keys, key), named or word == "conclusions")
