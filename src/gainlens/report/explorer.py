"""Compute the numbers behind the page's interactive drawings, as JSON values.

They come from the same functions as the verdict; the page only draws.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import isfinite
from typing import Any, Final

import numpy as np

from gainlens.claims.intervals import Band, simultaneous_bands
from gainlens.core.glossary import GLOSSARY
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import REDUCTIONS, SPLITS, TOKEN_CLASSES, Split
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.metric import column_metric, columns_of, metric_values
from gainlens.metrics.reductions import reduce_splits
from gainlens.metrics.registry import METRICS
from gainlens.metrics.splits import Parts, split_log_gain
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition, PromptGains
from gainlens.report.run import Run


def of_blocks(decomposition: Decomposition, blocks: slice) -> Decomposition:
    """Slice a decomposition and its capture to some blocks, as views.

    Fields of the last block alone stay unchanged.
    """
    capture = decomposition.capture
    first = _there(capture, "top_value", "top_index", "sink", "heads", "skip_loss")
    grids = _there(
        decomposition, "log_gain", "attention", "mlp", "remainder", "norm_in", "norm_out"
    )
    some = {name: value[blocks] for name, value in first.items()}
    own = {name: value[blocks] for name, value in grids.items()}
    extra = {name: column[blocks] for name, column in capture.extra.items()}
    sliced = replace(capture, gram=capture.gram[:, blocks], extra=extra, **some)
    return replace(decomposition, capture=sliced, **own)


def of_tokens(decomposition: Decomposition, tokens: slice) -> Decomposition:
    """Slice a decomposition and its capture to some tokens, as views.

    Attention on position 0 stays unchanged: it has one value per prompt.
    """
    capture = decomposition.capture
    by_token = _there(
        capture, "prompt", "position", "token_id", "gram", "normed", "visible", "null", "heads",
        "token_loss", "skip_loss",
    )  # fmt: skip
    of_decomposition = _there(
        decomposition, "log_gain", "attention", "mlp", "remainder", "final_norm", "norm_in",
        "norm_out", "is_bos", "is_massive",
    )  # fmt: skip
    sliced = replace(
        capture,
        **{name: value[..., tokens] for name, value in by_token.items()},
        top_value=capture.top_value[:, tokens],
        top_index=capture.top_index[:, tokens],
        token_text=None if capture.token_text is None else capture.token_text[tokens],
        extra={name: column[:, tokens] for name, column in capture.extra.items()},
    )
    own = {name: value[..., tokens] for name, value in of_decomposition.items()}
    return replace(decomposition, capture=sliced, **own)


def _there(record: Any, *names: str) -> dict[str, Any]:
    """Return the named fields that are not None."""
    return {name: getattr(record, name) for name in names if getattr(record, name) is not None}


MAP_PROMPTS: Final = 8
"""Prompts that the map shows, evenly spread over the set."""
MAP_CELLS: Final = 90_000
"""Blocks x tokens over all maps.  A cell has about 17 numbers of 2 bytes, so base64 has 4.1 MB."""
LONGEST_MAP: Final = 384
"""Tokens of a prompt that the map shows at most."""
_CELLS_AT_ONCE: Final = 1 << 20
"""Blocks x tokens whose splits are in memory together: 50 MB."""
_UNKNOWN: Final = -32768
_FULL: Final = 32767

Explored = dict[str, Any]
"""Drawings of one model on the page: its blocks under each class, reduction and split, and maps of
every metric over blocks and tokens of some prompts."""


def page_data(
    run: Run, colours: Mapping[str, tuple[str, str]], models: Mapping[str, Explored]
) -> dict[str, Any]:
    """Return what the page draws.

    Args:
        run: a comparison or a measurement.
        colours: each model's colour on white and on dark paper, by model key.
        models: what `explored` returned, by model key.
    """
    rule = run.spec.rule
    return {
        "rule": {"class": rule.token_class, "reduction": rule.reduction, "split": rule.split},
        "confidence": rule.confidence,
        "choices": {
            "class": _labels(("ordinary", *(c for c in TOKEN_CLASSES if c != "ordinary"))),
            "reduction": _labels(REDUCTIONS),
            "split": _labels(SPLITS),
            "part": _metrics(models),
        },
        "models": [
            {
                "key": report.checkpoint.name,
                "role": report.role,
                "colours": colours[report.checkpoint.name],
                "layers": report.checkpoint.num_blocks,
            }
            | models[report.checkpoint.name]
            for report in run.reports
        ],
    }


def _labels(names: Sequence[str]) -> list[list[str]]:
    return [[name, GLOSSARY[name].label] for name in names]


def _metrics(models: Mapping[str, Explored]) -> list[dict[str, Any]]:
    """Describe the metrics that every map has: the registry's in its order, then extra columns."""
    maps = [values["values"] for model in models.values() for values in model["maps"]]
    extras = {name for values in maps for name in values if "/" not in name} - set(METRICS)
    known = METRICS | {name: column_metric(name) for name in sorted(extras)}
    return [
        {
            "name": name,
            "label": GLOSSARY[name].label if name in GLOSSARY else name.replace("_", " "),
            "definition": metric.definition,
            "unit": metric.unit,
            "neutral": metric.neutral,
        }
        for name, metric in known.items()
        if all(name in values or f"{name}/{SPLITS[0]}" in values for values in maps)
    ]


