"""Write the notebook's JSON from our reports, key for key."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from gainlens.notebook.published import HYPOTHESIS, NOTEBOOK_REFERENCES
from gainlens.notebook.table import UNKNOWN_RATIO
from gainlens.records.comparison import HypothesisTest, ModelReport


def notebook_json(
    experiment: str, date: str, reports: Sequence[ModelReport], test: HypothesisTest
) -> dict[str, Any]:
    """Return the notebook's JSON as plain values; an unknown number is null with its reason.

    Added to the notebook's keys: true_last_gain and final_norm_gain under `residual`; short_expands
    and long_expands under `hypothesis_test`, beside the names that the notebook gave them.
    """
    return {
        "experiment": experiment,
        "date": date,
        "hypothesis": HYPOTHESIS,
        "models": {report.checkpoint.name: _model_json(report) for report in reports},
        "hypothesis_test": _test_json(test),
        "references": copy.deepcopy(NOTEBOOK_REFERENCES),
    }


def _model_json(report: ModelReport) -> dict[str, Any]:
    residual, unembed = report.residual, report.unembed
    no_gain = "nothing enters the last block, so it has no gain"
    return {
        "model": report.checkpoint.name,
        "hf_name": report.checkpoint.hf_name,
        "num_layers": report.checkpoint.num_blocks,
        "residual": dataclasses.asdict(residual)
        | {"norms": list(residual.norms), "gains": list(residual.gains)}
        | _known("true_last_gain", residual.true_last_gain, no_gain)
        | _known("final_norm_gain", residual.final_norm_gain, "nothing leaves the last block"),
        "w_u": {
            "shape": list(unembed.shape),
            "vocab_size": unembed.vocab_size,
            "hidden_dim": unembed.hidden_dim,
            "frobenius_norm": unembed.frobenius_norm,
            "spectral_norm": unembed.spectral_norm,
            "mean_row_norm": unembed.mean_row_norm,
        },
        "rope": _rope_json(report),
    }


def _rope_json(report: ModelReport) -> dict[str, Any]:
    rope = report.rope
    scaling = None if rope.rope_scaling is None else copy.deepcopy(dict(rope.rope_scaling))
    return (
        _known("rope_theta", rope.rope_theta, "the model has no rotary position embedding")
        | {"rope_scaling": scaling}
        | _known("max_position", rope.max_position, "the config gives no max_position_embeddings")
    )


def _test_json(test: HypothesisTest) -> dict[str, Any]:
    ratios: dict[str, Any] = {}
    for name, reason in UNKNOWN_RATIO.items():
        ratios |= _known(name, getattr(test, name), reason)
    return {
        "short_expands": test.short_expands,
        "long_expands": test.long_expands,
        "llama2_expands": test.short_expands,
        "llama31_expands": test.long_expands,
        **ratios,
        "verdict": test.verdict,
    }


def _known(name: str, value: float | int | None, reason: str) -> dict[str, Any]:
    """Return a number under its name; an unknown one is null with the reason beside it."""
    if value is not None and math.isfinite(value):
        return {name: value}
    return {name: None, f"{name}_reason": reason}
