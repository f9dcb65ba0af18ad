"""The training loop: all replicas of one context length, resumable, measured along the way."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training import ensemble, measure, optimize, tokens
from training.ensemble import Shape, Weights
from training.optimize import Moments

Row = dict[str, int | float]


@dataclass(frozen=True)
class Cell:
    """What differs between the twins."""

    context: int
    theta: float
    bos_every: int = 1
    """BOS begins every k-th sequence: 1, or 8 in the control"""

    @property
    def name(self) -> str:
        control = "" if self.bos_every == 1 else f"-bos{self.bos_every}"
        return f"context{self.context}-theta{self.theta / 1000:g}k{control}"


@dataclass(frozen=True)
class Replica:
    """One training run: a cell and a seed, and the peak learning rate."""

    cell: Cell
    seed: int
    rate: float


@dataclass(frozen=True)
class Plan:
    """All that fixes a training, but for the machine."""

    replicas: tuple[Replica, ...]
    steps: int
    warm_up: int = 200
    windows_per_step: int = 8
    held_out_windows: int = 32
    log_steps: tuple[int, ...] = ()
    shape: Shape = field(default_factory=Shape)

    def __post_init__(self) -> None:
        if len({replica.cell.context for replica in self.replicas}) != 1:
            raise ValueError("the replicas of one plan share one context; make a plan for each.")

    @property
    def context(self) -> int:
        return self.replicas[0].cell.context

    @property
    def tokens_per_step(self) -> int:
        return self.windows_per_step * tokens.WINDOW


def log_steps(steps: int) -> tuple[int, ...]:
    """Sixteen points: doubling up to an eighth of the run, then even, and the end."""
    early = [0, *(round(steps / 2**power) for power in range(8, 2, -1))]
    late = [round(steps * eighths / 8) for eighths in (1.5, 2, 3, 4, 5, 6, 6.4, 7.2, 8)]
    return (*early, *late)


class State(NamedTuple):
    """What a training is at a step."""

    step: int
    weights: Weights
    moments: Moments


class Trainer:
    """Holds the data and the compiled pieces on one device; the state is passed in and out."""

    def __init__(
        self, plan: Plan, train: np.ndarray, held_out: np.ndarray, device: str, compute: torch.dtype
    ) -> None:
        self.plan, self.compute, self.device = plan, compute, torch.device(device)
        self.train = torch.from_numpy(train.astype(np.int32)).to(self.device)
        self.thetas = torch.tensor([r.cell.theta for r in plan.replicas], device=self.device)
        self.rates = torch.tensor([r.rate for r in plan.replicas], device=self.device)
        self.bos_every = torch.tensor([r.cell.bos_every for r in plan.replicas], device=self.device)
        self.seeds = sorted({replica.seed for replica in plan.replicas})
        rows = [self.seeds.index(replica.seed) for replica in plan.replicas]
        self.seed_row = torch.tensor(rows, device=self.device)
        self.held_out = self._held_out(held_out)
        self.rotation = ensemble.rope(self.thetas, plan.context, plan.shape.d_head)
        compiled = self.device.type == "cuda"
        self.block = _maybe_compile(ensemble.block_forward, compiled)
        self.losses = _maybe_compile(ensemble.token_losses, compiled)

    def _held_out(self, stream: np.ndarray) -> Tensor:
        """Windows evenly spread over the held-out packages."""
        available = tokens.windows_in(stream)
        if available < self.plan.held_out_windows:
            raise ValueError(
                f"{self.plan.held_out_windows} held-out windows are wanted, the stream has "
                f"{available}: hold out more packages."
            )
        chosen = torch.linspace(0, available - 1, self.plan.held_out_windows).long()
        return tokens.take_windows(torch.from_numpy(stream.astype(np.int32)), chosen).to(
            self.device
        )

    def start(self) -> State:
        """Before the first step; replicas of one seed have the same weights."""
        first = {seed: ensemble.initial(self.plan.shape, seed) for seed in self.seeds}
        stacked = ensemble.stack([first[replica.seed] for replica in self.plan.replicas])
        weights = Weights(*(tensor.to(self.device) for tensor in stacked))
        return State(0, weights, optimize.no_moments(weights))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [replica, sequence, context]; cells of one seed read the same text."""
        available = tokens.windows_in(self.train)
        per_step = self.plan.windows_per_step
        chosen = [tokens.order(seed, available, per_step, step) for seed in self.seeds]
        index = torch.from_numpy(np.stack(chosen)).to(self.device)
        windows = tokens.take_windows(self.train, index)[self.seed_row]
        return tokens.sequences(windows, self.plan.context, self.bos_every)

    def step(self, state: State) -> tuple[State, Tensor]:
        """One optimiser step, weights changed in place; the training loss [replica] before it."""
        inputs, targets = self.batch(state.step)
        leaves = Weights(*(tensor.requires_grad_() for tensor in state.weights))
        x = ensemble.embed(leaves, inputs)
        for block in ensemble.blocks(leaves, self.compute):
            x = self.block(x, block, self.rotation, self.plan.shape)
        losses = self.losses(x, leaves, targets, self.plan.shape, self.compute)
        per_replica = losses.flatten(1).mean(1)
        gradients = list(torch.autograd.grad(per_replica.sum(), list(leaves)))
        for tensor in leaves:
            tensor.requires_grad_(False)
        optimize.clip_(gradients)
        share = optimize.learning_rate(state.step, self.plan.steps, 1.0, self.plan.warm_up)
        optimize.adamw_(state.weights, gradients, state.moments, self.rates * share, state.step)
        return State(state.step + 1, state.weights, state.moments), per_replica.detach()

    def held_out_losses(self, weights: Weights) -> dict[int, Tensor]:
        """Loss [replica] by length, on the weights as a checkpoint holds them."""
        kept = measure.rounded(weights)
        return {
            length: measure.held_out_loss(
                kept, self.held_out, length, self.thetas, self.plan.shape, self.compute
            )
            for length in tokens.LENGTHS
        }

    def log(
        self, state: State, train_loss: Tensor, prompts: tuple[list[int], ...]
    ) -> tuple[list[Row], list[Row]]:
        """Rows of the training table and of the blocks' table, one (eight) per replica."""
        kept = measure.rounded(state.weights)
        by_length = {n: loss.tolist() for n, loss in self.held_out_losses(state.weights).items()}
        sigma = measure.sigma_max(kept).tolist()
        found = measure.captures(kept, prompts, self.thetas, self.plan.shape)
        table: list[Row] = []
        per_block: list[Row] = []
        for number, (replica, capture) in enumerate(zip(self.plan.replicas, found, strict=True)):
            key = self._key(replica, state.step)
            residual = measure.residual(capture)
            table.append(
                key
                | {"train_loss": float(train_loss[number])}
                | {f"loss_{n}": losses[number] for n, losses in by_length.items()}
                | {
                    "notebook_last_gain": residual.notebook_last_gain,
                    "sigma_max_w_u": sigma[number],
                    "massive_tokens": residual.massive_tokens,
                }
            )
            per_block += [key | row for row in _block_rows(residual)]
        return table, per_block

    def _key(self, replica: Replica, step: int) -> Row:
        share = optimize.learning_rate(
            min(step, self.plan.steps - 1), self.plan.steps, 1.0, self.plan.warm_up
        )
        cell = asdict(replica.cell)
        done = {"step": step, "tokens": step * self.plan.tokens_per_step}
        return cell | {"seed": replica.seed} | done | {"learning_rate": replica.rate * share}


