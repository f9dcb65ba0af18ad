"""TODO: records.verdict."""

from dataclasses import dataclass

from gainlens.core.vocabulary import Behaviour, Reduction, TokenClass
from gainlens.records.interval import Interval
from gainlens.records.interventions import AblatedVerdict, ThetaDifference


@dataclass(frozen=True)
class GainCell:
    """The last block under one way of measuring it."""

    token_class: TokenClass
    reduction: Reduction
    lengths: str
    """`all`, or the `short` or `long` half of the prompts by their number of tokens"""
    after_final_norm: bool
    """True: |ln_final(y)|/|x|, the notebook's kind of number, blind to the last block"""
    log_gain: Interval
    behaviour: Behaviour | None
    """None where the cell has no data or too few prompts; log_gain.status says which"""


@dataclass(frozen=True)
class Effect:
    """One effect on the last block's log gain, nats."""

    factor: str
    """theta, context, or theta:context (the interaction)"""
    unit: str
    """what the interval is over: prompts, or seeds"""
    at: str
    """equal tokens or equal loss"""
    log_gain: Interval


@dataclass(frozen=True)
class Identification:
    """Whether the two models differ in nothing but theta and context."""

    controlled: bool
    differing: tuple[str, ...]
    """config and training fields that differ otherwise, `training unknown` included"""


@dataclass(frozen=True)
class Verdict:
    """What can be said of the claim, and how far to trust it."""

    outcome: str
    """CONFIRMED, REJECTED, UNEXPECTED, INVERTED or UNDETERMINED"""
    robust: bool
    dissent: tuple[str, ...]
    """cells that would have said otherwise; those after the final norm are marked blind"""
    undecided: tuple[str, ...]
    """cells that say nothing either way"""
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
    components: tuple[AblatedVerdict, ...] = ()
    """the outcome with each swept component ablated in either model, and in both"""
    at_theta: tuple[ThetaDifference, ...] = ()
    """the difference with both models under one theta, in rising order"""
    ablated_outcome: str | None = None
    """the outcome under --ablate, in both models; None where none was asked for"""
