"""The twins' trainer: arithmetic against Hugging Face and torch, sequences, the loop."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from training import ensemble, export, measure, optimize, tokens, train
from training.ensemble import Shape, Weights
from training.train import Cell, Plan, Replica, Trainer

TINY = Shape(blocks=2, d_model=32, heads=2, d_ff=48, vocabulary=64)
THETAS = torch.tensor([1e4, 5e5])
PROMPTS = ([0, 5, 9, 11, 3, 7], [0, 2, 4, 8], [0, 1, 2, 3, 4, 5])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose tenfold to threads that wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loud(shape: Shape, seed: int) -> Weights:
    """Weights large enough that every part of the model matters to the logits."""
    first = ensemble.initial(shape, seed)
    return Weights(*(w * 8 if w.ndim > 1 and (w != 1).any() else w for w in first))


def last_stream(weights: Weights, ids: torch.Tensor, thetas: torch.Tensor, shape: Shape):
    *_, (_, _, _, y) = ensemble.streams(weights, ids.expand(len(thetas), -1, -1), thetas, shape)
    return y


def hugging_face(folder: Path, weights: Weights, context: int, theta: float) -> LlamaForCausalLM:
    export.write_model(folder, weights, TINY, context, theta)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    exact = {name: tensor.contiguous() for name, tensor in export.state_dict(weights, TINY).items()}
    model.load_state_dict(exact)
    return model


def test_each_replica_is_hugging_faces_llama(tmp_path: Path) -> None:
    weights = loud(TINY, 3)
    stacked = ensemble.stack([weights, weights])
    ids = torch.randint(0, 64, (2, 500), generator=torch.Generator().manual_seed(0))
    stream = last_stream(stacked, ids, THETAS, TINY)
    ours = ensemble.logits(stream, stacked, TINY, torch.float32)
    theirs = []
    for context, theta in ((512, 1e4), (4096, 5e5)):
        model = hugging_face(tmp_path / str(context), weights, context, theta)
        with torch.no_grad():
            theirs.append(model(ids).logits)
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-5, atol=1e-5)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-2  # theta matters to these weights


def test_the_training_forward_is_the_measured_one() -> None:
    stacked = ensemble.stack([loud(TINY, 3)])
    ids = torch.arange(40)[None, None] % 64
    x, rotation = ensemble.embed(stacked, ids), ensemble.rope(THETAS[:1], 40, TINY.d_head)
    for block in ensemble.blocks(stacked, torch.float32):
        x = ensemble.block_forward(x, block, rotation, TINY)
    torch.testing.assert_close(x, last_stream(stacked, ids, THETAS[:1], TINY))


def test_held_out_loss_is_hugging_faces_on_the_same_pieces(tmp_path: Path) -> None:
    weights = loud(TINY, 1)
    generator = torch.Generator().manual_seed(1)
    windows = torch.randint(2, 64, (1, tokens.WINDOW + 1), generator=generator)
    found = measure.held_out_loss(
        ensemble.stack([weights]), windows, 512, THETAS[:1], TINY, torch.float32
    )
    pieces = windows[0, :-1].view(8, 512).clone()
    pieces[:, 0] = tokens.BOS_ID
    with torch.no_grad():
        scores = hugging_face(tmp_path, weights, 512, 1e4)(pieces).logits
    wanted = F.cross_entropy(scores.flatten(0, 1), windows[0, 1:])
    torch.testing.assert_close(found[0], wanted, rtol=1e-5, atol=1e-5)


def test_export_round_trip(tmp_path: Path) -> None:
    weights = loud(TINY, 2)
    for back, there in zip(
        export.from_state_dict(export.state_dict(weights, TINY), TINY), weights, strict=True
    ):
        assert torch.equal(back, there)
    export.write_model(tmp_path, weights, TINY, 512, 1e4)
    stored = export.load_weights(tmp_path / "model.safetensors", TINY)
    for back, there in zip(stored, measure.rounded(weights), strict=True):
        assert torch.equal(back, there)


# --- optimiser -----------------------------------------------------------------------------------


def test_adamw_and_clipping_are_torchs_per_replica() -> None:
    rates = [1e-2, 3e-3]
    singles = [ensemble.initial(TINY, seed) for seed in range(2)]
    stacked = ensemble.stack(singles)
    moments = optimize.no_moments(stacked)
    generator = torch.Generator().manual_seed(5)
    optimizers = []
    for single, rate in zip(singles, rates, strict=True):
        named = single._asdict()
        decayed = [w for name, w in named.items() if name not in optimize.NOT_DECAYED]
        norms = [w for name, w in named.items() if name in optimize.NOT_DECAYED]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
        optimizers.append(torch.optim.AdamW(groups, lr=rate, betas=optimize.BETAS))
    for step in range(3):
        gradients = [torch.randn(w.shape, generator=generator) for w in stacked]
        for replica, (single, optimizer) in enumerate(zip(singles, optimizers, strict=True)):
            for weight, gradient in zip(single, gradients, strict=True):
                weight.grad = gradient[replica].clone()
            torch.nn.utils.clip_grad_norm_(list(single), optimize.CLIP)
            optimizer.step()
        optimize.clip_(gradients)
        optimize.adamw_(stacked, gradients, moments, torch.tensor(rates), step)
    for ours, theirs in zip(stacked, ensemble.stack(singles), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_clipping_leaves_small_gradients_of_other_replicas_alone() -> None:
    gradients = [torch.tensor([[3.0, 4.0], [0.3, 0.4]])]
    norms = optimize.clip_(gradients)
    torch.testing.assert_close(norms, torch.tensor([5.0, 0.5]))
    torch.testing.assert_close(gradients[0], torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


def test_learning_rate_is_constant_between_warm_up_and_the_last_fifth() -> None:
    rates = [optimize.learning_rate(step, 1000, 2.0, 100) for step in range(1000)]
    assert set(rates[99:801]) == {2.0}
    assert rates[0] == pytest.approx(0.02)
    assert rates[900] == pytest.approx(1.0)
    assert 0 < rates[-1] < 0.02


# --- sequences and order -------------------------------------------------------------------------


def test_every_context_predicts_the_same_tokens() -> None:
    windows = torch.arange(2, 2 + 3 * (tokens.WINDOW + 1)).view(3, -1)
    short_in, short_out = tokens.sequences(windows, 512)
    long_in, long_out = tokens.sequences(windows, 4096)
    assert torch.equal(short_out.flatten(), long_out.flatten())
    assert torch.equal(short_in[:, 1:-1], short_out[:, :-2])
    assert (short_in == tokens.BOS_ID).sum() == 24
    assert (long_in == tokens.BOS_ID).sum() == 3


def test_control_has_a_bos_in_every_eighth_sequence_only() -> None:
    windows = torch.arange(2, 2 + 2 * 2 * (tokens.WINDOW + 1)).view(2, 2, -1)
    inputs, _ = tokens.sequences(windows, 512, torch.tensor([1, 8]))
    first = inputs[..., 0] == tokens.BOS_ID
    assert first[0].all()
    assert first[1].nonzero().flatten().tolist() == [0, 8]
    assert (inputs[..., 1:] != tokens.BOS_ID).all()
    untouched = windows[1, :, :-1].reshape(16, 512)
    assert torch.equal(inputs[1, 1], untouched[1])


def test_an_epoch_reads_every_window_once_and_the_next_in_another_order() -> None:
    epochs = [
        np.concatenate([tokens.order(0, 12, 4, step) for step in steps])
        for steps in ((0, 1, 2), (3, 4, 5))
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert (epochs[0] != epochs[1]).any()
    assert (tokens.order(1, 12, 4, 0) != tokens.order(0, 12, 4, 0)).any()


# --- the loop ------------------------------------------------------------------------------------


def tiny_trainer(seeds: tuple[int, ...] = (0,)) -> Trainer:
    cells = (Cell(512, 1e4), Cell(512, 5e5, 8))
    replicas = tuple(Replica(cell, seed, 1e-2) for cell in cells for seed in seeds)
    shape = Shape(blocks=1, d_model=16, heads=1, d_ff=16, vocabulary=64)
    plan = Plan(replicas, 20, 5, 1, held_out_windows=1, log_steps=(0, 20), shape=shape)
    pattern = np.tile(np.arange(2, 50, dtype=np.uint16), 900)  # learnable in a few steps
    return Trainer(plan, pattern, pattern[::-1].copy(), "cpu", torch.float32)


def test_cells_of_a_seed_share_weights_and_text() -> None:
    trainer = tiny_trainer(seeds=(0, 1))
    state = trainer.start()
    targets = torch.stack([trainer.batch(step)[1] for step in range(8)], dim=1)
    for tensor in (*state.weights, targets):
        assert torch.equal(tensor[:2], tensor[2:])
    assert not torch.equal(targets[0], targets[1])
    assert not torch.equal(state.weights.embed[0], state.weights.embed[1])


def test_replicas_of_one_plan_share_their_context() -> None:
    mixed = (Replica(Cell(512, 1e4), 0, 1e-3), Replica(Cell(4096, 1e4), 0, 1e-3))
    with pytest.raises(ValueError, match="one context"):
        Plan(mixed, 1)


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, logged = train.run(tiny_trainer(), PROMPTS, tmp_path / "whole.pt", report=lambda _: None)
    clock = itertools.count()
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))  # a second at each look
    part = tmp_path / "part.pt"
    stopped, _ = train.run(tiny_trainer(), PROMPTS, part, 8.5, report=lambda _: None)
    assert 0 < stopped.step < 20
    resumed, again = train.run(tiny_trainer(), PROMPTS, part, report=lambda _: None)
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        assert torch.equal(one, other)
    assert logged[0][2:] == again[0][2:]
    assert [row["step"] for row in again[0]] == [0, 0, 20, 20]
    assert len(again[1]) == 4
    for before, after in zip(logged[0][:2], logged[0][2:], strict=True):
        assert after["train_loss"] < 0.9 * before["loss_512"]


def test_measured_gains_are_those_of_the_streams() -> None:
    stacked = ensemble.stack([loud(TINY, 4)])
    capture = measure.captures(stacked, PROMPTS, THETAS[:1], TINY)[0]
    found = measure.residual(capture)
    by_hand, first = [], []
    for prompt in PROMPTS[:-1]:
        ids = torch.tensor(prompt)[None, None]
        *_, (x, _, _, y) = ensemble.streams(stacked, ids, THETAS[:1], TINY)
        logs = (y.norm(dim=-1) / x.norm(dim=-1)).log()[0, 0]
        by_hand.append(float(logs[1:].mean()))
        first.append(float(logs[0]))
    assert found.log_gain[-1] == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert found.bos_log_gain[-1] == pytest.approx(first[0], rel=1e-5)
    assert found.attention + found.mlp == pytest.approx(found.log_gain, abs=1e-5)
