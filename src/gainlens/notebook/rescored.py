"""Define the records of a re-scored file: numbers with definitions, tests, spectra, findings.

A field that the file leaves unknown is None; its class's WHY_UNKNOWN holds the reason.
"""

import math
import statistics
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field, computed_field

from gainlens.core.formulas import random_edge
from gainlens.notebook.definitions import Basis, Reduction, State
from gainlens.notebook.intervals import t_interval
from gainlens.notebook.record import Finding, Record
from gainlens.notebook.result_file import FileModel

Behaviour = Literal["EXPANDS", "CONTRACTS", "UNDETERMINED"]


class Statement(Record):
    """Hold the file's own words."""

    place: str
    text: str
    group: str | None = None
    """the family of models that they are about, if one"""


class Measurement(Record):
    """Hold one kind of number of one model; ratios."""

    WHY_UNKNOWN: ClassVar = {
        "low": "no interval: it needs at least three prompts one by one",
        "high": "no interval: it needs at least three prompts one by one",
        "behaviour": "no interval, or not the last block's gain",
        "block": "the file does not show which block",
        "num_blocks": "the file does not give the number of blocks",
        "stated": "the file has prompts, and no mean of them",
        "says": "the file says nothing of this model",
        "group": "the file names no family",
    }
    model: str
    called: str
    """the file's own name for the number"""
    state: State
    reduction: Reduction
    basis: Basis
    """how state and reduction are known"""
    block: int | None = None
    """index from 0 of the block that it is really about"""
    num_blocks: int | None = None
    by_prompt: dict[str, float] = Field(default_factory=dict)
    stated: float | None = None
    """the file's own single number or mean"""
    says: str | None = None
    group: str | None = None

    @computed_field
    @property
    def prompts(self) -> int:
        """Return the number of prompts whose values the file holds."""
        return len(self.by_prompt)

    @computed_field
    @cached_property
    def value(self) -> float | None:
        """Return the geometric mean over the prompts, or the stated number."""
        if not self.by_prompt:
            return self.stated
        return math.exp(statistics.fmean(self._logs))

    @computed_field
    @property
    def low(self) -> float | None:
        """Return the lower end of the value's 95 % interval over prompts."""
        return None if self._interval is None else math.exp(self._interval[0])

    @computed_field
    @property
    def high(self) -> float | None:
        """Return the upper end."""
        return None if self._interval is None else math.exp(self._interval[1])

    @computed_field
    @property
    def behaviour(self) -> Behaviour | None:
        """Return on which side of 1 the interval lies; None unless it is the last block's gain."""
        if self._interval is None or self.state != "last block":
            return None
        low, high = self._interval
        return "EXPANDS" if low > 0 else "CONTRACTS" if high < 0 else "UNDETERMINED"

    @property
    def _logs(self) -> list[float]:
        return [math.log(value) for value in self.by_prompt.values()]

    @cached_property
    def _interval(self) -> tuple[float, float] | None:
        return t_interval(self._logs)


class PairedDifference(Record):
    """Hold the log gain of one model minus another's, paired over prompts; nats."""

    WHY_UNKNOWN: ClassVar = {"says": "the file says nothing of this pair"}
    model: str
    minus: str
    called: str
    state: State
    prompts: int
    nats: float
    low: float
    high: float
    p: float
    """paired t test, two-sided, after Holm's correction over the file's pairs"""
    says: str | None = None


class Spectrum(Record):
    """Hold singular values of one kind of matrix of one model, per block or a single one."""

    WHY_UNKNOWN: ClassVar = {
        "edge_ratio": "the file lacks the matrix's shape or its Frobenius norm",
        "stable_rank": "the file lacks a Frobenius norm or a spectral norm",
        "rows": "the file lacks the matrix's shape",
        "columns": "the file lacks the matrix's shape",
    }
    model: str
    matrix: str
    called: str
    spectral_norms: tuple[float | None, ...] = ()
    frobenius_norms: tuple[float | None, ...] = ()
    effective_ranks: tuple[float | None, ...] = ()
    rows: int | None = None
    columns: int | None = None

    @computed_field
    @property
    def edge_ratio(self) -> float | None:
        """Return the last spectral norm over that of a random matrix of this shape and size."""
        spectral, frobenius = _last(self.spectral_norms), _last(self.frobenius_norms)
        if not spectral or not frobenius or self.rows is None or self.columns is None:
            return None
        return spectral / random_edge(frobenius, self.rows, self.columns)

    @computed_field
    @property
    def stable_rank(self) -> float | None:
        """Return squared Frobenius over squared spectral norm, of the last entry."""
        spectral, frobenius = _last(self.spectral_norms), _last(self.frobenius_norms)
        return (frobenius / spectral) ** 2 if spectral and frobenius else None


def _last(values: tuple[float | None, ...]) -> float | None:
    return values[-1] if values else None


Limit = Literal["block_of_last_gain", "interval", "tokens", "cause", "spectra"] | State | Reduction
"""What cannot be concluded; rescore_tables.LIMITS and definitions hold the sentences."""
PairReason = Literal["roles", "two_models", "no_last_gains"]


class NotebookTest(Record):
    """Hold the notebook's test on recomputed numbers."""

    WHY_UNKNOWN: ClassVar = {
        "theta_ratio": "the file lacks rope_theta for one of the two models",
        "gain_ratio": "the short model's last_gain is 0",
        "wu_ratio": "the file lacks w_u for one of the two models",
        "wu_vocabulary": "the file lacks w_u for one of the two models",
        "wu_rest": "the file lacks w_u for one of the two models",
        "stated_verdict": "the file states none",
    }
    short: str
    long: str
    chosen_by: Literal["role", "order"]
    verdict: str
    """by the notebook's rule"""
    stated_verdict: str | None
    theta_ratio: float | None
    gain_ratio: float | None
    wu_ratio: float | None
    wu_vocabulary: float | None
    """square root of the vocabulary ratio: what wu_ratio owes to the number of rows"""
    wu_rest: float | None
    """wu_ratio over that"""
    differing: tuple[str, ...]
    """what differs between the two models as far as the file says"""
    findings: tuple[Finding, ...]


class Rescore(Record):
    """Hold a whole file, re-scored."""

    source: str
    ours: bool
    """written by gainlens"""
    shapes: tuple[str, ...]
    models: dict[str, FileModel] = Field(default_factory=dict)
    """models of the notebook's shape, with what follows from their norms and weights"""
    pair: NotebookTest | None = None
    pair_reason: PairReason | None = None
    """why there is no pair"""
    measurements: tuple[Measurement, ...] = ()
    differences: tuple[PairedDifference, ...] = ()
    spectra: tuple[Spectrum, ...] = ()
    statements: tuple[Statement, ...] = ()
    findings: tuple[Finding, ...] = ()
    limits: tuple[Limit, ...] = ()


class SameModel(Record):
    """Hold one of several numbers that files give for one model."""

    model: str
    """key that the spellings of a model's name share"""
    file: str
    measurement: Measurement


class Origin(Record):
    """Hold a gain that a file copied, and the measured gain that it equals."""

    WHY_UNKNOWN: ClassVar = {"source": "none of these files holds a gain that rounds to it"}
    copied: SameModel
    source: SameModel | None
