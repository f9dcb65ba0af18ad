"""Save a training at a step, and read it back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from training.design import Job
from training.ensemble import Weights
from training.optimize import Moments
from training.settings import check_same


class Row(NamedTuple):
    """One number of one replica at one step."""

    replica: int
    step: int
    measure: str
    value: float
    block: int
    positions: str
    length: int


class State(NamedTuple):
    """Hold a training at one step."""

    step: int
    weights: Weights
    moments: Moments


@dataclass
class Clock:
    """Seconds spent, over all calls of a job."""

    training: float = 0.0
    """without the first steps of a call, during which kernels are compiled"""
    steps: int = 0
    """steps that `training` counts"""
    starting: float = 0.0
    measuring: float = 0.0
    saving: float = 0.0
    calls: int = 0


@dataclass
class Progress:
    """A job's state, what was measured so far, and how long it took."""

    state: State
    rows: list[Row] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    @property
    def measured(self) -> int:
        """The last step that was measured; -1 before the first."""
        return self.rows[-1].step if self.rows else -1


def save(progress: Progress, settings: dict[str, Any], path: Path) -> None:
    """Write a state whole or not at all: beside, then renamed."""
    state = progress.state
    content: dict[str, Any] = {"step": state.step, "settings": settings}
    content |= {"weights": list(state.weights)}
    content |= {"first": list(state.moments.first), "second": list(state.moments.second)}
    content |= {"rows": [tuple(row) for row in progress.rows], "clock": vars(progress.clock)}
    beside = path.with_suffix(".partial")
    torch.save(content, beside)
    beside.replace(path)


def check_settings(path: Path, job: Job) -> None:
    """Raise ValueError, showing the difference, if a state was begun with other settings."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    check_same(job.name, content["settings"], job.settings)


def load(path: Path, device: str, job: Job) -> Progress:
    """Read a state. ValueError, showing the difference, if it was begun with other settings."""
    content = torch.load(path, map_location=device, weights_only=True)
    check_same(job.name, content["settings"], job.settings)
    weights, first, second = (Weights(*content[name]) for name in ("weights", "first", "second"))
    state = State(content["step"], weights, Moments(first, second))
    return Progress(state, [Row(*row) for row in content["rows"]], Clock(**content["clock"]))


def load_base(job: Job, path: Path, device: str) -> State:
    """Take a job's start from its base's end: the replicas that it goes on from, moments too."""
    assert job.base is not None
    content = torch.load(path, map_location=device, weights_only=True)
    if content["step"] != job.base.steps:
        raise ValueError(
            f"job {job.name} goes on from the end of {job.base.job}, which stands at step "
            f"{content['step']} of {job.base.steps}: train it first."
        )
    listed = content["settings"]["replicas"]
    there = [(r["cell"]["context"], r["cell"]["theta"], r["seed"]) for r in listed]
    wanted = [(r.cell.context, r.cell.theta, r.seed) for r in job.base.replicas]
    index = torch.tensor([there.index(one) for one in wanted], device=device)
    weights, first, second = (
        Weights(*(tensor[index] for tensor in content[name]))
        for name in ("weights", "first", "second")
    )
    return State(0, weights, Moments(first, second))
