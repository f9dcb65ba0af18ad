"""TODO: results.parquet."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from gainlens.core.vocabulary import COMPONENTS, GRAM_COLUMNS, TOP_COMPONENTS
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts

TOKENS = "tokens.parquet"
HEADS = "heads.parquet"


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

    def add(self, report: ModelReport, decomposition: Decomposition) -> None:
        """All rows of one model; columns as in `token_columns`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        num_blocks, tokens = decomposition.log_gain.shape
        step = max(1, GROUP_ROWS // max(1, tokens))
        for first in range(0, num_blocks, step):
            blocks = range(first, min(num_blocks, first + step))
            columns = token_columns(report.checkpoint.name, report.prompts, decomposition, blocks)
            table = pa.table(columns).unify_dictionaries()
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._writer.write_table(table)


def token_columns(
    model: str,
    prompts: EncodedPrompts,
    decomposition: Decomposition,
    blocks: range,
) -> dict[str, Any]:
    """Columns of tokens.parquet for some blocks of a model, block by block, tokens within.

    Gram columns are float32, as captured; log_gain, attention and mlp are nats; `normed` is
    |ln_final(y)| and stands in the rows of the last block, null elsewhere, and so do the shares
    of each write that W_U sees (`visible_attention`, ...).  `text` is null where it is not known.
    """
    import pyarrow as pa

    capture = decomposition.capture
    num_blocks, tokens = decomposition.log_gain.shape
    count, part = len(blocks), slice(blocks.start, blocks.stop)
    classes = np.where(capture.position == 0, 0, np.where(decomposition.is_massive, 1, 2))
    last = np.repeat(np.asarray(blocks) == num_blocks - 1, tokens)

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
