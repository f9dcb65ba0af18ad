"""Define what a claim is judged by, and what the engine says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from gainlens.records.groups import Clustering, Resolved, opposed_groups
from gainlens.records.interval import Interval

ClaimOutcome = Literal[
    "SUPPORTED", "CONTRADICTED", "EQUIVALENT", "UNDETERMINED", "NOT TESTED",
    "CONFIRMED", "REJECTED", "UNEXPECTED", "INVERTED",
]  # fmt: skip
"""The second row belongs to claims about signs."""
Fact = float | str | None
"""A number or a word of a model's config; None if the config does not say it."""


@dataclass(frozen=True)
class Controlled:
    """Hold what an intervention changes in one model, beside what its random control changes."""

    change: Float64[np.ndarray, "block prompt"]
    """the metric under the intervention minus the metric of the model as it is; NaN for prompts on
    which the intervention acts nowhere"""
    draws: Float64[np.ndarray, "draw block prompt"]
    """the same under each draw of the control"""
    population: int | None = None
    """of how many possible controls the draws are, each at most once; None: without end"""

    @property
    def control(self) -> Float64[np.ndarray, "block prompt"]:
        """Return the control's change, the mean over its draws."""
        return self.draws.mean(axis=0)

    def at(self, prompts: Int64[np.ndarray, " chosen"]) -> "Controlled":
        """Return the same on some of the prompts."""
        return replace(self, change=self.change[:, prompts], draws=self.draws[:, :, prompts])


@dataclass(frozen=True)
class Evidence:
    """Hold the numbers of one model that a claim is judged by."""

    role: str
    name: str
    facts: Mapping[str, Fact]
    """by the field names that a premise may use"""
    ids: tuple[str, ...]
    """one name per prompt; prompts of two models pair by name"""
    lengths: Int64[np.ndarray, " prompt"]
    """tokens per prompt"""
    sha256: str
    """hash of the prompts' names and texts"""
    values: Mapping[str, Float64[np.ndarray, "block prompt"]]
    """the number that is judged, per way of reducing a prompt's tokens to one: the metric, or what
    the claim's intervention changes it by; empty if it could not be measured"""
    with_values: Float64[np.ndarray, "block prompt"] | None = None
    """the second metric of a rank claim"""
    step: float | None = None
    """training step, of a series"""
    seed: float | None = None
    """seed of the training run; None if the record does not say it"""
    controlled: Controlled | None = None
    """of a claim with an intervention, in the claim's own way of reducing tokens"""
    unmeasured: str = ""
    """why the number could not be measured"""
    groups: tuple[str, ...] = ()
    """kind or file of each prompt; empty if the prompts carry none"""
    at_positions: Mapping[str, Float64[np.ndarray, "block prompt"]] = field(default_factory=dict)
    """the metric on the tokens of each range of positions; empty if a token has no value of it"""
    parts: Mapping[str, Float64[np.ndarray, "block prompt"]] = field(default_factory=dict)
    """attention's and the MLP's part of a log gain; empty for other metrics"""


@dataclass(frozen=True)
class Estimate:
    """Hold one number that bears on a claim."""

    of: str
    """what the number is of: a role, a block, or the whole contrast"""
    interval: Interval
    clustering: Clustering | None = None
    """the same number over groups of prompts; None if the prompts carry no groups"""


@dataclass(frozen=True)
class Effect:
    """Hold what an intervention changes, what its control changes, and their difference."""

    intervention: str
    """what was done, in words"""
    control: str
    """the control, in words"""
    change: Interval
    control_change: Interval
    """mean over the control's draws; the interval allows for prompts and draws"""
    excess: Interval
    """the change minus the control's change, paired over prompts; the interval allows for both"""
    draws: tuple[float, ...]
    """the control's mean change in each draw"""
    against: Literal["plain", "control"]
    """whether the claim predicts the change, or the excess"""
    exhausted: bool
    """whether the draws are all controls that there are"""


@dataclass(frozen=True)
class ClaimVerdict:
    """Hold what the engine says of one claim."""

    claim: str
    statement: str
    source: str
    models: Mapping[str, str]
    """the model of each role; several models of one role are joined by commas"""
    outcome: ClaimOutcome
    measured: ClaimOutcome
    """what the numbers say, whether or not the premise holds"""
    robust: bool | None
    """whether at least 80 % of the distinct analyses decide, and all that decide agree; None if the
    claim was not tested"""
    analyses: int
    """distinct analyses: ways of reducing tokens, on all prompts and on either half by length"""
    undecided: int
    disagreeing: tuple[str, ...]
    premise: bool | None
    """None if a field that it names is not known"""
    estimates: tuple[Estimate, ...]
    unit: str
    prediction: str
    independent: Literal["prompts", "seeds", "models"]
    """what the intervals run over"""
    reasons: tuple[str, ...]
    """at most five sentences, the weightiest first"""
    margin: float = 0.0
    """what counts as no difference from the prediction, in the unit"""
    effect: Effect | None = None
    """of a claim with an intervention; None without one, or if it could not be measured"""
    resolved: tuple[Resolved, ...] = ()
    """a difference by component, prompt length, position and kind of prompt"""

    @property
    def reversal(self) -> tuple[Resolved, Resolved] | None:
        """Return the clearest pair of groups whose differences have opposite signs, if any."""
        return opposed_groups(self.resolved)