def _block_rows(residual: measure.Residual) -> list[Row]:
    columns = ("log_gain", "attention", "mlp", "bos_log_gain", "log_norm_out")
    return [
        {"block": number} | {name: float(getattr(residual, name)[number]) for name in columns}
        for number in range(len(residual.log_gain))
    ]


def _maybe_compile(function: Callable[..., Tensor], compiled: bool) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=False) if compiled else function


def save(state: State, logged: tuple[list[Row], list[Row]], path: Path) -> None:
    """Whole or not at all: written beside and renamed."""
    beside = path.with_suffix(".partial")
    content: dict[str, Any] = {"step": state.step, "weights": list(state.weights)}
    content |= {"first": list(state.moments.first), "second": list(state.moments.second)}
    content |= {"table": logged[0], "blocks": logged[1]}
    torch.save(content, beside)
    beside.replace(path)


def load(path: Path, device: str) -> tuple[State, tuple[list[Row], list[Row]]]:
    content = torch.load(path, map_location=device, weights_only=True)
    weights, first, second = (Weights(*content[name]) for name in ("weights", "first", "second"))
    state = State(content["step"], weights, Moments(first, second))
    return state, (content["table"], content["blocks"])


def run(
    trainer: Trainer,
    prompts: tuple[list[int], ...],
    checkpoint: Path,
    stop_after: float = float("inf"),
    report: Callable[[str], None] = print,
) -> tuple[State, tuple[list[Row], list[Row]]]:
    """Train from the checkpoint, or from the start, to the end or until `stop_after` seconds.

    The checkpoint is written on stopping; whoever calls again goes on as if never stopped.
    """
    began = time.monotonic()
    plan = trainer.plan
    if checkpoint.exists():
        state, logged = load(checkpoint, str(trainer.device))
    else:
        state, logged = trainer.start(), ([], [])
    wanted = set(plan.log_steps)
    train_loss = torch.full((len(plan.replicas),), float("nan"))
    first_step = state.step
    while True:
        done = {row["step"] for row in logged[0]}
        if state.step in wanted and state.step not in done:
            for rows, new in zip(logged, trainer.log(state, train_loss, prompts), strict=True):
                rows += new
            report(_line(state, logged[0][-len(plan.replicas) :], began, first_step, plan))
        if state.step == plan.steps or time.monotonic() - began > stop_after:
            break
        state, train_loss = trainer.step(state)
        if trainer.device.type == "cuda" and state.step % 50 == 0:
            torch.cuda.synchronize()  # steps are queued: the clock must not run ahead of them
    save(state, logged, checkpoint)
    return state, logged


def _line(state: State, rows: list[Row], began: float, first_step: int, plan: Plan) -> str:
    seconds = time.monotonic() - began
    processed = (state.step - first_step) * plan.tokens_per_step * len(plan.replicas)
    own = [f"{row[f'loss_{plan.context}']:.3f}" for row in rows]
    return f"{seconds:6.0f} s  step {state.step}  {processed / seconds / 1e6:.2f}M tok/s  {own}"
