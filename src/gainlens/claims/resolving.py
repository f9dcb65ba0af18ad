"""Resolve a difference between two models by component, length, position and kind of prompt.

An average over prompts can hide a change of sign: the difference may be negative on short prompts
and positive on long ones.  Every group has an interval of its own, paired over prompts.
"""

from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.cells import length_halves
from gainlens.claims.intervals import seed_interval
from gainlens.claims.pairing import mean_over_prompts, shared_prompts
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import COMPONENTS
from gainlens.metrics.reductions import reduce_norms
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition, LastBlockParts, PositionGains, PromptGains
from gainlens.records.verdict import Clustering, ComponentDifference, GroupDifference

POSITIONS: Final[tuple[tuple[int, int | None], ...]] = (
    (0, 0),
    (1, 3),
    (4, 15),
    (16, 63),
    (64, 127),
    (128, None),
)
"""First and last position of each range, fixed before any run."""


def last_block_parts(
    decomposition: Decomposition, gains: PromptGains, rule: Rule
) -> LastBlockParts:
    """Split the last block's log gain per prompt by component and by position, in nats.

    Position 0 counts whatever the token class; elsewhere only tokens of the rule's class count.
    """
    position = decomposition.position
    chosen = decomposition.tokens_of(rule.token_class)

    def at(first: int, last: int | None) -> Float64[np.ndarray, " prompt"]:
        within = (position >= first) & (position <= (position.max() if last is None else last))
        mask = within if first == 0 else within & chosen
        norms = decomposition.norm_in[-1:], decomposition.norm_out[-1:]
        return reduce_norms(*norms, decomposition.prompt, mask, rule.reduction)[0]

    return LastBlockParts(
        attention=gains.attention[-1],
        mlp=gains.mlp[-1],
        positions=tuple(PositionGains(first, last, at(first, last)) for first, last in POSITIONS),
    )


def component_differences(
    short: ModelReport, long: ModelReport, rule: Rule
) -> tuple[ComponentDifference, ...]:
    """Return long minus short of attention's and the MLP's part, paired over prompts.

    Empty if the prompts cannot be paired or the parts were not measured.
    """
    shared = shared_prompts((short, long), rule)
    parts = short.parts, long.parts
    if shared is None or parts[0] is None or parts[1] is None:
        return ()
    return tuple(
        ComponentDifference(
            component,
            mean_over_prompts(
                getattr(parts[1], component)[shared[1]] - getattr(parts[0], component)[shared[0]],
                rule,
            ),
        )
        for component in COMPONENTS
    )


def resolved_differences(
    short: ModelReport, long: ModelReport, rule: Rule
) -> tuple[GroupDifference, ...]:
    """Return long minus short by length, by position and by kind of prompt, in nats.

    Lengths are the short model's numbers of tokens.  A kind needs the rule's minimum of prompts to
    be listed.  Empty if the prompts cannot be paired.
    """
    shared = shared_prompts((short, long), rule)
    if shared is None:
        return ()
    difference = long.last_block[shared[1]] - short.last_block[shared[0]]
    lengths = [len(short.prompts.tokens[index]) for index in shared[0].tolist()]
    groups: list[GroupDifference] = []
    halves = length_halves(np.repeat(np.arange(len(lengths)), lengths))
    for half in ("short", "long"):
        if halves[half].any():
            interval = mean_over_prompts(difference[halves[half]], rule)
            groups.append(GroupDifference("length", f"{half} prompts", interval))
    if short.parts and long.parts:
        for own, other in zip(short.parts.positions, long.parts.positions, strict=True):
            values = other.log_gain[shared[1]] - own.log_gain[shared[0]]
            if not np.isnan(values).all():
                interval = mean_over_prompts(values, rule)
                groups.append(GroupDifference("position", own.label, interval))
    kinds = _groups_of(short, shared[0])
    for kind in sorted(set(kinds.tolist()) - {""}):
        if np.count_nonzero(kinds == kind) >= rule.min_prompts:
            interval = mean_over_prompts(difference[kinds == kind], rule)
            groups.append(GroupDifference("kind", kind, interval))
    return tuple(groups)


def _groups_of(report: ModelReport, indices: np.ndarray) -> np.ndarray:
    groups = report.prompts.groups or ("",) * len(report.prompts.ids)
    return np.array(groups, dtype=object)[indices]


def clustering_of(short: ModelReport, long: ModelReport, rule: Rule) -> Clustering | None:
    """Return the difference over groups and the intraclass correlation; None without groups.

    Groups are the prompts' kinds or files.  Prompts without a group are groups of their own.
    """
    shared = shared_prompts((short, long), rule)
    if shared is None:
        return None
    names = _groups_of(short, shared[0])
    values = long.last_block[shared[1]] - short.last_block[shared[0]]
    known = ~np.isnan(values)
    names, values = names[known], values[known]
    if not any(names):
        return None
    names = np.array([name or f"prompt {i}" for i, name in enumerate(names)])
    _, index = np.unique(names, return_inverse=True)
    groups = int(index.max()) + 1
    if groups < 2 or groups == len(values):
        return None
    means = np.bincount(index, values) / np.bincount(index)
    interval = seed_interval(means, confidence=rule.confidence, unit="group")
    return Clustering(groups, intraclass_correlation(values, index), interval)


def intraclass_correlation(values: Float64[np.ndarray, " prompt"], group: np.ndarray) -> float:
    """Return ICC(1) of a one-way analysis of variance, groups of unequal size allowed.

    Shrout & Fleiss 1979, with the mean group size of Donner 1986.  0 if the groups differ by no
    more than chance; NaN if nothing varies.
    """
    sizes = np.bincount(group)
    means = np.bincount(group, values) / sizes
    groups, n = len(sizes), len(values)
    between = (sizes * (means - values.mean()) ** 2).sum() / (groups - 1)
    within = ((values - means[group]) ** 2).sum() / (n - groups)
    size = (n - (sizes**2).sum() / n) / (groups - 1)
    total = between + (size - 1) * within
    return max(float((between - within) / total), 0.0) if total > 0 else float("nan")
