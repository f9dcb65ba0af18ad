"""Resolve a difference between two models by component, length, position and kind of prompt.

An average over prompts can hide a change of sign: the difference may be negative on short prompts
and positive on long ones.  Every group has an interval of its own, paired over prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64

from gainlens.claims.cells import length_halves
from gainlens.claims.claim import Claim
from gainlens.claims.clusters import clustering_of
from gainlens.claims.numbers import Numbers, Values, numbers_of
from gainlens.claims.pairing import mean_over_prompts, shared_prompts
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import COMPONENTS
from gainlens.metrics.prompts import Positions, tokens_at
from gainlens.metrics.reductions import reduce_norms
from gainlens.records.claims import Evidence
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition, LastBlockParts, PositionGains, PromptGains
from gainlens.records.groups import Clustering, Grouping, Resolved
from gainlens.records.interval import Interval
from gainlens.records.verdict import ComponentDifference, GroupDifference

POSITIONS: Final[tuple[Positions, ...]] = (
    (0, 0), (1, 3), (4, 15), (16, 63), (64, 127), (128, None),
)  # fmt: skip
"""First and last position of each range, fixed before any run."""


def last_block_parts(
    decomposition: Decomposition, gains: PromptGains, rule: Rule
) -> LastBlockParts:
    """Split the last block's log gain per prompt by component and by position, in nats.

    Position 0 counts whatever the token class; elsewhere only tokens of the rule's class count.
    """
    norms = decomposition.norm_in[-1:], decomposition.norm_out[-1:]

    def at(positions: Positions) -> Float64[np.ndarray, " prompt"]:
        mask = tokens_at(decomposition, rule.token_class, positions)
        return reduce_norms(*norms, decomposition.prompt, mask, rule.reduction)[0]

    return LastBlockParts(
        attention=gains.attention[-1],
        mlp=gains.mlp[-1],
        positions=tuple(PositionGains(*positions, at(positions)) for positions in POSITIONS),
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

    Lengths are the short model's numbers of tokens.  Empty if the prompts cannot be paired.
    """
    shared = shared_prompts((short, long), rule)
    if shared is None:
        return ()
    positions: dict[str, np.ndarray] = {}
    if short.parts and long.parts:
        positions = {
            own.label: other.log_gain[shared[1]] - own.log_gain[shared[0]]
            for own, other in zip(short.parts.positions, long.parts.positions, strict=True)
        }
    lengths = [len(short.prompts.tokens[index]) for index in shared[0].tolist()]
    difference = long.last_block[shared[1]] - short.last_block[shared[0]]
    found = _by_group(difference, lengths, groups_at(short, shared[0]), positions, rule)
    return tuple(GroupDifference(by, group, interval) for by, group, interval in found)


def resolve_claim(
    claim: Claim, evidence: Sequence[Evidence], numbers: Sequence[Numbers], rule: Rule
) -> tuple[Resolved, ...]:
    """Return a claim's difference by component, length, position and kind of prompt.

    Args:
        claim: what is asked; only a contrast of kind difference is resolved.
        evidence: one per model, in the order of the claim's roles.
        numbers: the paired differences, from `contrast_of`.
        rule: settings of the intervals.
    """
    if claim.contrast.kind != "difference":
        return ()
    (whole,) = numbers

    def paired(values: Sequence[Values]) -> Float64[np.ndarray, " prompt"]:
        return numbers_of(claim, evidence, values)[0].values

    parts = {name: paired([one.parts[name] for one in evidence]) for name in evidence[0].parts}
    positions = {
        label: paired([one.at_positions[label] for one in evidence])
        for label in evidence[0].at_positions
    }
    lengths = whole.model.lengths[whole.rows].tolist()
    found = _by_group(whole.values, lengths, whole.groups, positions, rule)
    return (
        *(Resolved("component", name, mean_over_prompts(of, rule)) for name, of in parts.items()),
        *(Resolved(by, group, interval) for by, group, interval in found),
    )


def _by_group(
    values: Float64[np.ndarray, " prompt"],
    lengths: Sequence[int],
    kinds: Sequence[str],
    positions: Mapping[str, Float64[np.ndarray, " prompt"]],
    rule: Rule,
) -> Iterator[tuple[Grouping, str, Interval]]:
    """Yield the mean over either half by length, each range of positions and each kind of prompt.

    A kind needs the rule's minimum of prompts to be listed.
    """
    halves = length_halves(np.asarray(lengths))
    for half in ("short", "long"):
        if halves[half].any():
            yield "length", f"{half} prompts", mean_over_prompts(values[halves[half]], rule)
    for label, there in positions.items():
        if not np.isnan(there).all():
            yield "position", label, mean_over_prompts(there, rule)
    for kind in sorted(set(kinds) - {""}):
        of_kind = np.array([one == kind for one in kinds])
        if np.count_nonzero(of_kind) >= rule.min_prompts:
            yield "kind", kind, mean_over_prompts(values[of_kind], rule)


def groups_at(report: ModelReport, indices: np.ndarray) -> tuple[str, ...]:
    """Return the groups of some of a report's prompts; empty if they carry none."""
    groups = report.prompts.groups
    return tuple(groups[index] for index in indices) if groups else ()


def clustering_between(short: ModelReport, long: ModelReport, rule: Rule) -> Clustering | None:
    """Return the paired difference over groups of prompts; None without groups or pairs."""
    shared = shared_prompts((short, long), rule)
    if shared is None:
        return None
    values = long.last_block[shared[1]] - short.last_block[shared[0]]
    return clustering_of(values, groups_at(short, shared[0]), rule.confidence)
