"""The training loop of one job: all its replicas side by side, resumable, measured on the way."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training import ensemble, measure, optimize, tokens
from training.design import Job, check_same
from training.ensemble import Layout, Weights
from training.measure import Capture
from training.optimize import Moments
from training.prepare import Data

ATTENTIONS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
FASTER = 0.95
"""flash, which costs the CPU less per call, is kept unless another takes at most this share."""
SAME_ATTENTION = 0.02
"""Largest relative difference of two attention kernels in bfloat16, which rounds to 2^-8."""


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
    """What a training is at a step."""

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


class Trainer:
    """Holds the data and the compiled pieces on one device; the state is passed in and out."""

    def __init__(self, job: Job, data: Data, device: str, pieces: "Pieces | None" = None) -> None:
        self.job, self.data, self.device = job, data, torch.device(device)
        cuda = self.device.type == "cuda"
        self.compute = torch.bfloat16 if cuda else torch.float32
        self.pieces = pieces or Pieces(cuda)
        replicas, training = job.replicas, job.training
        self.train = torch.from_numpy(data.train.astype(np.int32)).to(self.device)
        self.thetas = torch.tensor([r.cell.theta for r in replicas], device=self.device)
        self.rates = torch.full((len(replicas),), training.rate, device=self.device)
        self.bos_every = torch.tensor([r.cell.bos_every for r in replicas], device=self.device)
        self.seeds = sorted({replica.seed for replica in replicas})
        rows = [self.seeds.index(replica.seed) for replica in replicas]
        self.seed_row = torch.tensor(rows, device=self.device)
        self.held_out = self._held_out(job.measuring.held_out_windows)
        self.rotation = ensemble.rope(self.thetas, training.window, job.shape.d_head)
        before = 0 if job.base is None else job.base.steps
        self.schedule = optimize.schedule(training.steps, training.warm_up, before)
        self.schedule = self.schedule.to(self.device)
        self.order = self._order(before)
        self.layouts: dict[tuple[int, ...], tuple[Layout, Tensor]] = {}
        self.attention = choose_attention(job, self.device) if cuda else "default"

    def _order(self, before: int) -> Tensor:
        """Return the window numbers [step, seed, per_step]."""
        training = self.job.training
        available = tokens.windows_in(self.train, training.window)
        if available < training.windows_per_step:
            raise ValueError(
                f"a step reads {training.windows_per_step} windows of {training.window} tokens, "
                f"the text has {available}."
            )
        steps = before + training.steps
        per_seed = [
            tokens.order(seed, available, training.windows_per_step, steps)[before:]
            for seed in self.seeds
        ]
        return torch.from_numpy(np.stack(per_seed, axis=1)).to(self.device)

    def _held_out(self, count: int) -> Tensor:
        """Return windows evenly spread over the held-out packages."""
        window, stream = self.job.training.window, self.data.held_out
        available = tokens.windows_in(stream, window)
        if available < count:
            raise ValueError(
                f"{count} held-out windows are wanted, the stream has {available}: hold out more "
                "packages."
            )
        chosen = torch.linspace(0, available - 1, count).long()
        taken = tokens.take_windows(torch.from_numpy(stream.astype(np.int32)), chosen, window)
        return taken.to(self.device)

    def layout(self, contexts: tuple[int, ...]) -> tuple[Layout, Tensor]:
        """Return how windows of these contexts lie, and positions on the device."""
        if contexts not in self.layouts:
            layout = Layout.of(contexts, self.job.training.window)
            self.layouts[contexts] = layout, layout.positions.to(self.device)
        return self.layouts[contexts]

    def start(self) -> State:
        """Return the state before the first step; replicas of one seed have the same weights."""
        first = {seed: ensemble.initial(self.job.shape, seed) for seed in self.seeds}
        stacked = ensemble.stack([first[replica.seed] for replica in self.job.replicas])
        weights = Weights(*(tensor.to(self.device) for tensor in stacked))
        return State(0, weights, optimize.no_moments(weights))

    def batch(self, step: int) -> tuple[Tensor, Tensor, Layout, Tensor]:
        """Return inputs and targets [replica, token]; cells of one seed read the same text."""
        layout, positions = self.layout(self.job.contexts_of(step))
        windows = tokens.take_windows(self.train, self.order[step], self.job.training.window)
        inputs, targets = tokens.with_bos(windows[self.seed_row], positions, self.bos_every)
        return inputs, targets, layout, positions

    def step(self, state: State) -> tuple[State, Tensor]:
        """Take one optimiser step, weights changed in place; the loss [replica] before it."""
        inputs, targets, layout, positions = self.batch(state.step)
        leaves = Weights(*(tensor.requires_grad_() for tensor in state.weights))
        with attention_kernel(self.attention):
            losses = self._losses(leaves, inputs, targets, layout, positions)
            per_replica = losses.mean(1)
            gradients = list(torch.autograd.grad(per_replica.sum(), list(leaves)))
        for tensor in leaves:
            tensor.requires_grad_(False)
        now = self.schedule[state.step]
        self.pieces.update(state.weights, gradients, state.moments, self.rates, now)
        return State(state.step + 1, state.weights, state.moments), per_replica.detach()

    def _losses(
        self, weights: Weights, inputs: Tensor, targets: Tensor, layout: Layout, positions: Tensor
    ) -> Tensor:
        return ensemble.losses(
            weights,
            inputs,
            targets,
            layout,
            positions,
            self.rotation,
            self.job.shape,
            self.compute,
            self.pieces.forward,
        )

    def held_out_loss(self, weights: Weights, length: int) -> Tensor:
        """Average the loss [replica] over held-out windows cut into pieces of `length`, BOS first
        in each: the same targets at every length.

        With gradients on, though none is taken: so the training's compiled pieces serve here too.
        """
        per_step = self.job.training.windows_per_step
        layout, positions = self.layout((length,) * per_step)
        leaves = Weights(*(tensor.requires_grad_() for tensor in weights))
        total = torch.zeros(len(self.thetas), device=self.device)
        for start in range(0, len(self.held_out), per_step):
            windows = self.held_out[start : start + per_step]
            inputs, targets = tokens.with_bos(windows, positions)
            own = [ids.expand(len(self.thetas), -1).contiguous() for ids in (inputs, targets)]
            with attention_kernel(self.attention):
                total += self._losses(leaves, *own, layout, positions).detach().sum(1)
        for tensor in weights:
            tensor.requires_grad_(False)
        return total / (len(self.held_out) * self.job.training.window)

    def log(self, state: State, train_loss: Tensor) -> list[Row]:
        """Measure every replica, on weights as a checkpoint holds them."""
        job, kept = self.job, measure.rounded(state.weights)
        found: list[list[measure.Value]] = [[] for _ in job.replicas]
        for length in job.measuring.lengths:
            losses = self.held_out_loss(kept, length).tolist()
            _check_finite(job, state.step, losses)
            for values, loss in zip(found, losses, strict=True):
                values.append(measure.Value("loss", loss, length=length))
        for values, loss, sigma in zip(
            found, train_loss.tolist(), measure.sigma_max(kept).tolist(), strict=True
        ):
            values += [measure.Value("train_loss", loss), measure.Value("sigma_max_w_u", sigma)]
        prompts = tuple(prompt[: job.measuring.prompt_tokens] for prompt in self.data.prompts)
        captured = measure.captures(kept, prompts, self.thetas, job.shape)
        at_end = state.step == job.training.steps and job.measuring.long_windows
        whole = [self._long_capture(kept, n) for n in range(len(found))] if at_end else []
        with ThreadPoolExecutor(len(found)) as pool:  # numpy: the GPU would wait for one thread
            for own, more in zip(found, pool.map(_values, captured), strict=True):
                own += more
            for own, more in zip(found, pool.map(_long_values, whole), strict=False):
                own += more
        return [
            Row(number, state.step, *value) for number, own in enumerate(found) for value in own
        ]

    def _long_capture(self, weights: Weights, number: int) -> Capture:
        """Capture one replica on whole held-out windows, BOS first."""
        own = Weights(*(tensor[number : number + 1] for tensor in weights))
        ids = self.held_out[: self.job.measuring.long_windows, :-1].clone()
        ids[:, 0] = tokens.BOS_ID
        theta = self.thetas[number : number + 1]
        everything = torch.ones_like(ids, dtype=torch.bool)
        return measure.capture(own, ids, everything, theta, self.job.shape, sinks=False)


def _values(captured: Capture) -> list[measure.Value]:
    return list(measure.values(captured))


def _long_values(captured: Capture) -> list[measure.Value]:
    return list(measure.long_values(captured))


class Pieces:
    """The functions of a step; on a GPU compiled, once for all jobs of a process."""

    def __init__(self, compiled: bool) -> None:
        self.forward = ensemble.Pieces()
        self.update: Callable[..., Tensor] = optimize.update_
        if compiled:
            import torch._dynamo

            torch._dynamo.config.cache_size_limit = 64  # shapes, with and without gradients
            self.forward = ensemble.Pieces.compiled()
            self.update = torch.compile(optimize.update_, dynamic=False)


def attention_kernel(name: str) -> Any:
    """Return a context in which attention runs on one kernel; torch's own choice for default."""
    return sdpa_kernel(ATTENTIONS[name]) if name in ATTENTIONS else nullcontext()