def explored(run: Run, report: ModelReport, decomposition: Decomposition) -> Explored:
    """Return what the page draws of one model; all models' maps together stay within MAP_CELLS."""
    longest = _shown_tokens(run)
    return {
        "curves": _curves(decomposition, run.spec.rule),
        "maps": _maps(report, decomposition, longest),
    }


def _curves(decomposition: Decomposition, rule: Rule) -> dict[str, Any]:
    """Return the curves of every class and reduction that has tokens.

    Blocks are taken some at a time, to bound the memory.
    """
    blocks, tokens = decomposition.log_gain.shape
    step = max(1, _CELLS_AT_ONCE // max(1, tokens))
    pieces: dict[str, list[Mapping[Split, PromptGains]]] = {}
    for start in range(0, blocks, step):
        own = of_blocks(decomposition, slice(start, start + step))
        parts: dict[Split, Parts] = {split: split_log_gain(own.capture, split) for split in SPLITS}
        for token_class, reduction in product(TOKEN_CLASSES, REDUCTIONS):
            if own.tokens_of(token_class).any():
                gains = reduce_splits(own, parts, token_class, reduction)
                pieces.setdefault(f"{token_class}/{reduction}", []).append(gains)
    log_gains = [_grid(each, SPLITS[0], "log_gain") for each in pieces.values()]
    bands = simultaneous_bands(
        log_gains, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
    )
    return {
        name: _curve(each, log_gain, band)
        for (name, each), log_gain, band in zip(pieces.items(), log_gains, bands, strict=True)
    }


def _grid(pieces: Sequence[Mapping[Split, PromptGains]], split: Split, part: str) -> np.ndarray:
    """Return a number per block and prompt; the pieces hold some blocks each, in order."""
    return np.concatenate([getattr(gains[split], part) for gains in pieces])


def _curve(
    pieces: Sequence[Mapping[Split, PromptGains]], log_gain: np.ndarray, band: Band
) -> dict[str, Any]:
    """Return the log gain with its band, and its parts under each split; nats per block."""
    low, high = band
    known = ~np.isnan(log_gain).any(axis=0)

    def mean(values: np.ndarray) -> list[float | None]:
        return _rounded(values[:, known].mean(axis=1))

    return {
        "n": int(known.sum()),
        "gain": mean(log_gain),
        "low": _rounded(low),
        "high": _rounded(high),
        "parts": {
            split: [mean(_grid(pieces, split, part)) for part in ("attention", "mlp")]
            for split in SPLITS
        },
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    """Round to 1e-6 nats; an unknown value becomes None."""
    return [round(value, 6) if isfinite(value) else None for value in values.tolist()]


def shown_prompts(count: int) -> list[int]:
    """Return the indices of the prompts that the map shows: all, or MAP_PROMPTS evenly spread."""
    return np.unique(
        np.linspace(0, count - 1, min(count, MAP_PROMPTS)).round().astype(int)
    ).tolist()


def _shown_tokens(run: Run) -> int:
    """Return how many tokens of a prompt a map shows, so that all maps stay below MAP_CELLS."""
    lengths = [
        (report.checkpoint.num_blocks, len(report.prompts.tokens[prompt]))
        for report in run.reports
        for prompt in shown_prompts(len(report.prompts.ids))
    ]
    longest = LONGEST_MAP
    while longest > 1 and sum(depth * min(longest, n) for depth, n in lengths) > MAP_CELLS:
        longest = longest * 7 // 8
    return longest


def _shown(capture: Capture, longest: int) -> list[slice]:
    """Return the tokens of each prompt that has a map."""
    prompts = prompt_slices(capture.prompt)
    shown = [prompts[index] for index in shown_prompts(len(prompts))]
    return [slice(whole.start, min(whole.stop, whole.start + longest)) for whole in shown]


def _maps(report: ModelReport, decomposition: Decomposition, longest: int) -> list[dict[str, Any]]:
    """Return every metric by block and token, for the prompts that are shown."""
    maps: list[dict[str, Any]] = []
    indices = shown_prompts(len(report.prompts.ids))
    for index, tokens in zip(indices, _shown(decomposition.capture, longest), strict=True):
        sliced = of_tokens(decomposition, tokens)
        maps.append(
            {
                "prompt": report.prompts.ids[index],
                "tokens": len(report.prompts.tokens[index]),
                "texts": _texts(sliced.capture),
                "classes": _classes(sliced),
                "values": _values(sliced) | _parts(sliced.capture),
            }
        )
    return maps


def _values(decomposition: Decomposition) -> dict[str, list[Any]]:
    """Return every metric of a block and token that these columns give, but for the parts."""
    columns = columns_of(decomposition).keys()
    extra = {name: column_metric(name) for name in decomposition.capture.extra}
    return {
        name: _packed(metric_values(metric, decomposition))
        for name, metric in (extra | METRICS).items()
        if metric.over == "block token"
        and name not in ("attention", "mlp")
        and columns >= set(metric.columns)
    }


def _parts(capture: Capture) -> dict[str, list[Any]]:
    """Return attention's and the MLP's part under each split."""
    parts: dict[str, list[Any]] = {}
    for split in SPLITS:
        attention, mlp = split_log_gain(capture, split)
        parts |= {f"attention/{split}": _packed(attention), f"mlp/{split}": _packed(mlp)}
    return parts


def _texts(capture: Capture) -> list[str]:
    if capture.token_text is not None:
        return list(capture.token_text)
    return [f"[{token}]" for token in capture.token_id]


def _classes(decomposition: Decomposition) -> str:
    """Return a letter per token: b(os), m(assive), o(rdinary)."""
    massive = np.where(decomposition.is_massive, "m", "o")
    return "".join(np.where(decomposition.is_bos, "b", massive).tolist())


def _packed(values: np.ndarray) -> list[Any]:
    """Return [unit, base64 of little-endian int16], block by block; -32768 is unknown.

    A unit is the largest size over 32767, so the error is below 2e-5 of the largest value.
    """
    finite = np.isfinite(values)
    unit = float(f"{np.abs(values[finite]).max(initial=0.0) / _FULL:.6g}") or 1.0
    whole = np.where(finite, np.round(np.where(finite, values, 0.0) / unit), _UNKNOWN)
    return [unit, base64.b64encode(whole.astype("<i2").tobytes()).decode("ascii")]
