"""Write tokens.parquet and heads.parquet."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from gainlens.core.vocabulary import CAPTURE_COLUMNS
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts

TOKENS = "tokens.parquet"
HEADS = "heads.parquet"


GROUP_ROWS: Final = 1 << 20
"""Rows that are written at once, but at least those of one block."""


def write_heads(path: Path, sinks: Iterable[tuple[ModelReport, np.ndarray | None]]) -> None:
    """Write heads.parquet: one row per model, prompt, block and head, with its sink.

    sinks: each model's Capture.sink; a model whose back end has no attention patterns gets no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[Any]] = {name: [] for name in ("model", "prompt", "layer", "head", "sink")}
    for report, sink in sinks:
        if sink is None:
            continue
        block, head, prompt = (axis.ravel() for axis in np.indices(sink.shape))
        rows["model"] += [report.checkpoint.name] * sink.size
        rows["prompt"] += [report.prompts.ids[index] for index in prompt]
        rows["layer"] += block.tolist()
        rows["head"] += head.tolist()
        rows["sink"] += sink.ravel().tolist()
    kinds = (pa.string(), pa.string(), pa.int16(), pa.int16(), pa.float64())
    schema = pa.schema(list(zip(rows, kinds, strict=True)))
    pq.write_table(pa.table(rows, schema=schema), path, compression="zstd")


class TokenTable:
    """Write tokens.parquet, one row per model, prompt, token and block.

    A context manager.  Add the models one by one; some blocks are written at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def __enter__(self) -> "TokenTable":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, report: ModelReport, decomposition: Decomposition) -> None:
        """Write all rows of one model, with the columns of `token_columns`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        num_blocks, tokens = decomposition.log_gain.shape
        step = max(1, GROUP_ROWS // max(1, tokens))
        for first in range(0, num_blocks, step):
            blocks = range(first, min(num_blocks, first + step))
            columns = token_columns(report.checkpoint.name, report.prompts, decomposition, blocks)
            table = pa.table(columns).unify_dictionaries()
            if self._writer is None:
                # a dictionary of measured numbers makes the file larger and takes twice the time
                alike: Any = [
                    one.name for one in table.schema if not pa.types.is_floating(one.type)
                ]
                self._writer = pq.ParquetWriter(
                    self._path, table.schema, compression="zstd", use_dictionary=alike
                )
            self._writer.write_table(table)


def token_columns(
    model: str,
    prompts: EncodedPrompts,
    decomposition: Decomposition,
    blocks: range,
) -> dict[str, Any]:
    """Return the columns of tokens.parquet for some blocks of a model, block after block.

    Gram columns are float32, as captured.  log_gain, attention and mlp are in nats.  What belongs
    to the last block (`normed`, `visible_attention`, ...) is null in the other rows.  `text` is
    null if it is unknown.  What only some captures have (columns of `capture(extra=...)`,
    token_loss, skip_loss) comes last, as float64.
    """
    import pyarrow as pa

    capture = decomposition.capture
    num_blocks, tokens = decomposition.log_gain.shape
    count, part = len(blocks), slice(blocks.start, blocks.stop)
    classes = np.where(decomposition.is_bos, 0, np.where(decomposition.is_massive, 1, 2))
    last = np.repeat(np.asarray(blocks) == num_blocks - 1, tokens)

    def words(codes: np.ndarray, names: list[str]) -> Any:
        indices = pa.array(np.tile(codes, count).astype(np.int32))
        return pa.DictionaryArray.from_arrays(indices, pa.array(names))

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
    measured = capture.columns
    for name in CAPTURE_COLUMNS:
        values = measured.get(name)
        if values is None:  # not asked for, or d_model has fewer components
            columns[name] = pa.nulls(count * tokens, _arrow_type(name))
        elif values.ndim == 1:
            columns[name] = pa.array(np.tile(values, count).astype(np.float32), mask=~last)
        else:
            columns[name] = values[part].ravel()
    for name in ("log_gain", "attention", "mlp"):
        columns[name] = getattr(decomposition, name)[part].astype(np.float32).ravel()
    for name, values in measured.items():
        if name in CAPTURE_COLUMNS:
            continue
        if name in columns:
            raise ValueError(f"{TOKENS} has a column {name!r} already: give yours another name")
        of_blocks = np.broadcast_to(values, (num_blocks, tokens))[part]
        hidden = ~last if values.ndim == 1 else np.zeros(len(last), bool)
        columns[name] = pa.array(of_blocks.ravel().astype(np.float64), mask=hidden)
    return columns


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    return pa.int32() if name.startswith("top_index") else pa.float32()
