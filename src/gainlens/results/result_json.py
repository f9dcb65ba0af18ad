"""Write result.json: a superset of the notebook's JSON."""

from dataclasses import asdict
from typing import Any

from gainlens.core.spec import Rule
from gainlens.notebook.json import notebook_json
from gainlens.notebook.result_file import SCHEMA
from gainlens.records.comparison import Comparison, ModelReport
from gainlens.records.gains import band_meaning
from gainlens.records.inputs import EncodedPrompts
from gainlens.results.values import to_json


def result_json(comparison: Comparison) -> dict[str, Any]:
    """Return result.json's document, JSON values only."""
    short, long = comparison.report("short"), comparison.report("long")
    document = notebook_json(
        f"{_label(comparison, short)} vs {_label(comparison, long)} - Long-Context Hypothesis Test",
        comparison.date,
        comparison.reports,
        comparison.test,
    )
    for report in comparison.reports:
        _add_model(document["models"][report.checkpoint.name], report, comparison.spec.rule)
    document |= _asked_for(comparison)
    identification = comparison.verdict.identification
    status = "CONTROLLED" if identification.controlled else "CONFOUNDED"
    return to_json(
        document
        | {
            "verdict": asdict(comparison.verdict)
            | {
                "dissent": [str(cell) for cell in comparison.verdict.dissent],
                "undecided": [cell.name for cell in comparison.verdict.undecided],
                "identification": {"status": status} | asdict(identification),
            },
            "gainlens": {"version": _version(), "schema": SCHEMA},
            "environment": comparison.environment,
            "command": comparison.command,
            "spec": comparison.spec.model_dump(),
            "seconds": round(comparison.seconds, 3),
        }
    )


def _version() -> str:
    from importlib.metadata import version

    return version("gainlens")


def _label(comparison: Comparison, report: ModelReport) -> str:
    key = report.checkpoint.name
    return next(model.label or key for model in comparison.spec.models if model.key == key)


def _add_model(model: dict[str, Any], report: ModelReport, rule: Rule) -> None:
    """Add everything beyond the notebook's keys; an unknown number is null beside its status."""
    checkpoint = report.checkpoint
    model |= {
        "role": report.role,
        "backend": checkpoint.backend,
        "dtype": checkpoint.dtype,
        "checkpoint": checkpoint,
        "layers": report.blocks,
        "layers_interval": band_meaning(rule.confidence),
        "behaviour": report.behaviour,
        "equivalent": report.equivalent,
        "cells": report.cells,
        "last_block": report.last_block,
        "massive": report.massive,
        "prompts": _prompts(report.prompts),
        "controls": {
            "scale": report.scale_control,
            "halves": report.halves_control,
        },
        "visible_share": report.visible_share,
        "interventions": report.interventions,
        "parts": report.parts,
    }
    model["w_u"] |= {
        key: value for key, value in asdict(report.unembed).items() if key not in model["w_u"]
    }
    model["rope"] |= {
        key: value for key, value in asdict(report.rope).items() if key not in model["rope"]
    }


def _asked_for(comparison: Comparison) -> dict[str, Any]:
    """Return what --theta and --ablate asked for, for all models together."""
    spec, reports = comparison.spec, comparison.reports
    found: dict[str, Any] = {}
    if spec.theta:
        found["theta_dose"] = [
            {"model": report.checkpoint.name} | asdict(dose)
            for report in reports
            for dose in report.interventions.theta_dose
        ]
    if spec.ablate:
        found["ablation"] = {
            "site": " + ".join(ablation.site for ablation in spec.ablate),
            "how": " + ".join(ablation.how for ablation in spec.ablate),
            "outcome": comparison.verdict.ablated_outcome,
            "models": {
                report.checkpoint.name: {
                    "baseline": {"layers": report.blocks},
                    "layers": report.interventions.ablated and report.interventions.ablated.blocks,
                }
                for report in reports
            },
        }
    return found


def _prompts(prompts: EncodedPrompts) -> dict[str, Any]:
    return {
        "source": prompts.source,
        "sha256": prompts.sha256,
        "note": prompts.note,
        "count": len(prompts.ids),
        "tokens": [len(tokens) for tokens in prompts.tokens],
        "ids": prompts.ids,
        "bos": prompts.bos,
        "cut": prompts.cut,
        "left_out": prompts.left_out,
        "groups": prompts.groups,
        "prefix": prompts.prefix,
    }
