"""Define the verdict: what each way of measuring says, and what may be concluded."""

from dataclasses import dataclass

from gainlens.core.glossary import GLOSSARY
from gainlens.core.vocabulary import (
    Basis,
    Behaviour,
    Component,
    Lengths,
    Outcome,
    Reduction,
    TokenClass,
    Unit,
)
from gainlens.records.groups import Clustering, Grouping, opposed_groups
from gainlens.records.interval import Interval
from gainlens.records.interventions import AblatedVerdict, ThetaDifference


@dataclass(frozen=True)
class GainCell:
    """Hold the last block of one model under one way of measuring it."""

    token_class: TokenClass
    reduction: Reduction
    lengths: Lengths
    after_final_norm: bool
    """True: |ln_final(y)|/|x|, the notebook's kind of number, blind to the last block"""
    log_gain: Interval
    behaviour: Behaviour | None
    """None if the cell has no data or too few prompts; log_gain.status says which"""


@dataclass(frozen=True)
class CellOutcome:
    """Hold the outcome for two models under one way of measuring, whatever the premise."""

    token_class: TokenClass
    reduction: Reduction
    lengths: Lengths
    after_final_norm: bool
    outcome: Outcome
    """UNDETERMINED: this way does not decide"""
    counts: bool
    """True for a distinct analysis before the final norm, which bears on `robust`.  Position 0 and
    cells after the final norm are findings of their own."""

    @property
    def name(self) -> str:
        """Return the way of measuring in words."""
        kind = GLOSSARY[self.token_class].label
        name = kind if self.token_class == "bos" else f"{GLOSSARY[self.reduction].label} of {kind}"
        return name if self.lengths == "all" else f"{name}, {self.lengths} prompts"

    def __str__(self) -> str:
        mark = " (after the final norm: blind to the last block)" if self.after_final_norm else ""
        return f"{self.name}: {self.outcome}{mark}"


@dataclass(frozen=True)
class GroupDifference:
    """Hold long minus short on one group of tokens or prompts."""

    by: Grouping
    group: str
    """short or long half of the prompts; positions such as 1-3; or a kind of prompt"""
    log_gain: Interval
    """last block, nats, paired over prompts"""

    @property
    def interval(self) -> Interval:
        """Return the interval under the name that every resolved number has."""
        return self.log_gain


@dataclass(frozen=True)
class ComponentDifference:
    """Hold long minus short of one component's part of the last block's log gain."""

    component: Component
    part: Interval
    """nats, paired over prompts; the parts of both components sum to the difference"""


@dataclass(frozen=True)
class Effect:
    """Hold one effect on the last block's log gain, nats."""

    factor: str
    """theta, context, or theta:context (the interaction); `theta at context 512` is a simple
    effect"""
    unit: Unit
    """what the interval is over"""
    at: Basis
    log_gain: Interval
    """over seeds: simultaneous over the design's contrasts"""
    component: Component | None = None
    """None: the whole log gain"""
    smallest_visible: float | None = None
    """over seeds: the smallest effect that the design finds with 80 % power, nats"""


@dataclass(frozen=True)
class Identification:
    """Say whether the two models differ only in theta and context."""

    controlled: bool
    differing: tuple[str, ...]
    """config and training fields that differ otherwise, `training unknown` included"""
    by_design: tuple[str, ...] = ()
    """what changes together with context or theta in any such pair"""
    same_weights: bool = False
    """True if both hold the same weights: one training, under two configs"""


@dataclass(frozen=True)
class Verdict:
    """Hold what the numbers carry of the claim, and how far to trust it."""

    outcome: Outcome
    """NOT TESTED if the premise fails or is not known"""
    robust: bool | None
    """None if the claim was not tested"""
    measured: Outcome
    """what the two signs say, whatever the premise"""
    cells: tuple[CellOutcome, ...]
    """every way of measuring that has tokens; analyses that are one number by construction once"""
    premise: bool | None
    """does the long model have the larger theta and context; None if not known"""
    difference: Interval
    """long minus short, log gain of the last block, nats; paired over prompts where possible"""
    paired: bool
    identification: Identification
    attribution: tuple[Effect, ...]
    attribution_note: str
    reasons: tuple[str, ...]
    headline: str
    """one sentence"""
    parts: tuple[ComponentDifference, ...] = ()
    resolved: tuple[GroupDifference, ...] = ()
    """the difference by length, position and kind of prompt"""
    clustering: Clustering | None = None
    """None if the prompts carry no groups"""
    components: tuple[AblatedVerdict, ...] = ()
    """the outcome with each swept component ablated in either model, and in both"""
    at_theta: tuple[ThetaDifference, ...] = ()
    """the difference with both models under one theta, in rising order"""
    ablated_outcome: Outcome | None = None
    """the outcome under --ablate, in both models; None if no ablation was asked for"""

    @property
    def analyses(self) -> tuple[CellOutcome, ...]:
        """Return the distinct analyses before the final norm."""
        return tuple(cell for cell in self.cells if cell.counts)

    @property
    def vetoes(self) -> tuple[CellOutcome, ...]:
        """Return the analyses that decide otherwise: one of them takes robustness away."""
        return tuple(c for c in self.analyses if c.outcome not in (self.measured, "UNDETERMINED"))

    @property
    def dissent(self) -> tuple[CellOutcome, ...]:
        """Return every cell that decides otherwise: vetoes, position 0, then after the norm."""
        others = [c for c in self.cells if c.outcome not in (self.measured, "UNDETERMINED")]
        return tuple(sorted(others, key=lambda cell: (cell.after_final_norm, not cell.counts)))

    @property
    def undecided(self) -> tuple[CellOutcome, ...]:
        """Return the analyses that decide nothing."""
        return tuple(cell for cell in self.analyses if cell.outcome == "UNDETERMINED")

    @property
    def reversal(self) -> tuple[GroupDifference, GroupDifference] | None:
        """Return the clearest pair of groups whose differences have opposite signs, if any."""
        return opposed_groups(self.resolved)