def choose_attention(job: Job, device: torch.device) -> str:
    """Time the attention kernels on a job's shapes; the fastest that agrees with flash."""
    shape, context = job.shape, job.context
    sequences = len(job.replicas) * job.training.tokens_per_step // context
    generator = torch.Generator(device).manual_seed(0)
    size = (sequences, context, shape.heads, shape.d_head)
    drawn = [
        torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16)
        for _ in range(4)
    ]
    parts = [part.transpose(1, 2).requires_grad_() for part in drawn[:3]]
    results: dict[str, list[Tensor]] = {}
    seconds: dict[str, float] = {}
    for name in ATTENTIONS:
        try:
            with attention_kernel(name):
                for call in range(6):
                    if call == 2:
                        torch.cuda.synchronize(device)
                        began = time.perf_counter()
                    mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
                    gradients = torch.autograd.grad(mixed, parts, drawn[3].transpose(1, 2))
            torch.cuda.synchronize(device)
            seconds[name] = time.perf_counter() - began
            results[name] = [mixed.detach(), *gradients]
        except RuntimeError as error:  # a kernel that this card or torch does not have
            print(f"attention {name}: {str(error).splitlines()[0]}", flush=True)
    for name in [name for name in seconds if name != "flash" and "flash" in results]:
        pairs = zip(results[name], results["flash"], strict=True)
        worst = max(float((one - two).norm() / two.norm()) for one, two in pairs)
        if not worst < SAME_ATTENTION:
            print(f"attention {name} differs from flash by {worst:.3f}: not used", flush=True)
            del seconds[name]
    print({name: f"{value / 4 * 1e3:.2f} ms" for name, value in seconds.items()}, flush=True)
    if "flash" not in seconds:
        return min(seconds, key=lambda name: seconds[name]) if seconds else "default"
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] <= FASTER * seconds["flash"] else "flash"


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
    job, device = trainer.job, str(trainer.device)
    if checkpoint.exists():
        progress = load(checkpoint, device, job)
    elif job.base is not None:
        assert base is not None
        progress = Progress(load_base(job, base, device))
    else:
        progress = Progress(trainer.start())
    clock, points = progress.clock, set(job.points)
    clock.calls += 1
    train_loss = torch.full((len(job.replicas),), float("nan"), device=trainer.device)
    first_step, since, saved, counted = progress.state.step, time.monotonic(), time.monotonic(), -1
    last_row = progress.rows[-1].step if progress.rows else -1
    while True:
        step = progress.state.step
        measured = step in points and step > last_row
        if counted < 0 and step >= first_step + 20:
            counted, spent, since = step, *_lap(trainer, since)
            clock.starting += spent
        stopping = step == job.training.steps or time.monotonic() > deadline
        if measured or stopping or time.monotonic() - saved > save_every:
            spent, since = _lap(trainer, since)
            if counted >= 0:
                clock.training += spent
                clock.steps += step - counted
                counted = step
            else:
                clock.starting += spent
            if measured:
                new = trainer.log(progress.state, train_loss)
                progress.rows += new
                last_row = step
                spent, since = _lap(trainer, since)
                clock.measuring += spent
                report(_line(job, progress, new))
            if stopping or time.monotonic() - saved > save_every:
                save(progress, job.settings, checkpoint)
                spent, since = _lap(trainer, since)
                clock.saving += spent
                saved = since
            if stopping:
                return progress
        progress.state, train_loss = trainer.step(progress.state)
        if trainer.device.type == "cuda" and step % 50 == 0:
            torch.cuda.synchronize()  # steps are queued: the clock must not run ahead of them


def _lap(trainer: Trainer, since: float) -> tuple[float, float]:
    """Wait for the device; the seconds since then, and now."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    now = time.monotonic()
    return now - since, now


def _check_finite(job: Job, step: int, losses: list[float]) -> None:
    """Raise ValueError if a replica's held-out loss is no number: the rest would be wasted."""
    for replica, loss in zip(job.replicas, losses, strict=True):
        if not np.isfinite(loss):
            raise ValueError(
                f"job {job.name}: the loss of seed {replica.seed} at theta {replica.cell.theta:g} "
                f"is {loss} at step {step}: lower the rate."
            )


def tokens_per_second(job: Job, clock: Clock) -> float:
    """Return the trained tokens of all replicas per second of training; NaN before 20 steps."""
    processed = clock.steps * job.training.tokens_per_step * len(job.replicas)
    return processed / clock.training if clock.training else float("nan")


def _line(job: Job, progress: Progress, new: list[Row]) -> str:
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
