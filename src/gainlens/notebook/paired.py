"""Test the log gains of two models on the same prompts."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

from gainlens.notebook.intervals import FEWEST_PROMPTS, holm, t_interval, t_test
from gainlens.notebook.rescored import Measurement, PairedDifference, Statement

_MOST_PAIRS_OF: Final = 4
"""Up to so many models every pair is tested; of more, each with the next."""


def paired_differences(
    measurements: Sequence[Measurement], statements: Sequence[Statement]
) -> tuple[PairedDifference, ...]:
    """Return the paired tests over prompts that two models share, corrected after Holm."""
    pairs = [pair for pair in _pairs(measurements) if len(_shared(*pair)) >= FEWEST_PROMPTS]
    logs = [
        [math.log(one.by_prompt[key] / other.by_prompt[key]) for key in _shared(one, other)]
        for one, other in pairs
    ]
    says = {statement.group: statement.text for statement in statements if statement.group}
    rows: list[PairedDifference] = []
    for (one, other), values, p in zip(pairs, logs, holm([t_test(v) for v in logs]), strict=True):
        low, high = t_interval(values) or (math.nan, math.nan)
        rows.append(
            PairedDifference(
                model=one.model, minus=other.model, called=one.called, state=one.state,
                prompts=len(values), nats=math.fsum(values) / len(values), low=low, high=high,
                p=p, says=None if one.group is None else says.get(one.group),
            )
        )  # fmt: skip
    return tuple(rows)


def _pairs(measurements: Sequence[Measurement]) -> Iterator[tuple[Measurement, Measurement]]:
    """Yield (later, earlier) of each family, or of all models if the file names no family."""
    with_prompts = [row for row in measurements if row.prompts >= FEWEST_PROMPTS]
    groups: dict[tuple[str, str | None], list[Measurement]] = {}
    for row in with_prompts:
        groups.setdefault((row.called, row.group), []).append(row)
    for rows in groups.values():
        few = len(rows) <= _MOST_PAIRS_OF
        pairs = itertools.combinations(rows, 2) if few else itertools.pairwise(rows)
        yield from ((later, earlier) for earlier, later in pairs)


def _shared(one: Measurement, other: Measurement) -> list[str]:
    return [key for key in one.by_prompt if key in other.by_prompt]
