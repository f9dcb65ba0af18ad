"""Read a run folder without torch, to draw it, decompose it or judge it again.

run = gainlens.read_run("runs/twins")
gainlens.judge(run.reports, run.spec.rule)
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float64
from pydantic import ValidationError

from gainlens.core.messages import shown
from gainlens.core.spec import ComparisonSpec, Rule
from gainlens.core.vocabulary import Behaviour, Role
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.config import parallel_blocks
from gainlens.notebook.result_file import SCHEMA
from gainlens.records.capture import Capture
from gainlens.records.comparison import Comparison, HypothesisTest, ModelReport, NotebookResidual
from gainlens.records.gains import BlockGain, LastBlockParts, MassiveToken
from gainlens.records.inputs import Checkpoint, EncodedPrompts
from gainlens.records.interval import Interval
from gainlens.records.interventions import Interventions
from gainlens.records.verdict import GainCell, Verdict
from gainlens.records.weights import RopeReport, UnembedReport
from gainlens.results.lazy import Held, decompose_each
from gainlens.results.parquet import HEADS, TOKENS
from gainlens.results.parquet_reading import BrokenTable, Shape, TableFile, read_capture
from gainlens.results.run_folder import RESULT, current
from gainlens.results.values import from_json


def read_run(folder: str | Path) -> Comparison:
    """Read a finished run from its result.json, tokens.parquet and heads.parquet.

    The records equal those that were written.  Gains are decomposed again from the captured
    float32 columns, which gives the same float64 numbers.  Only `seconds` is rounded, to
    milliseconds, and an infinite number comes back as NaN.

    Args:
        folder: what compare wrote.

    Raises ValueError if the folder holds no run or if a file is broken.

    Examples:
        >>> run = gainlens.read_run("runs/twins")
        >>> run.report("short").role
        'short'
    """
    folder = Path(folder)
    while True:
        before = _identity(folder)
        try:
            run = _read(folder)
        except ValueError:
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                return run


def check_run(folder: Path) -> None:
    """Raise ValueError if a folder holds no result.json of a comparison."""
    _document(folder, current(folder, RESULT))


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what changes at the moment in which a folder's run becomes another (`publish`)."""
    try:
        stat = current(folder, RESULT).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _read(folder: Path) -> Comparison:
    path = current(folder, RESULT)
    document = _document(folder, path)
    try:
        return _comparison(folder, document)
    except BrokenTable as problem:
        raise ValueError(f"'{folder}' is no whole run: {problem}") from None
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        place = ".".join(shown(str(part)) for part in ("spec", *error["loc"]))
        raise ValueError(f"'{path}' is broken: {place}: {shown(error['msg'], 200)}") from None
    except ValueError as problem:
        raise ValueError(f"'{path}' is broken: {problem}") from None


