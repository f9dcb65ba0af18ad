"""One job on one device: its data, its compiled step, and what is measured of its replicas."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training import ensemble, measure, optimize, tokens
from training.attention import attention_kernel, choose_attention
from training.design import Job
from training.ensemble import Weights
from training.layout import Layout
from training.measure import Capture
from training.prepare import Data
from training.state import Row, State


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


def _check_finite(job: Job, step: int, losses: list[float]) -> None:
    """Raise ValueError if a replica's held-out loss is no number: the rest would be wasted."""
    for replica, loss in zip(job.replicas, losses, strict=True):
        if not np.isfinite(loss):
            raise ValueError(
                f"job {job.name}: the loss of seed {replica.seed} at theta {replica.cell.theta:g} "
                f"is {loss} at step {step}: lower the rate."
            )
