"""The twins' trainer: arithmetic against Hugging Face and torch, sequences, the loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from training import ensemble, export, measure, optimize, tokens
from training.ensemble import Pieces, Shape, Stream, Weights
from training.layout import Layout
from transformers import LlamaForCausalLM

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


def last_stream(weights: Weights, ids: torch.Tensor, thetas: torch.Tensor) -> torch.Tensor:
    *_, stream = ensemble.streams(weights, ids.expand(len(thetas), -1, -1), thetas, TINY)
    return stream.y


def hugging_face(folder: Path, weights: Weights, context: int, theta: float) -> LlamaForCausalLM:
    export.write_model(folder, weights, TINY, context, theta)
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    exact = {name: tensor.contiguous() for name, tensor in export.state_dict(weights, TINY).items()}
    model.load_state_dict(exact)
    return model


def flat_losses(
    weights: Weights,
    windows: torch.Tensor,
    contexts: tuple[int, ...],
    thetas: torch.Tensor,
    pieces: Pieces | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Losses [replica, token] of windows [window, token + 1], and the gradients of their mean."""
    layout = Layout.of(contexts, windows.shape[-1] - 1)
    batch = windows.expand(len(thetas), -1, -1)
    inputs, targets = tokens.with_bos(batch, layout.positions)
    rotation = ensemble.rope(thetas, windows.shape[-1] - 1, TINY.d_head)
    leaves = Weights(*(tensor.clone().requires_grad_() for tensor in weights))
    place = (layout, layout.positions, rotation, TINY, torch.float32)
    losses = ensemble.losses(leaves, inputs, targets, *place, pieces)
    gradients = torch.autograd.grad(losses.mean(1).sum(), list(leaves))
    return losses.detach(), list(gradients)


def test_each_replica_is_hugging_faces_llama(tmp_path: Path) -> None:
    weights = loud(TINY, 3)
    stacked = ensemble.stack([weights, weights])
    ids = torch.randint(0, 64, (2, 500), generator=torch.Generator().manual_seed(0))
    theirs = []
    for context, theta in ((512, 1e4), (4096, 5e5)):
        model = hugging_face(tmp_path / str(context), weights, context, theta)
        with torch.no_grad():
            outputs = model(ids, output_hidden_states=True, output_attentions=True)
            theirs.append(outputs.hidden_states[1])
            first = outputs.attentions[0][..., 0]
    stream, *_ = ensemble.streams(stacked, ids.expand(2, -1, -1), THETAS, TINY)
    torch.testing.assert_close(stream.y, torch.stack(theirs), rtol=1e-5, atol=1e-5)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-2  # theta matters to these weights
    one = Stream(*(part[1:] for part in stream))
    found = measure.first_weight(one, torch.ones(2, 500, dtype=torch.bool))
    torch.testing.assert_close(found, first[..., 1:].mean(-1).T, rtol=1e-4, atol=1e-6)


def test_losses_are_hugging_faces_on_the_same_sequences(tmp_path: Path) -> None:
    """Also of a step that mixes sequences of two lengths, and of gradients."""
    weights = loud(TINY, 1)
    generator = torch.Generator().manual_seed(1)
    windows = torch.randint(2, 64, (3, 65), generator=generator)
    found, gradients = flat_losses(ensemble.stack([weights]), windows, (32, 8, 32), THETAS[:1])
    model = hugging_face(tmp_path, weights, 512, 1e4)
    wanted = []
    for window, length in zip(windows, (32, 8, 32), strict=True):
        pieces = window[:-1].reshape(-1, length).clone()
        pieces[:, 0] = tokens.BOS_ID
        scores = model(pieces).logits.flatten(0, 1)
        wanted.append(F.cross_entropy(scores, window[1:], reduction="none"))
    torch.testing.assert_close(found[0], torch.cat(wanted), rtol=1e-5, atol=1e-5)
    torch.cat(wanted).mean().backward()
    theirs = export.from_state_dict({n: p.grad for n, p in model.named_parameters()}, TINY)
    for ours, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(ours[0], other, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's tracer looks
def test_the_compilers_graphs_do_not_change_the_losses() -> None:
    stacked = ensemble.stack([loud(TINY, 3), loud(TINY, 4)])
    windows = torch.randint(2, 64, (2, 65), generator=torch.Generator().manual_seed(2))
    wanted = flat_losses(stacked, windows, (32, 8), THETAS)
    traced = Pieces(*(torch.compile(piece, backend="aot_eager") for piece in Pieces()))
    found = flat_losses(stacked, windows, (32, 8), THETAS, traced)
    torch.testing.assert_close(found[0], wanted[0])
    for ours, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-7)


def test_cells_of_a_job_do_not_see_one_another() -> None:
    weights = [loud(TINY, seed) for seed in (3, 4)]
    windows = torch.randint(2, 64, (1, 65), generator=torch.Generator().manual_seed(2))
    together, gradients = flat_losses(ensemble.stack(weights), windows, (32,), THETAS)
    for number, one in enumerate(weights):
        own = THETAS[number : number + 1]
        alone, own_gradients = flat_losses(ensemble.stack([one]), windows, (32,), own)
        torch.testing.assert_close(together[number], alone[0])
        for both, single in zip(gradients, own_gradients, strict=True):
            torch.testing.assert_close(both[number], single[0], rtol=1e-4, atol=1e-7)


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
    schedule = optimize.schedule(100, 1)  # no warm-up, and the decay is far away
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
        optimize.update_(stacked, gradients, moments, torch.tensor(rates), schedule[step])
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
    windows = torch.arange(2, 2 + 3 * 65).view(3, -1)
    short_in, short_out = tokens.with_bos(windows, Layout.of((8,) * 3, 64).positions)
    long_in, long_out = tokens.with_bos(windows, Layout.of((64,) * 3, 64).positions)
    assert torch.equal(short_out, long_out)
    assert torch.equal(short_in[1:8], short_out[:7])
    assert (short_in == tokens.BOS_ID).sum() == 24
    assert (long_in == tokens.BOS_ID).sum() == 3


def test_control_has_a_bos_in_every_eighth_sequence_only() -> None:
    windows = torch.arange(2, 2 + 2 * 2 * 65).view(2, 2, -1)
    positions = Layout.of((8, 8), 64).positions
    inputs, _ = tokens.with_bos(windows, positions, torch.tensor([1, 8]))
    assert (inputs[0] == tokens.BOS_ID).nonzero().flatten().tolist() == list(range(0, 128, 8))
    assert (inputs[1] == tokens.BOS_ID).nonzero().flatten().tolist() == [0, 64]
    assert torch.equal(inputs[1, 1:64], windows[1, 0, 1:-1])


def test_an_epoch_reads_every_window_once_and_the_next_in_another_order() -> None:
    order = tokens.order(0, 12, 4, 6)
    assert sorted(order[:3].ravel()) == sorted(order[3:].ravel()) == list(range(12))
    assert (order[:3] != order[3:]).any()
    assert (tokens.order(1, 12, 4, 6) != order).any()
    assert (tokens.order(0, 12, 4, 5) == order[:5]).all()  # a longer training begins the same


def test_layout_refuses_a_length_that_does_not_fill_its_piece() -> None:
    with pytest.raises(ValueError, match="sequences of 24 tokens do not fill 64"):
        Layout.of((24,), 64)