def _document(folder: Path, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"'{folder}' is no run folder: it has no {RESULT}; give the folder that compare wrote"
        )
    try:
        document: Any = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as problem:
        raise ValueError(f"'{path}' cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"'{path}' is not JSON: {problem}") from None
    try:
        schema = _at(document, "gainlens.schema", "the document")
    except ValueError:
        raise ValueError(
            f"'{path}' is no comparison of gainlens (a re-scored result and the notebook's own "
            "JSON hold no run): give the folder that compare wrote"
        ) from None
    if schema != SCHEMA:
        raise ValueError(
            f"'{path}' has schema {shown(str(schema))}, this gainlens reads schema {SCHEMA}: read "
            "it with the gainlens that wrote it, or a newer one"
        )
    return document


def _comparison(folder: Path, document: dict[str, Any]) -> Comparison:
    spec = ComparisonSpec.model_validate(document.get("spec"))
    tokens, heads = (TableFile(current(folder, name)) for name in (TOKENS, HEADS))
    rule = spec.rule
    models = from_json(Mapping[str, Any], document.get("models"), "models")
    captures = Held(
        {
            key: partial(read_capture, tokens, heads, key, _shape(model, _place(key)))
            for key, model in models.items()
        }
    )
    reports: list[ModelReport] = []
    for key, model in models.items():
        reports.append(_report(model, captures[key], _place(key)))
        _check_same_run(reports[-1], captures[key], rule)
    return Comparison(
        spec=spec,
        date=from_json(str, document.get("date"), "date"),
        seconds=from_json(float, document.get("seconds"), "seconds"),
        reports=tuple(reports),
        captures=captures,
        decompositions=decompose_each(captures, split=rule.split, massive_ratio=rule.massive_ratio),
        test=from_json(HypothesisTest, document.get("hypothesis_test"), "hypothesis_test"),
        verdict=from_json(Verdict, document.get("verdict"), "verdict"),
        environment=from_json(Mapping[str, str], document.get("environment"), "environment"),
        command=from_json(str | None, document.get("command"), "command"),
    )


def _place(key: str) -> str:
    return f"models[{json.dumps(key)}]"


def _shape(model: Any, place: str) -> Shape:
    prompts = _at(model, "prompts", place)
    return Shape(
        blocks=from_json(int, _at(model, "num_layers", place), f"{place}.num_layers"),
        lengths=from_json(tuple[int, ...], _at(prompts, "tokens", place), place),
        prefix=from_json(int, prompts.get("prefix", 1), f"{place}.prompts.prefix"),
        parallel=parallel_blocks(
            from_json(Mapping[str, Any], _at(model, "checkpoint.config", place), place)
        ),
    )


def _check_same_run(report: ModelReport, capture: Capture, rule: Rule) -> None:
    """Raise BrokenTable if the tokens do not give the numbers per prompt that the result states."""
    decomposition = decompose(capture, split=rule.split, massive_ratio=rule.massive_ratio)
    gains = reduce_gains(decomposition, rule.token_class, rule.reduction).log_gain[-1]
    stated = report.last_block
    # rtol 1e-9: the same float64 algebra, perhaps summed in another order by another numpy
    if gains.shape != stated.shape or not np.allclose(
        gains, stated, rtol=1e-9, atol=1e-12, equal_nan=True
    ):
        raise BrokenTable(
            f"{TOKENS} gives {report.checkpoint.name} other gains than {RESULT} states: they are "
            "not of one run; copy the whole folder, or compare again"
        )


def _at(value: Any, path: str, place: str) -> Any:
    """Return the value at a dotted path; raise ValueError if it is missing."""
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{place}.{path} is missing")
        value = cast("dict[str, Any]", value)[key]
    return value


def _report(model: Any, capture: Capture, place: str) -> ModelReport:
    def part(kind: Any, path: str) -> Any:
        return from_json(kind, _at(model, path, place), f"{place}.{path}")

    def optional(kind: Any, path: str, default: Any) -> Any:
        """Read a key that older runs lack."""
        try:
            value = _at(model, path, place)
        except ValueError:
            return default
        return from_json(kind, value, f"{place}.{path}")

    return ModelReport(
        role=part(Role, "role"),
        checkpoint=part(Checkpoint, "checkpoint"),
        residual=part(NotebookResidual, "residual"),
        unembed=part(UnembedReport, "w_u"),
        rope=part(RopeReport, "rope"),
        blocks=part(tuple[BlockGain, ...], "layers"),
        cells=part(tuple[GainCell, ...], "cells"),
        last_block=part(Float64[np.ndarray, " prompt"], "last_block"),
        behaviour=part(Behaviour | None, "behaviour"),
        equivalent=part(bool | None, "equivalent"),
        massive=part(tuple[MassiveToken, ...], "massive"),
        prompts=EncodedPrompts(
            source=part(str, "prompts.source"),
            sha256=part(str, "prompts.sha256"),
            ids=part(tuple[str, ...], "prompts.ids"),
            tokens=tuple(capture.token_id[tokens] for tokens in prompt_slices(capture.prompt)),
            bos=part(bool, "prompts.bos"),
            cut=part(int, "prompts.cut"),
            left_out=part(tuple[str, ...], "prompts.left_out"),
            note=part(str, "prompts.note"),
            groups=optional(tuple[str, ...], "prompts.groups", ()),
            prefix=capture.prefix,
        ),
        scale_control=part(float, "controls.scale"),
        halves_control=part(Interval, "controls.halves"),
        visible_share=part(tuple[float, float] | None, "visible_share"),
        interventions=part(Interventions, "interventions"),
        parts=optional(LastBlockParts | None, "parts", None),
    )
