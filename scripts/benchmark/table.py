"""Define the two tables of scripts/bench.py, and read and write them."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, TypeVar, get_args, get_type_hints

DATA: Final = Path(__file__).parents[2] / "src/gainlens/data"
"""bench.csv and throughput.csv ship with the package; bench.json says how they were made."""
MEASURED: Final = "measured"
OUT_OF_MEMORY: Final = "out of memory"
REFUSED: Final = "refused: its attention fits no memory"


@dataclass(frozen=True)
class BenchRow:
    """Hold what one method costs on one long prompt; a number that was not measured is None."""

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
    def key(self) -> tuple[object, ...]:
        """Return what identifies the row; a later row with the same key replaces it."""
        return (self.machine, self.model, self.dtype, self.tokens, self.backend, self.method)


@dataclass(frozen=True)
class ThroughputRow:
    """Hold what one method needs for all prompts; a number that was not measured is None."""

    machine: str
    model: str
    """shape of the model; its weights are untrained"""
    dtype: str
    prompts: int
    tokens: int
    """of all prompts, padding not counted"""
    batch_tokens: int
    """most tokens per batch, padding counted"""
    padding: float
    """share of the computed tokens that is padding"""
    backend: str
    method: str
    status: str
    seconds: float | None = None
    """median over repeats, wall clock, s"""
    seconds_low: float | None = None
    seconds_high: float | None = None
    repeats: int | None = None
    tokens_per_second: float | None = None
    """tokens over seconds"""
    times_own_plain: float | None = None
    """seconds over those of the same back end's plain passes in the same batches"""

    @property
    def key(self) -> tuple[object, ...]:
        """Return what identifies the row; a later row with the same key replaces it."""
        return (self.machine, self.model, self.dtype, self.prompts, self.batch_tokens, self.backend,
                self.method)  # fmt: skip


Row = TypeVar("Row", BenchRow, ThroughputRow)


def read_rows(path: Path, kind: type[Row]) -> tuple[Row, ...]:
    """Read the rows of a table; raise ValueError if the file is not a table of that kind."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = [field.name for field in fields(kind)]
        if reader.fieldnames != names:
            raise ValueError(
                f"{path} is not a table of scripts/bench.py: its columns are {reader.fieldnames}, "
                f"needed are {names}"
            )
        return tuple(_row(record, kind) for record in reader)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write one line per row, in the order given; None becomes an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, [field.name for field in fields(rows[0])], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(
            {name: _text(value) for name, value in asdict(row).items()} for row in rows
        )


def merged(old: Sequence[Row], new: Sequence[Row]) -> tuple[Row, ...]:
    """Return all rows; a newer row replaces an older one with the same key."""
    return tuple({row.key: row for row in (*old, *new)}.values())


def _row(record: dict[str, str], kind: type[Row]) -> Row:
    hints = get_type_hints(kind)
    values: dict[str, object] = {}
    for name, text in record.items():
        types = get_args(hints[name]) or (hints[name],)
        values[name] = types[0](text) if text else None
    return kind(**values)


def _text(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
