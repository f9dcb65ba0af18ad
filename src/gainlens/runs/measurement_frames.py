"""Put a measurement's tokens and heads into DataFrames."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from gainlens.claims.intervals import mean_intervals
from gainlens.core.vocabulary import CAPTURE_COLUMNS
from gainlens.metrics.massive import prompt_slices
from gainlens.metrics.splits import head_split
from gainlens.records.gains import Decomposition
from gainlens.results.frames import to_frame
from gainlens.runs.measured import Measured

if TYPE_CHECKING:
    import pandas as pd

    from gainlens.runs.measurement import Measurement


def tokens_frame(measurement: "Measurement") -> "pd.DataFrame":
    """Return `Measurement.tokens`: a row per model, token and block."""
    import pandas as pd

    frames: list[pd.DataFrame] = []
    for place, one in enumerate(measurement.measured):
        frame = to_frame(one.decomposition).rename(columns={"layer": "block"})
        ids, texts = one.report.prompts.ids, one.decomposition.capture.token_text or ()
        frame["prompt"] = [ids[index] for index in frame["prompt"]]
        frame.insert(2, "text", list(texts) * len(one.report.blocks))
        captured = one.decomposition.capture
        for name, values in captured.columns.items():
            if name not in CAPTURE_COLUMNS:
                frame[name] = np.broadcast_to(values, one.decomposition.log_gain.shape).ravel()
        for name, value in reversed(measurement.position_of(place).items()):
            frame.insert(0, name, value)
        frame.insert(0, "model", one.report.checkpoint.name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def heads_frame(measurement: "Measurement") -> "pd.DataFrame":
    """Return `Measurement.heads`: a row per model, block and head."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for place, one in enumerate(measurement.measured):
        parts = head_parts(one.decomposition)
        largest = _largest_tokens(one)
        blocks, count, prompts = parts.shape
        rule = measurement.spec.rule
        intervals = mean_intervals(
            parts.reshape(blocks * count, prompts),
            confidence=rule.confidence,
            resamples=rule.resamples,
            seed=rule.seed,
        )
        for index, interval in enumerate(intervals):
            block, head = divmod(index, count)
            rows.append(
                {
                    "model": one.report.checkpoint.name,
                    **measurement.position_of(place),
                    "name": f"L{block}H{head}",
                    "block": block,
                    "head": head,
                    "log_gain": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    **largest[index],
                }
            )
    return pd.DataFrame(rows)


def _largest_tokens(one: Measured) -> list[dict[str, Any]]:
    """Return per head, in the order of [block, head], the token of its largest part in size."""
    of, captured = one.decomposition, one.decomposition.capture
    ordinary = np.flatnonzero(of.is_ordinary)
    parts = head_split(captured)[..., ordinary]
    parts = parts.reshape(-1, len(ordinary))
    texts = captured.token_text
    rows: list[dict[str, Any]] = []
    for own in parts if len(ordinary) else ():
        best = int(np.nanargmax(np.abs(own)))
        token = ordinary[best]
        rows.append(
            {
                "prompt": one.report.prompts.ids[of.prompt[token]],
                "position": int(of.position[token]),
                "text": None if texts is None else texts[token],
                "part_there": float(own[best]),
            }
        )
    return rows or [{} for _ in parts]


def head_parts(decomposition: Decomposition) -> Float64[np.ndarray, "block head prompt"]:
    """Return every head's part of the log gain, mean over a prompt's ordinary tokens.

    Raises ValueError if the heads were not measured.
    """
    if decomposition.capture.heads is None:
        raise ValueError(
            "the heads were not measured: call measure(..., heads=True), or give --heads"
        )
    parts, ordinary = head_split(decomposition.capture), decomposition.is_ordinary
    means = np.full((*parts.shape[:2], decomposition.capture.num_prompts), np.nan)
    for index, tokens in enumerate(prompt_slices(decomposition.prompt)):
        if ordinary[tokens].any():
            means[..., index] = parts[..., tokens][..., ordinary[tokens]].mean(axis=-1)
    return means
