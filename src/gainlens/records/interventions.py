"""Define what an intervention changes in one model."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from gainlens.core.vocabulary import Behaviour, Outcome
from gainlens.records.gains import BlockGain
from gainlens.records.interval import Interval


@dataclass(frozen=True)
class LastBlock:
    """Describe a model's last block, as it is or under an intervention."""

    log_gain: Interval
    """under the primary estimand, nats; token classes are those without the intervention"""
    notebook_last_gain: float
    """ratio, in the notebook's convention, on the notebook's sentence"""
    loss: Interval
    """mean over prompts of the next-token loss, nats per token"""
    behaviour: Behaviour | None
    """None if the interval is unknown or if there are too few prompts"""


@dataclass(frozen=True)
class Change:
    """Hold a model before and after one intervention; differences are paired over prompts."""

    before: LastBlock
    after: LastBlock
    delta_log_gain: Interval
    """after minus before, nats"""
    delta_loss: Interval
    """after minus before, nats per token"""


@dataclass(frozen=True)
class AblationEffect:
    """Describe one ablated component."""

    site: str
    """TransformerLens' hook name, blocks counted from the end so that models of different depth
    compare: blocks.-1.hook_mlp_out"""
    how: str
    """zero or mean"""
    change: Change
    last_block: Float64[np.ndarray, " prompt"]
    """log gain per prompt of the last block under the ablation, primary estimand, nats"""


@dataclass(frozen=True)
class AblatedVerdict:
    """Hold the outcome with one component ablated in either model, and in both."""

    site: str
    how: str
    before: Outcome
    short_ablated: Outcome
    long_ablated: Outcome
    both_ablated: Outcome
    difference: Interval
    """long minus short, log gain of the last block with the component ablated in both, nats"""
    change: Interval
    """that difference minus the one without ablation, nats, paired over prompts where possible"""

    @property
    def decides(self) -> bool:
        """Return whether ablating it turns one decided outcome into another.

        An outcome that becomes UNDETERMINED has lost its power and has not turned.
        """
        after = {self.short_ablated, self.long_ablated, self.both_ablated} - {"UNDETERMINED"}
        return self.before != "UNDETERMINED" and bool(after - {self.before})

    @property
    def matters(self) -> bool:
        """Return whether ablating it turns the outcome or, beyond its interval, the difference."""
        return self.decides or self.change.excludes_zero


@dataclass(frozen=True)
class ThetaDose:
    """Describe the same weights under one RoPE base."""

    theta: float
    """RoPE base; the scaling does not change"""
    own: bool
    """whether this is the base that the model was trained with"""
    change: Change
    """change from the model's own base"""
    last_block: Float64[np.ndarray, " prompt"]
    """log gain per prompt of the last block under this base, primary estimand, nats"""


@dataclass(frozen=True)
class ThetaDifference:
    """Compare the short and the long model under one RoPE base, each with its own weights."""

    theta: float
    """RoPE base of both models"""
    difference: Interval
    """long minus short, log gain of the last block, nats"""


@dataclass(frozen=True)
class AblatedModel:
    """Hold a second measurement of the model, under the ablations that were asked for."""

    blocks: tuple[BlockGain, ...]
    """every block under the ablations; token classes are those without them"""
    change: Change


@dataclass(frozen=True)
class ControlEffect:
    """Describe an intervention on tokens or on massive activations."""

    name: str
    """massive to mean, massive to zero, BOS dropped or BOS doubled"""
    note: str
    """how many tokens it touches, or why it touches none"""
    change: Change | None
    """None if there is nothing to intervene on"""


@dataclass(frozen=True)
class Interventions:
    """Hold all interventions on one model and what they changed."""

    sweep: tuple[AblationEffect, ...] = ()
    """each component of the last blocks in turn, the last block first"""
    theta_dose: tuple[ThetaDose, ...] = ()
    """in rising order of theta, the model's own included"""
    notes: tuple[str, ...] = ()
    """what could not be done, and why"""
    ablated: AblatedModel | None = None
    """under --ablate; None if it was not asked for"""
    controls: tuple[ControlEffect, ...] = ()
    """massive activations to their mean and to zero, BOS dropped and doubled"""
