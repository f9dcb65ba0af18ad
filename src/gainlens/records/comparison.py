"""Define a whole run: one report per model, the notebook's test, the verdict and the spec.

Nothing here is changed once made.  An unknown number is NaN (or None) with a reason beside it,
never 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from gainlens.core.messages import check_one_of
from gainlens.core.spec import ComparisonSpec
from gainlens.core.vocabulary import Behaviour, Role
from gainlens.records.capture import Capture
from gainlens.records.gains import BlockGain, Decomposition, LastBlockParts, MassiveToken
from gainlens.records.inputs import Checkpoint, EncodedPrompts
from gainlens.records.interval import Interval
from gainlens.records.interventions import Interventions
from gainlens.records.verdict import GainCell, Verdict
from gainlens.records.weights import RopeReport, UnembedReport


@dataclass(frozen=True)
class NotebookResidual:
    """Hold the notebook's residual statistics, in its convention and under its names."""

    norms: tuple[float, ...]
    """mean L2 norm over positions of each hidden state; the last entry after the final norm"""
    gains: tuple[float, ...]
    embedding_norm: float
    final_norm: float
    initial_gain: float
    last_gain: float
    last_expands: bool
    cumulative_energy: float
    num_layers: int
    contracting_layers: int
    expanding_layers: int
    true_last_gain: float
    """mean |resid_post| over mean |resid_pre| of the last block: what last_gain was taken for"""
    final_norm_gain: float
    """mean |ln_final(y)| over mean |y|: last_gain = true_last_gain * final_norm_gain"""


@dataclass(frozen=True)
class ModelReport:
    """Hold everything measured on one model."""

    role: Role
    checkpoint: Checkpoint
    residual: NotebookResidual
    unembed: UnembedReport
    rope: RopeReport
    blocks: tuple[BlockGain, ...]
    cells: tuple[GainCell, ...]
    last_block: Float64[np.ndarray, " prompt"]
    """per-prompt log gain of the last block under the primary estimand, nats"""
    behaviour: Behaviour | None
    equivalent: bool | None
    """whether the interval lies within 1 +- the spec's margin; FLAT alone is not equality"""
    massive: tuple[MassiveToken, ...]
    prompts: EncodedPrompts
    scale_control: float
    """largest change of a logit if the last stream is doubled, as a share of the largest |logit|:
    the final norm forgets scale, so a number after it cannot show the last block's gain"""
    halves_control: Interval
    """log gain of the model on one half of the prompts minus the other half, nats"""
    visible_share: tuple[float, float] | None = None
    """mean over prompts of a prompt's mean of Capture.visible over ordinary tokens, for attention
    and for the MLP; NaN for a component that writes nothing"""
    interventions: Interventions = field(default_factory=Interventions)
    parts: LastBlockParts | None = None
    """None in results from before it was measured"""


@dataclass(frozen=True)
class HypothesisTest:
    """Hold what the notebook's rule says, in its own strings."""

    short_expands: bool
    long_expands: bool
    theta_ratio: float
    gain_ratio: float
    wu_ratio: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Hold one whole run."""

    spec: ComparisonSpec
    date: str
    """ISO 8601, UTC"""
    seconds: float
    """spent on loading, measuring and judging"""
    reports: tuple[ModelReport, ...]
    captures: Mapping[str, Capture]
    """by model key"""
    decompositions: Mapping[str, Decomposition]
    test: HypothesisTest
    verdict: Verdict
    environment: Mapping[str, str]
    command: str | None = None
    """the command line that asked for the run; None if Python code did"""

    def report(self, role: Role) -> ModelReport:
        """Return the first model of a role; raise ValueError if no model has it."""
        return report_of(self.reports, role)


def report_of(reports: Sequence[ModelReport], role: Role) -> ModelReport:
    """Return the first report of a role; raise ValueError if no report has it."""
    check_one_of("role", role, [report.role for report in reports])
    return next(report for report in reports if report.role == role)
