"""Run folder <-> records: result.json, tokens.parquet, and writing either wholly or not at all."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gainlens.axes import COMPONENTS, GRAM_COLUMNS, TOP_COMPONENTS
from gainlens.notebook import notebook_json
from gainlens.records import Capture, Comparison, Decomposition, EncodedPrompts, ModelReport
from gainlens.resultfile import SCHEMA
from gainlens.staging import RESULT as RESULT

TOKENS = "tokens.parquet"
HEADS = "heads.parquet"


def plain(value: Any, *, finite: bool = True) -> Any:
    """A record as JSON values: arrays as lists, NaN and infinity as null.

    finite: False keeps NaN and infinity as they are, which Python's json writes and reads though
    they are not JSON.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), finite=finite)
    if isinstance(value, Mapping):
        return {str(key): plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), finite=finite)
    if isinstance(value, list | tuple):
        return [plain(item, finite=finite) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) or not finite else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    return value


def result_json(comparison: Comparison) -> dict[str, Any]:
    """The contract of DESIGN section 5: a superset of the notebook's JSON, JSON values only."""
    short, long = comparison.report("short"), comparison.report("long")
    document = notebook_json(
        f"{_label(comparison, short)} vs {_label(comparison, long)} - Long-Context Hypothesis Test",
        comparison.date,
        comparison.reports,
        comparison.test,
    )
    for report in comparison.reports:
        _add_model(document["models"][report.checkpoint.name], report)
    document |= _asked_for(comparison)
    identification = comparison.verdict.identification
    status = "CONTROLLED" if identification.controlled else "CONFOUNDED"
    return plain(
        document
        | {
            "verdict": asdict(comparison.verdict)
            | {"identification": {"status": status} | asdict(identification)},
            "gainlens": {"version": _version(), "schema": SCHEMA},
            "environment": comparison.environment,
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


def _add_model(model: dict[str, Any], report: ModelReport) -> None:
    """Everything beyond the notebook's keys.  An unknown number is null with its status beside."""
    checkpoint = report.checkpoint
    model |= {
        "role": report.role,
        "backend": checkpoint.backend,
        "dtype": checkpoint.dtype,
        "checkpoint": checkpoint,
        "layers": [asdict(layer) for layer in report.layers],
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
    }
    model["w_u"] |= {
        key: value for key, value in asdict(report.unembed).items() if key not in model["w_u"]
    }
    model["rope"] |= {
        key: value for key, value in asdict(report.rope).items() if key not in model["rope"]
    }


def _asked_for(comparison: Comparison) -> dict[str, Any]:
    """What --theta and --ablate ask for, all models together; every model has its own as well."""
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
                    "baseline": {"layers": report.layers},
                    "layers": report.interventions.ablated and report.interventions.ablated.layers,
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
    }


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file wholly or not at all."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then put it in place at once.

    A crash leaves the old file or the new one.  ValueError with one sentence where the folder
    cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        os.close(handle)
    except OSError as error:
        raise ValueError(f"cannot write into {path.parent}: {error.strerror}") from error
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


GROUP_ROWS: Final = 1 << 20
"""Rows that tokens.parquet is written and read by at once, but at least those of one block."""


def write_heads(path: Path, sinks: Iterable[tuple[ModelReport, np.ndarray | None]]) -> None:
    """heads.parquet: one row a model, prompt, layer and head, with its attention on position 0.

    sinks: of each model Capture.sink; those whose back end shows no attention patterns have no
    rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[Any]] = {name: [] for name in ("model", "prompt", "layer", "head", "sink")}
    for report, sink in sinks:
        if sink is None:
            continue
        layer, head, prompt = (axis.ravel() for axis in np.indices(sink.shape))
        rows["model"] += [report.checkpoint.name] * sink.size
        rows["prompt"] += [report.prompts.ids[index] for index in prompt]
        rows["layer"] += layer.tolist()
        rows["head"] += head.tolist()
        rows["sink"] += sink.ravel().tolist()
    kinds = (pa.string(), pa.string(), pa.int16(), pa.int16(), pa.float64())
    schema = pa.schema(list(zip(rows, kinds, strict=True)))
    pq.write_table(pa.table(rows, schema=schema), path, compression="zstd")


class TokenTable:
    """tokens.parquet while it is written: one row a model, prompt, token and block.

    A context; models are added one by one, and of each some blocks are written at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def __enter__(self) -> "TokenTable":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, report: ModelReport, capture: Capture, decomposition: Decomposition) -> None:
        """All rows of one model; columns as in `token_columns`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        layers, tokens = decomposition.log_gain.shape
        step = max(1, GROUP_ROWS // max(1, tokens))
        for first in range(0, layers, step):
            blocks = range(first, min(layers, first + step))
            columns = token_columns(
                report.checkpoint.name, report.prompts, capture, decomposition, blocks
            )
            table = pa.table(columns).unify_dictionaries()
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._writer.write_table(table)


def token_columns(
    model: str,
    prompts: EncodedPrompts,
    capture: Capture,
    decomposition: Decomposition,
    blocks: range,
) -> dict[str, Any]:
    """Columns of tokens.parquet for some blocks of a model, block by block, tokens within.

    Gram columns are float32, as captured; log_gain, attention and mlp are nats; `normed` is
    |ln_final(y)| and stands in the rows of the last block, null elsewhere, and so do the shares
    of each write that W_U sees (`visible_attention`, ...).  `text` is null where it is not known.
    """
    import pyarrow as pa

    layers, tokens = decomposition.log_gain.shape
    count, part = len(blocks), slice(blocks.start, blocks.stop)
    classes = np.where(capture.position == 0, 0, np.where(decomposition.is_massive, 1, 2))
    last = np.repeat(np.asarray(blocks) == layers - 1, tokens)

    def words(codes: np.ndarray, names: list[str]) -> Any:
        indices = pa.array(np.tile(codes, count).astype(np.int32))
        return pa.DictionaryArray.from_arrays(indices, pa.array(names))

    def grid(values: np.ndarray, kind: Any) -> np.ndarray:
        return values[part].astype(kind).ravel()

    def at_last(values: np.ndarray | None) -> Any:
        if values is None:
            return pa.nulls(count * tokens, pa.float32())
        return pa.array(np.tile(values, count).astype(np.float32), mask=~last)

    texts = pa.array(capture.token_text or [None] * tokens, pa.string()).dictionary_encode()
    columns: dict[str, Any] = {
        "model": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(count * tokens, np.int32)), pa.array([model])
        ),
        "prompt": words(capture.prompt, list(prompts.ids)),
        "position": np.tile(capture.position, count).astype(np.int32),
        "token_id": np.tile(capture.token_id, count).astype(np.int32),
        "text": pa.chunked_array([texts] * count),
        "layer": np.repeat(np.asarray(blocks), tokens).astype(np.int16),
        "class": words(classes, ["bos", "massive", "ordinary"]),
    }
    for name, column in zip(GRAM_COLUMNS, capture.gram, strict=True):
        columns[name] = grid(column, np.float32)
    for name in ("log_gain", "attention", "mlp"):
        columns[name] = grid(getattr(decomposition, name), np.float32)
    columns["normed"] = at_last(capture.normed)
    for share in ("visible", "null"):
        values = getattr(capture, share)
        for index, component in enumerate(COMPONENTS):
            name = f"{share}_{component}"
            columns[name] = at_last(None if values is None else values[index])
    known = capture.top_value.shape[2]  # fewer where d_model is smaller
    for rank in range(TOP_COMPONENTS):
        value, index = (
            (grid(each[..., rank], kind) if rank < known else pa.nulls(count * tokens, null))
            for each, kind, null in (
                (capture.top_value, np.float32, pa.float32()),
                (capture.top_index, np.int32, pa.int32()),
            )
        )
        columns[f"top_value_{rank}"], columns[f"top_index_{rank}"] = value, index
    return columns
