"""Take the numbers that a claim asks for from a model's report and decomposition."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
from jaxtyping import Bool

from gainlens.claims.claim import Claim
from gainlens.claims.resolving import POSITIONS
from gainlens.core.vocabulary import Reduction
from gainlens.metrics.metric import OverTokens
from gainlens.metrics.prompts import reduce_metric
from gainlens.metrics.reductions import reduce_gains
from gainlens.metrics.registry import METRICS
from gainlens.records.claims import Controlled, Evidence, Fact
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition, position_label

_NORMS: Final = {
    "rms_norm_eps": "RMSNorm", "layer_norm_eps": "LayerNorm", "layer_norm_epsilon": "LayerNorm",
    "layernorm_epsilon": "LayerNorm",
}  # fmt: skip


def facts_of(report: ModelReport) -> dict[str, Fact]:
    """Return what a premise may ask of a model; None for what its config does not say."""
    checkpoint = report.checkpoint
    config: Mapping[str, Any] = checkpoint.config
    theta = report.rope.rope_theta
    kv_heads = config.get("num_key_value_heads")
    return {
        "context": float(checkpoint.context),
        "theta": None if theta is None else float(theta),
        "layers": float(checkpoint.num_blocks),
        "d_model": float(checkpoint.d_model),
        "vocabulary": float(checkpoint.d_vocab),
        "heads": float(checkpoint.num_heads),
        "kv_heads": float(checkpoint.num_heads if kv_heads is None else kv_heads),
        "norm": next((kind for key, kind in _NORMS.items() if key in config), None),
    }


@dataclass(frozen=True)
class Arms:
    """Hold what a model gives under an intervention and under each draw of its control."""

    treated: Decomposition
    controls: tuple[Decomposition, ...]
    acts: Bool[np.ndarray, " prompt"]
    """False for prompts on which the intervention acts nowhere"""
    population: int | None = None
    """of how many possible controls these are; None: without end"""


def evidence_of(
    claim: Claim,
    report: ModelReport,
    decomposition: Decomposition,
    role: str,
    step: float | None = None,
    arms: Arms | str | None = None,
) -> Evidence:
    """Return one model's numbers for one claim, under every way of reducing a prompt's tokens.

    Args:
        claim: from `read_claim`.
        report: of the model.
        decomposition: of the model as it is.
        role: that the model has in the claim.
        step: of training, of a series.
        arms: of the claim's intervention, or why it could not be run; None if it has none.

    If the capture lacks a column that a metric reads, `unmeasured` says so.
    """
    seed = (report.checkpoint.training or {}).get("seed")
    evidence = Evidence(
        role=role,
        name=report.checkpoint.name,
        facts=facts_of(report),
        ids=report.prompts.ids,
        lengths=np.array([len(tokens) for tokens in report.prompts.tokens], dtype=np.int64),
        sha256=report.prompts.sha256,
        values={},
        step=step,
        seed=float(seed) if isinstance(seed, int | float) else None,
        groups=report.prompts.groups,
        unmeasured=arms if isinstance(arms, str) else "",
    )
    if evidence.unmeasured:
        return evidence
    try:
        return _with_values(claim, evidence, decomposition, None if isinstance(arms, str) else arms)
    except ValueError as problem:  # this back end does not show what the metric reads
        return replace(evidence, unmeasured=str(problem))


def _with_values(
    claim: Claim, evidence: Evidence, decomposition: Decomposition, arms: Arms | None
) -> Evidence:
    """Return the evidence with the numbers that the claim is judged by."""
    estimand, other = claim.estimand, claim.contrast.other
    metric = METRICS[estimand.metric]
    first = estimand.reduction
    ways: tuple[OverTokens, ...] = (first, *(way for way in metric.reductions if way != first))
    if "token" not in metric.over:  # one value per prompt: there is nothing to reduce
        ways: tuple[OverTokens, ...] = (first,)

    def reduced(way: OverTokens, of: Decomposition = decomposition) -> np.ndarray:
        return reduce_metric(metric, of, estimand.tokens, way)

    if arms is None:
        resolves = claim.contrast.kind == "difference"
        return replace(
            evidence,
            at_positions=_at_positions(claim, decomposition) if resolves else {},
            parts=_parts(claim, decomposition) if resolves else {},
            values={way: reduced(way) for way in ways},
            with_values=reduce_metric(other, decomposition, estimand.tokens)
            if other in METRICS
            else None,
        )
    by_way: dict[str, Controlled] = {}
    for way in ways:
        under = np.stack([reduced(way, arm) for arm in (arms.treated, *arms.controls)])
        change = np.where(arms.acts, under - reduced(way), np.nan)
        by_way[way] = Controlled(change[0], change[1:], arms.population)
    beyond = claim.intervention is not None and claim.intervention.against == "control"
    return replace(
        evidence,
        values={
            way: found.change - found.control if beyond else found.change
            for way, found in by_way.items()
        },
        controlled=by_way[first],
    )


def _at_positions(claim: Claim, decomposition: Decomposition) -> dict[str, np.ndarray]:
    """Return the metric on the tokens of each range of positions."""
    estimand = claim.estimand
    if "token" not in METRICS[estimand.metric].over:
        return {}
    return {
        position_label(*positions): reduce_metric(
            estimand.metric, decomposition, estimand.tokens, estimand.reduction, positions
        )
        for positions in POSITIONS
    }


def _parts(claim: Claim, decomposition: Decomposition) -> dict[str, np.ndarray]:
    """Return attention's and the MLP's part of a log gain.

    Parts of a median over blocks do not sum to it, so it has none.
    """
    estimand = claim.estimand
    if estimand.metric != "log_gain" or estimand.over_blocks == "median":
        return {}
    reduction = cast("Reduction", estimand.reduction)
    gains = reduce_gains(decomposition, estimand.tokens, reduction)
    return {"attention": gains.attention, "mlp": gains.mlp}
