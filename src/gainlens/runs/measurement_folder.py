"""Write a measurement as a run folder: result.json, tables, figures and the page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gainlens.claims.intervals import mean_intervals
from gainlens.core.table import Table
from gainlens.figures.files import save_with_page
from gainlens.metrics.registry import metric_named
from gainlens.notebook.result_file import SCHEMA
from gainlens.records.gains import band_meaning
from gainlens.report.explorer import explored
from gainlens.report.intervention_tables import intervention_tables
from gainlens.report.measurement import (
    blocks_table,
    difference_table,
    frame_table,
    models_table,
)
from gainlens.report.page import PAGE, page_html
from gainlens.report.tables import massive, rope, unembedding
from gainlens.results.files import write_json
from gainlens.results.parquet import HEADS, TOKENS, TokenTable, write_heads
from gainlens.results.run_folder import RESULT, publish
from gainlens.results.values import to_json
from gainlens.runs.measurement import Measurement

if TYPE_CHECKING:
    import pandas as pd

_MAP = "token_map"
"""The page draws this one anew, for every metric and several prompts."""


def metric_rows(measurement: Measurement, names: Sequence[str]) -> "pd.DataFrame":
    """Return a row per model, metric and block: mean over prompts with its interval and its unit.

    The tokens are those of the spec's rule.  Raises ValueError for an unknown metric.
    """
    import pandas as pd

    rule = measurement.spec.rule
    rows: list[dict[str, Any]] = []
    for name in names:
        array = measurement.metric(name, rule.token_class)
        for model, values in zip(measurement.models, array.values, strict=True):
            known = ~np.isnan(values).all(axis=1)
            intervals = mean_intervals(
                values[known],
                confidence=rule.confidence,
                resamples=rule.resamples,
                seed=rule.seed,
            )
            for block, interval in zip(np.flatnonzero(known), intervals, strict=True):
                rows.append(
                    {
                        "model": model,
                        "metric": metric_named(name).name,
                        "unit": metric_named(name).unit,
                        "block": int(block),
                        "mean": interval.estimate,
                        "low": interval.low,
                        "high": interval.high,
                        "n": interval.n,
                    }
                )
    return pd.DataFrame(rows)


def measurement_json(measurement: Measurement, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Return result.json of a measurement: JSON values only, an unknown number is null."""
    rows = metric_rows(measurement, metrics).to_dict("records")
    models: dict[str, Any] = {}
    for place, report in enumerate(measurement.reports):
        name = report.checkpoint.name
        models[name] = {
            "hf_name": report.checkpoint.hf_name,
            "num_layers": report.checkpoint.num_blocks,
            "checkpoint": report.checkpoint,
            "layers": report.blocks,
            "layers_interval": band_meaning(measurement.spec.rule.confidence),
            "metrics": [row for row in rows if row["model"] == name],
            "massive": report.massive,
            "rope": report.rope,
            "prompts": {
                "source": report.prompts.source,
                "sha256": report.prompts.sha256,
                "ids": report.prompts.ids,
                "tokens": [len(tokens) for tokens in report.prompts.tokens],
            },
            "interventions": report.interventions,
        }
        if measurement.axis is not None:
            models[name][measurement.axis] = measurement.positions[place]
        if report.unembed.vocab_size:
            models[name]["w_u"] = asdict(report.unembed)
    return to_json(
        {
            "experiment": "gainlens measure",
            "date": measurement.date,
            "answer": measurement.answer,
            "models": models,
            "difference": measurement.differences(("log_gain", *metrics)),
            "gainlens": {"version": version("gainlens"), "schema": SCHEMA},
            "environment": measurement.environment,
            "spec": measurement.spec.model_dump(),
            **measurement.document,
            "command": measurement.command,
            "seconds": round(measurement.seconds, 3),
        }
    )


def write_measurement(
    folder: Path,
    figure_folder: Path,
    measurement: Measurement,
    metrics: Sequence[str] = (),
) -> list[Path]:
    """Write result.json, tokens.parquet, CSV tables, figures and the page; return the files.

    The folder holds the run before or this one, never a mixture.  Raises ValueError if it
    cannot be written, and for an unknown metric.
    """
    return publish(folder, figure_folder, partial(_write, measurement, metrics))


def _write(
    measurement: Measurement,
    metrics: Sequence[str],
    folder: Path,
    figure_folder: Path,
) -> None:
    with TokenTable(folder / TOKENS) as tokens:
        for one in measurement.measured:
            tokens.add(one.report, one.decomposition)
    measurement.blocks.to_csv(folder / "blocks.csv", index=False)
    for name, frame in measurement.frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    if metrics:
        metric_rows(measurement, metrics).to_csv(folder / "metrics.csv", index=False)
    write_heads(
        folder / HEADS,
        ((one.report, one.decomposition.capture.sink) for one in measurement.measured),
    )
    if all(one.decomposition.capture.heads is not None for one in measurement.measured):
        measurement.heads.to_csv(folder / "heads.csv", index=False)
    vector = save_with_page(measurement.drawings(), figure_folder)
    (folder / PAGE).write_text(_page(measurement, metrics, vector), encoding="utf-8")
    write_json(folder / RESULT, measurement_json(measurement, metrics))


def _page(measurement: Measurement, metrics: Sequence[str], vector: Mapping[str, str]) -> str:
    """Return the page; vector: the figures' SVG texts."""
    models = {
        one.report.checkpoint.name: explored(measurement, one.report, one.decomposition)
        for one in measurement.measured
    }
    tables = _tables(measurement, metrics)
    shown = {name: svg for name, svg in vector.items() if not name.startswith(_MAP)}
    return page_html(measurement, shown, models, measurement.answer, tables, measurement.badges)


def _tables(measurement: Measurement, metrics: Sequence[str]) -> list[Table]:
    """Return the page's tables in the order of reading."""
    reports = measurement.reports
    difference = measurement.differences(("log_gain", *metrics))
    tables = [*measurement.further_tables]
    tables += [difference_table(difference)] if difference else []
    tables += [
        models_table(reports, measurement.along),
        *(blocks_table(report) for report in reports),
    ]
    if metrics:
        rows = metric_rows(measurement, metrics).to_dict("records")
        tables.append(frame_table("metrics", "Metrics", "mean over prompts, with interval", rows))
    if all(one.decomposition.capture.heads is not None for one in measurement.measured):
        top = measurement.top_heads(20).to_dict("records")
        tables.append(frame_table("heads", "Heads of largest part", "nats of log gain", top))
    tables += [massive(report) for report in reports if report.massive]
    if all(report.unembed.vocab_size for report in reports):
        tables.append(unembedding(measurement))
    if all(report.rope.rope_theta is not None for report in reports):
        tables.append(rope(measurement))
    return [*tables, *intervention_tables(measurement)]
