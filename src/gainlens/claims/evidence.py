"""Take the numbers that a claim asks for from a model's report and decomposition."""

from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from gainlens.claims.claim import Claim
from gainlens.claims.resolving import POSITIONS
from gainlens.core.vocabulary import Reduction
from gainlens.metrics.metric import OverTokens
from gainlens.metrics.prompts import reduce_metric
from gainlens.metrics.reductions import reduce_gains
from gainlens.metrics.registry import METRICS
from gainlens.records.claims import Evidence, Fact
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


def evidence_of(
    claim: Claim,
    report: ModelReport,
    decomposition: Decomposition,
    role: str,
    step: float | None = None,
) -> Evidence:
    """Return one model's numbers for one claim, under every way of reducing a prompt's tokens.

    Raises ValueError if the capture lacks a column that a metric reads.
    """
    estimand = claim.estimand
    metric = METRICS[estimand.metric]
    first = estimand.reduction
    ways: tuple[OverTokens, ...] = (first, *(way for way in metric.reductions if way != first))
    if "token" not in metric.over:  # one value per prompt: there is nothing to reduce
        ways: tuple[OverTokens, ...] = (first,)
    other = claim.contrast.other
    resolves = claim.contrast.kind == "difference"
    seed = (report.checkpoint.training or {}).get("seed")
    return Evidence(
        role=role,
        name=report.checkpoint.name,
        facts=facts_of(report),
        ids=report.prompts.ids,
        lengths=np.array([len(tokens) for tokens in report.prompts.tokens], dtype=np.int64),
        sha256=report.prompts.sha256,
        values={way: reduce_metric(metric, decomposition, estimand.tokens, way) for way in ways},
        with_values=reduce_metric(other, decomposition, estimand.tokens)
        if other in METRICS
        else None,
        step=step,
        seed=float(seed) if isinstance(seed, int | float) else None,
        groups=report.prompts.groups,
        at_positions=_at_positions(claim, decomposition) if resolves else {},
        parts=_parts(claim, decomposition) if resolves else {},
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
