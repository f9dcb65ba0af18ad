"""TODO: records.interventions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from gainlens.core.vocabulary import Behaviour
from gainlens.records.gains import BlockGain
from gainlens.records.interval import Interval


@dataclass(frozen=True)
class LastBlock:
    """What is said of a model's last block, as it is or under an intervention."""

    log_gain: Interval
    """primary estimand, nats; the token classes are those of the model as it is"""
    notebook_last_gain: float
    """notebook's convention, on the notebook's sentence; ratio"""
    loss: Interval
    """mean over prompts of the next-token loss, nats per token"""
    behaviour: Behaviour | None
    """None where the interval is not known or there are too few prompts"""


@dataclass(frozen=True)
class Change:
    """A model before and after one intervention; differences are paired over prompts."""

    before: LastBlock
    after: LastBlock
    delta_log_gain: Interval
    """after minus before, nats"""
    delta_loss: Interval
    """after minus before, nats per token"""


@dataclass(frozen=True)
class AblationEffect:
    """One component ablated."""

    site: str
    """TransformerLens' hook name with the block counted from the end, so that models of different
    depth compare: blocks.-1.hook_mlp_out"""
    how: str
    """zero or mean"""
    change: Change
    last_block: Float64[np.ndarray, " prompt"]
    """per-prompt log gain of the last block under it, primary estimand, nats"""


@dataclass(frozen=True)
class AblatedVerdict:
    """The outcome with one component ablated in either model, and in both."""

    site: str
    how: str
    before: str
    short_ablated: str
    long_ablated: str
    both_ablated: str
    difference: Interval
    """long minus short, log gain of the last block with the component ablated in both, nats"""

    @property
    def decides(self) -> bool:
        """Whether the outcome depends on this component: a decided one becomes another."""
        after = (self.short_ablated, self.long_ablated, self.both_ablated)
        return any(outcome != self.before for outcome in after)


@dataclass(frozen=True)
class ThetaDose:
    """The same weights under one RoPE base."""

    theta: float
    """RoPE base; scaling stays as it is"""
    own: bool
    """whether this is the base that the model was trained with"""
    change: Change
    """from the model's own base"""
    last_block: Float64[np.ndarray, " prompt"]
    """per-prompt log gain of the last block under this base, primary estimand, nats"""


@dataclass(frozen=True)
class ThetaDifference:
    """Short and long model under one RoPE base, each with its own weights."""

    theta: float
    """RoPE base that both are under"""
    difference: Interval
    """long minus short, log gain of the last block, nats"""


@dataclass(frozen=True)
class AblatedModel:
    """The model measured a second time, under the ablations that were asked for."""

    blocks: tuple[BlockGain, ...]
    """every block under them; the token classes are those of the model as it is"""
    change: Change


@dataclass(frozen=True)
class ControlEffect:
    """An intervention on tokens or on massive activations rather than on a component."""

    name: str
    """massive to mean, massive to zero, BOS dropped or BOS doubled"""
    note: str
    """how many tokens it touches, or why it touches none"""
    change: Change | None
    """None where there is nothing to intervene on"""


@dataclass(frozen=True)
class Interventions:
    """What was done to one model, and what it changed."""

    sweep: tuple[AblationEffect, ...] = ()
    """every component of the last blocks in turn, from the last block back"""
    theta_dose: tuple[ThetaDose, ...] = ()
    """in rising order of theta, the model's own among them"""
    notes: tuple[str, ...] = ()
    """what could not be done, and why"""
    ablated: AblatedModel | None = None
    """under --ablate; None where none was asked for"""
    controls: tuple[ControlEffect, ...] = ()
    """massive activations to their mean and to zero, BOS dropped and doubled; where asked for"""
