"""Read a Capture back from tokens.parquet and heads.parquet."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gainlens.core.vocabulary import CAPTURE_COLUMNS, COMPONENTS, GRAM_COLUMNS, TOP_COMPONENTS
from gainlens.records.capture import Capture
from gainlens.results.parquet import HEADS
from gainlens.results.run_folder import RESULT

_OWN: Final = frozenset(
    ("model", "prompt", "position", "token_id", "text", "layer", "class", *CAPTURE_COLUMNS)
) | {"log_gain", "attention", "mlp", "token_loss", "skip_loss"}
"""Columns of tokens.parquet that are not a user's."""
_TWO_RUNS: Final = f"it and {RESULT} are not of one run; copy the whole folder, or compare again"


class BrokenTable(ValueError):
    """Raised if a table is missing, is not Parquet, or belongs to another run than result.json."""


@dataclass(frozen=True)
class Shape:
    """Say how many rows of a model result.json announces."""

    blocks: int
    lengths: tuple[int, ...]
    """tokens of each prompt"""
    prefix: int = 1
    """tokens that begin every prompt alike"""
    parallel: bool = False
    """True if attention and the MLP of a block both read its input"""


class TableFile:
    """Read columns of some row groups of an open Parquet file.

    It stays the file that was opened, also if another file takes its place or it is removed.
    """

    def __init__(self, path: Path) -> None:
        """Open a file; raise BrokenTable if it cannot be read as Parquet."""
        import pyarrow.parquet as pq

        self.name = path.name
        if not path.is_file():
            raise BrokenTable(f"it has no {path.name}; copy the whole folder, or compare again")
        with self._readable():
            # pre_buffer hands the reading to Arrow's pool and waits: with a pool of one thread
            # (OMP_NUM_THREADS=1) that is for ever
            self._file = pq.ParquetFile(path, pre_buffer=False)
        self.columns: list[str] = self._file.schema_arrow.names
        self.num_groups: int = self._file.num_row_groups

    def read(self, column: str, groups: Sequence[int]) -> Any:
        """Return one column of some row groups as a pyarrow.ChunkedArray."""
        with self._readable():
            return self._file.read_row_groups(groups, columns=[column], use_threads=False)[column]

    def rows_where(self, column: str, value: str, group: int) -> np.ndarray:
        """Return which rows of a row group hold a value."""
        import pyarrow.compute as pc

        found = self.read(column, [group])
        with self._readable():
            equal = pc.call_function("equal", [found, value])
        return equal.to_numpy() == True  # noqa: E712  null is not equal

    @contextmanager
    def _readable(self) -> Generator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as problem:
            first = str(problem).partition("\n")[0]
            raise BrokenTable(f"{self.name} cannot be read: {first}") from None


def read_capture(tokens: TableFile, heads: TableFile, model: str, shape: Shape) -> Capture:
    """Read one model's capture, column by column.

    Raises BrokenTable if the rows do not match result.json.
    """
    length = sum(shape.lengths)
    rows = _Rows(tokens, model, shape.blocks * length)
    prompt = np.repeat(np.arange(len(shape.lengths)), shape.lengths)
    position = np.concatenate([np.arange(count) for count in shape.lengths] or [prompt])
    rows.check("layer", np.repeat(np.arange(shape.blocks), length))
    rows.check("position", np.tile(position, shape.blocks))

    def last(name: str) -> np.ndarray:
        return rows.values(name)[-length:].astype(np.float64)

    def stacked(names: Sequence[str], axis: int, kind: Any = np.float32) -> np.ndarray:
        by_name = (len(names), shape.blocks, length)
        whole = np.empty(by_name if axis == 0 else (*by_name[1:], by_name[0]), kind)
        for place, name in enumerate(names):
            np.moveaxis(whole, axis, 0)[place] = rows.values(name).reshape(by_name[1:])
        return whole

    def shares(kind: str) -> np.ndarray | None:
        names = [f"{kind}_{component}" for component in COMPONENTS]
        return None if rows.unknown(names[0]) else np.stack([last(name) for name in names])

    ranks = [rank for rank in range(TOP_COMPONENTS) if not rows.unknown(f"top_value_{rank}")]
    capture = Capture(
        prompt=prompt,
        position=position,
        token_id=rows.values("token_id")[:length].astype(np.int64),
        gram=stacked(GRAM_COLUMNS, 0),
        top_value=stacked([f"top_value_{rank}" for rank in ranks], -1),
        top_index=stacked([f"top_index_{rank}" for rank in ranks], -1, np.int32),
        normed=last("normed"),
        visible=shares("visible"),
        null=shares("null"),
        sink=_sink(heads, model, shape),
        token_text=None if rows.unknown("text") else rows.texts("text", length),
        prefix=shape.prefix,
        parallel=shape.parallel,
        extra={
            name: rows.values(name).astype(np.float64).reshape(shape.blocks, length)
            for name in tokens.columns
            if name not in _OWN and not rows.unknown(name)
        },
        token_loss=None if rows.unknown("token_loss") else last("token_loss"),
        skip_loss=None if rows.unknown("skip_loss") else stacked(["skip_loss"], 0, np.float64)[0],
    )
    _give_back()
    return capture


