"""Read and write the table of scripts/bench.py: one row per method, model and prompt length."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parents[2] / "src/gainlens/data/bench.csv"
"""Measured rows that ship with the package; bench.json beside it says how they were made."""
MEASURED: Final = "measured"
OUT_OF_MEMORY: Final = "out of memory"
REFUSED: Final = "refused: its attention fits no memory"


@dataclass(frozen=True)
class BenchRow:
    """Hold what one method costs on one prompt; a number that was not measured is None."""

    machine: str
    model: str
    """shape of the model; its weights are untrained"""
    dtype: str
    tokens: int
    """length of the one prompt"""
    backend: str
    """native (Hugging Face, SDPA), hooked (HookedTransformer) or bridge (TransformerBridge)"""
    method: str
    """plain is the forward pass without logits"""
    status: str
    """measured; or why there is no number: out of memory, not installed, refused, ..."""
    seconds: float | None = None
    """median over repeats, wall clock, s"""
    seconds_low: float | None = None
    seconds_high: float | None = None
    repeats: int | None = None
    memory_bytes: int | None = None
    """peak above the weights, of the device that computes, bytes"""
    times_native_plain: float | None = None
    """seconds over those of the native plain forward pass of the same run"""
    times_own_plain: float | None = None
    """seconds over those of the same back end's plain forward pass"""
    memory_times_native_plain: float | None = None
    memory_times_own_plain: float | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies the row; a later row with the same key replaces it."""
        return (self.machine, self.model, self.dtype, str(self.tokens), self.backend, self.method)


def read_rows(path: Path = TABLE) -> tuple[BenchRow, ...]:
    """Read the rows of a table; raise ValueError if the file is not such a table."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = [field.name for field in fields(BenchRow)]
        if reader.fieldnames != names:
            raise ValueError(
                f"{path} is not a table of scripts/bench.py: its columns are {reader.fieldnames}, "
                f"needed are {names}"
            )
        return tuple(_row(record) for record in reader)


def write_rows(path: Path, rows: Sequence[BenchRow]) -> None:
    """Write one line per row, in the order given; None becomes an empty cell."""
    names = [field.name for field in fields(BenchRow)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: _text(value) for name, value in asdict(row).items()} for row in rows
        )


def merged(old: Sequence[BenchRow], new: Sequence[BenchRow]) -> tuple[BenchRow, ...]:
    """Return all rows; a newer row replaces an older one with the same key."""
    return tuple({row.key: row for row in (*old, *new)}.values())


_INTEGERS = ("tokens", "repeats", "memory_bytes")
_TEXTS = ("machine", "model", "dtype", "backend", "method", "status")


def _row(record: dict[str, str]) -> BenchRow:
    values: dict[str, object] = {}
    for name, text in record.items():
        kind = str if name in _TEXTS else int if name in _INTEGERS else float
        values[name] = kind(text) if text else None
    return BenchRow(**values)  # pyright: ignore[reportArgumentType]


def _text(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
