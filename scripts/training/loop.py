"""The training loop of one job: resumable anywhere, measured and saved on the way."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from training.design import Job
from training.state import Clock, Progress, Row, load, load_base, save
from training.trainer import Trainer

COMPILING = 20
"""Steps at the start of a call that the speed does not count: kernels are compiled in them."""
QUEUED = 50
"""Steps after which the loop waits for the device, lest the clock run ahead of it."""


class Stopwatch:
    """Adds the seconds since its last look to the parts of a job's clock."""

    def __init__(self, clock: Clock, device: torch.device, step: int) -> None:
        self.clock, self.device, self.first = clock, device, step
        self.counted: int | None = None
        self.since = time.monotonic()
        clock.calls += 1

    def lap(self) -> float:
        """Wait for the device; return the seconds since the last look."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        before, self.since = self.since, time.monotonic()
        return self.since - before

    def trained(self, step: int) -> None:
        """Count the time up to `step` as training, or as starting if kernels were compiled."""
        if self.counted is None:
            self.clock.starting += self.lap()
            if step >= self.first + COMPILING:
                self.counted = step
            return
        self.clock.training += self.lap()
        self.clock.steps += step - self.counted
        self.counted = step

    def looks_at(self, step: int) -> bool:
        """Tell whether the compiling steps have just ended."""
        return self.counted is None and step == self.first + COMPILING


def run(
    trainer: Trainer,
    checkpoint: Path,
    base: Path | None = None,
    deadline: float = float("inf"),
    save_every: float = 180.0,
    report: Callable[[str], None] = print,
) -> Progress:
    """Train from the checkpoint, or from the start, to the end or until `deadline`.

    base: the base's checkpoint, of a job that has one. deadline: on time.monotonic's clock. The
    checkpoint is written every `save_every` seconds, on stopping and at the end; a later call goes
    on from it as if the training had never stopped.
    """
    job = trainer.job
    progress = begin(trainer, checkpoint, base)
    watch = Stopwatch(progress.clock, trainer.device, progress.state.step)
    train_loss = torch.full((len(job.replicas),), float("nan"), device=trainer.device)
    saved = time.monotonic()
    while True:
        step = progress.state.step
        measuring = step in job.points and step > progress.measured
        stopping = step == job.training.steps or time.monotonic() > deadline
        saving = stopping or time.monotonic() - saved > save_every
        if measuring or saving or watch.looks_at(step):
            watch.trained(step)
        if measuring:
            new = trainer.log(progress.state, train_loss)
            progress.rows += new
            progress.clock.measuring += watch.lap()
            report(progress_line(job, progress, new))
        if saving:
            save(progress, job.settings, checkpoint)
            progress.clock.saving += watch.lap()
            saved = time.monotonic()
        if stopping:
            return progress
        progress.state, train_loss = trainer.step(progress.state)
        if trainer.device.type == "cuda" and step % QUEUED == 0:
            torch.cuda.synchronize(trainer.device)


def begin(trainer: Trainer, checkpoint: Path, base: Path | None) -> Progress:
    """Read the checkpoint, else start from the base's end, else from drawn weights."""
    job, device = trainer.job, str(trainer.device)
    if checkpoint.exists():
        return load(checkpoint, device, job)
    if job.base is not None:
        assert base is not None
        return Progress(load_base(job, base, device))
    return Progress(trainer.start())


def tokens_per_second(job: Job, clock: Clock) -> float:
    """Return the trained tokens of all replicas per second of training; NaN before 20 steps."""
    processed = clock.steps * job.training.tokens_per_step * len(job.replicas)
    return processed / clock.training if clock.training else float("nan")


def progress_line(job: Job, progress: Progress, new: list[Row]) -> str:
    """Say how far a job is, how fast, and each replica's loss at its own context."""
    own = [row.value for row in new if row.measure == "loss" and row.length == job.context]
    speed = tokens_per_second(job, progress.clock) / 1e6
    losses = " ".join(f"{loss:.3f}" for loss in own)
    last = job.shape.blocks - 1
    gains = [
        r.value for r in new if r.measure == "log_gain" and r.block == last and not r.positions
    ]
    return (
        f"{job.name} step {progress.state.step} of {job.training.steps}: {speed:.2f}M tokens/s, "
        f"loss {losses}, log gain {np.mean(gains):.3f}"
    )