def _give_back() -> None:
    """Return Arrow's cached memory to the system: about 200 MB in a long run."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def _sink(heads: TableFile, model: str, shape: Shape) -> np.ndarray | None:
    """Return [block, head, prompt], or None if the model has no rows."""
    rows = _Rows(heads, model, None)
    if not rows.count:
        return None
    each = shape.blocks * len(shape.lengths)
    if rows.count % each:
        raise BrokenTable(
            f"{HEADS} has {rows.count} rows of {model}, needed is a multiple of {each}: {_TWO_RUNS}"
        )
    by_head = (shape.blocks, rows.count // each, len(shape.lengths))
    rows.check("layer", np.indices(by_head)[0].ravel())
    rows.check("head", np.indices(by_head)[1].ravel())
    return rows.values("sink").astype(np.float64).reshape(by_head)


class _Rows:
    """Read the rows of one model, column by column."""

    def __init__(self, file: TableFile, model: str, count: int | None) -> None:
        self._file, self._model = file, model
        self._check_known("model")
        own = [file.rows_where("model", model, group) for group in range(file.num_groups)]
        self._groups = [group for group, mask in enumerate(own) if mask.any()]
        masks = [own[group] for group in self._groups]
        self._mask = np.concatenate(masks) if masks else np.zeros(0, bool)
        self.count = int(self._mask.sum())
        if count is not None and self.count != count:
            raise BrokenTable(
                f"{file.name} has {self.count} rows of {model}, needed are {count}: {_TWO_RUNS}"
            )

    def _check_known(self, name: str) -> None:
        if name not in self._file.columns:
            raise BrokenTable(f"{self._file.name} has no column '{name}'")

    def _column(self, name: str) -> Any:
        self._check_known(name)
        column = self._file.read(name, self._groups)
        return column if self._mask.all() else column.filter(self._mask)

    def values(self, name: str) -> np.ndarray:
        """Return numbers; null becomes NaN."""
        return self._column(name).to_numpy()

    def texts(self, name: str, count: int) -> tuple[str, ...]:
        """Return the first `count` strings."""
        found: list[str] = []
        for chunk in self._column(name).slice(0, count).dictionary_encode().chunks:
            words = [*chunk.dictionary.to_pylist(), None]  # far fewer than rows; last: null
            found += [words[index] for index in chunk.indices.fill_null(-1).to_numpy()]
        return tuple(found)

    def unknown(self, name: str) -> bool:
        """Return whether the column is all null or missing in this file."""
        return name not in self._file.columns or self._column(name).null_count == self.count

    def check(self, name: str, expected: np.ndarray) -> None:
        """Raise BrokenTable if the rows differ from the expected ones, or are in another order."""
        if not np.array_equal(self.values(name), expected):
            raise BrokenTable(
                f"column '{name}' of {self._file.name} is not as {RESULT} has it for "
                f"{self._model}: {_TWO_RUNS}"
            )
