"""tokens.parquet and heads.parquet -> Capture: the inverse of what store writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gainlens.axes import COMPONENTS, GRAM_COLUMNS, TOP_COMPONENTS
from gainlens.records import Capture
from gainlens.store import HEADS, RESULT, TOKENS

Table = Any
"""a pyarrow.Table"""

_TWO_RUNS: Final = f"it and {RESULT} are not of one run; copy the whole folder, or compare again"


class BrokenTable(ValueError):
    """A table that is missing, no Parquet, or of another run than result.json."""


@dataclass(frozen=True)
class Shape:
    """What result.json says of one model's rows."""

    layers: int
    lengths: tuple[int, ...]
    """tokens of each prompt"""


def read_table(path: Path) -> Table:
    """A Parquet file.  Raises BrokenTable where it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BrokenTable(f"it has no {path.name}; copy the whole folder, or compare again")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as problem:
        first = str(problem).partition("\n")[0]
        raise BrokenTable(f"{path.name} cannot be read: {first}") from None


def read_capture(tokens: Table, heads: Table, model: str, shape: Shape) -> Capture:
    """One model's capture.  Raises BrokenTable where the rows are not those of the result."""
    length = sum(shape.lengths)
    rows = _Rows(TOKENS, tokens, model, shape.layers * length)
    prompt = np.repeat(np.arange(len(shape.lengths)), shape.lengths)
    position = np.concatenate([np.arange(count) for count in shape.lengths] or [prompt])
    rows.check("layer", np.repeat(np.arange(shape.layers), length))
    rows.check("position", np.tile(position, shape.layers))

    def grid(name: str, kind: Any = np.float64) -> np.ndarray:
        return rows.values(name).astype(kind).reshape(shape.layers, length)

    def shares(kind: str) -> np.ndarray | None:
        names = [f"{kind}_{component}" for component in COMPONENTS]
        return None if rows.unknown(names[0]) else np.stack([grid(name)[-1] for name in names])

    ranks = [rank for rank in range(TOP_COMPONENTS) if not rows.unknown(f"top_value_{rank}")]
    return Capture(
        prompt=prompt,
        position=position,
        token_id=grid("token_id", np.int64)[0],
        gram=np.stack([grid(name) for name in GRAM_COLUMNS]),
        top_value=np.stack([grid(f"top_value_{rank}") for rank in ranks], axis=-1),
        top_index=np.stack([grid(f"top_index_{rank}", np.int64) for rank in ranks], axis=-1),
        normed=grid("normed")[-1],
        visible=shares("visible"),
        null=shares("null"),
        sink=_sink(heads, model, shape),
        token_text=None if rows.unknown("text") else rows.texts("text", length),
    )


def _sink(heads: Table, model: str, shape: Shape) -> np.ndarray | None:
    """[layer, head, prompt]; None where the model has no rows."""
    rows = _Rows(HEADS, heads, model, None)
    if not rows.count:
        return None
    each = shape.layers * len(shape.lengths)
    if rows.count % each:
        raise BrokenTable(
            f"{HEADS} has {rows.count} rows of {model}, needed is a multiple of {each}: {_TWO_RUNS}"
        )
    by_head = (shape.layers, rows.count // each, len(shape.lengths))
    rows.check("layer", np.indices(by_head)[0].ravel())
    rows.check("head", np.indices(by_head)[1].ravel())
    return rows.values("sink").astype(np.float64).reshape(by_head)


class _Rows:
    """The rows of one model, column by column."""

    def __init__(self, file: str, table: Table, model: str, count: int | None) -> None:
        import pyarrow.compute as pc

        self._file, self._model = file, model
        if "model" not in table.schema.names:
            raise BrokenTable(f"{file} has no column 'model'")
        self._table = table.filter(pc.field("model") == model)
        self.count = self._table.num_rows
        if count is not None and self.count != count:
            raise BrokenTable(
                f"{file} has {self.count} rows of {model}, needed are {count}: {_TWO_RUNS}"
            )

    def _column(self, name: str) -> Any:
        if name not in self._table.schema.names:
            raise BrokenTable(f"{self._file} has no column '{name}'")
        return self._table[name]

    def values(self, name: str) -> np.ndarray:
        """Numbers; NaN where null."""
        return self._column(name).to_numpy()

    def texts(self, name: str, count: int) -> tuple[str, ...]:
        """The first `count` strings."""
        return tuple(self._column(name).slice(0, count).to_pylist())

    def unknown(self, name: str) -> bool:
        """Whether the column is null throughout, or the file was written without it."""
        known = name in self._table.schema.names
        return not known or self._table[name].null_count == self.count

    def check(self, name: str, expected: np.ndarray) -> None:
        """Raises BrokenTable where the rows are others, or stand in another order."""
        if not np.array_equal(self.values(name), expected):
            raise BrokenTable(
                f"column '{name}' of {self._file} is not as {RESULT} has it for {self._model}: "
                + _TWO_RUNS
            )
