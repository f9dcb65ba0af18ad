"""Record batches: every prompt's numbers in their place, whatever the batches; extra columns."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS
from planting.hooks import prompts_of

from gainlens.activations.batches import Batch, batches, run_halving
from gainlens.activations.capturing import capture
from gainlens.activations.losses import loss
from gainlens.activations.recorder import CaptureRecorder
from gainlens.activations.token_arrays import to_main_memory
from gainlens.models.loading import load
from gainlens.models.memory import DoesNotFit
from gainlens.models.sites import sites_of

LENGTHS = (12, 30, 12, 1, 7, 29, 2)


@pytest.fixture(scope="module")
def loaded(make_checkpoint):
    folder = make_checkpoint()
    return {backend: load(folder, backend=backend) for backend in BACK_ENDS}


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_prompts_side_by_side_are_recorded_as_each_alone(loaded, backend):
    """Prompt by prompt is the truth.  rtol 1e-5: float32 sums in another order."""
    model, prompts = loaded[backend].model, prompts_of(LENGTHS)
    kinds = {"heads": True, "patterns": backend != "native"}
    together = capture(model, prompts, batch_tokens=10_000, **kinds)
    for index, tokens in enumerate(prompts.tokens):
        alone = capture(model, replace(prompts, ids=("p",), tokens=(tokens,)), **kinds)
        mine = together.prompt == index
        scale = float(alone.gram.max())
        np.testing.assert_array_equal(together.token_id[mine], tokens)
        np.testing.assert_array_equal(together.position[mine], np.arange(len(tokens)))
        np.testing.assert_allclose(
            together.gram[:, :, mine], alone.gram, rtol=1e-5, atol=1e-6 * scale
        )
        np.testing.assert_allclose(together.top_value[:, mine], alone.top_value, rtol=1e-4)
        np.testing.assert_array_equal(together.top_index[:, mine], alone.top_index)
        np.testing.assert_allclose(together.normed[mine], alone.normed, rtol=1e-5)
        np.testing.assert_allclose(
            together.heads[..., mine], alone.heads, rtol=1e-4, atol=1e-6 * scale
        )
        if together.sink is not None:
            np.testing.assert_allclose(together.sink[..., index], alone.sink[..., 0], rtol=1e-5)


def test_the_order_of_batches_does_not_matter_to_the_bit(loaded):
    prompts, sites = prompts_of(LENGTHS), loaded["native"].sites
    captures = []
    for order in (1, -1):
        recorder = CaptureRecorder(sites, prompts)
        with recorder.hooks():
            for batch in list(batches(loaded["native"], prompts, sites, 40))[::order]:
                recorder.record(batch)
        captures.append(recorder.capture())
    np.testing.assert_array_equal(captures[0].gram, captures[1].gram)
    np.testing.assert_array_equal(captures[0].top_index, captures[1].top_index)
    assert captures[0].gram.dtype == captures[0].top_value.dtype == np.float32


def test_a_batch_that_is_not_finite_is_refused_though_a_finite_one_follows(loaded):
    prompts, sites = prompts_of((5, 4)), loaded["native"].sites
    broken = iter([True, False])

    def break_first(module, args, output):
        return output * torch.nan if next(broken) else output

    recorder = CaptureRecorder(sites, prompts)
    handle = loaded["native"].model.model.layers[2].mlp.register_forward_hook(break_first)
    try:
        first, second = batches(loaded["native"], prompts, sites, 0)
        with recorder.hooks():
            recorder.record(first)
            with pytest.raises(ValueError, match=r"blocks\.2\.hook_mlp_out .*'p0'"):
                recorder.record(second)
    finally:
        handle.remove()


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_extra_columns_get_the_activations_without_padding(loaded, backend):
    prompts = prompts_of(LENGTHS)
    got = capture(
        loaded[backend],
        prompts,
        extra={
            "y_squared": lambda rows: rows.y.square().sum(-1),
            "added": lambda rows: (rows.x + rows.a + rows.m - rows.y).abs().amax(-1),
            "place": lambda rows: 1e6 * rows.block + 1e3 * rows.prompt + rows.position,
        },
        batch_tokens=60,
    )
    np.testing.assert_allclose(got.extra["y_squared"], got.column("yy"), rtol=1e-5)
    assert got.extra["added"].max() < 1e-4
    block = np.arange(len(got.gram[0]))[:, None]
    np.testing.assert_array_equal(got.extra["place"], 1e6 * block + 1e3 * got.prompt + got.position)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda rows: rows.x, r"\(5, 32\).*\(5,\)"),
        (lambda rows: rows.x[1:, 0], r"\(4,\).*\(5,\)"),
        (lambda rows: rows.x[:, 0] * torch.nan, "finite"),
    ],
)
@pytest.mark.fault("an extra column of another length, or NaN", "refused with both shapes")
def test_an_extra_column_that_does_not_fit_is_refused(loaded, function, said):
    with pytest.raises(ValueError, match=f"'mine' .*{said}"):
        capture(loaded["native"], prompts_of((5,)), extra={"mine": function})


def test_padding_of_many_short_prompts_is_below_three_per_cent(loaded):
    lengths = np.random.default_rng(0).integers(10, 301, 2000)
    prompts, sites = prompts_of(tuple(lengths)), loaded["native"].sites
    for budget in (1024, 2048, 8192):
        padded = list(batches(loaded["native"], prompts, sites, budget))
        assert sum(batch.tokens.numel() for batch in padded) * 0.97 <= lengths.sum()
        assert max(batch.tokens.numel() for batch in padded) <= budget
        assert sorted(i for batch in padded for i in batch.index) == list(range(2000))
    assert len(padded) < 60  # of 8,192 tokens: 38 would hold them without any padding


@pytest.mark.fault("a batch that memory cannot hold", "halved, and said so")
def test_a_batch_that_does_not_fit_is_halved_to_the_same_numbers(loaded, monkeypatch):
    model, prompts = loaded["native"].model, prompts_of((6, 9, 9, 8))
    whole, whole_loss = capture(model, prompts), loss(model, prompts)
    sites = sites_of(model)

    def small(tokens, run=sites.run):
        if len(tokens) > 1:
            raise DoesNotFit("no room")
        return run(tokens)

    for module in ("capturing", "losses"):
        monkeypatch.setattr(
            f"gainlens.activations.{module}.sites_of", lambda _: replace(sites, run=small)
        )
    with pytest.warns(RuntimeWarning, match="halves"):
        halved = capture(model, prompts)
    np.testing.assert_allclose(halved.gram, whole.gram, rtol=1e-5, atol=1e-6 * whole.gram.max())
    with pytest.warns(RuntimeWarning, match="halves"):
        np.testing.assert_allclose(loss(model, prompts), whole_loss, atol=1e-5)


def test_halving_is_said_once_for_many_batches():
    ran = []

    def small(batch):
        if len(batch.index) > 1:
            raise DoesNotFit(f"no room for {batch.index}")
        ran.append(batch.index)

    two = Batch((0, 1, 2), torch.tensor([3, 2, 1]), torch.zeros(3, 3, dtype=torch.long))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            run_halving(two, small)
    assert len(said) == 1
    assert "--batch-tokens" in str(said[0].message)
    assert ran == [(0,), (1,), (2,)] * 3


def test_a_single_prompt_that_does_not_fit_is_refused_without_a_warning():
    def refuse(batch):
        raise DoesNotFit("no room")

    with pytest.raises(DoesNotFit, match="no room"):  # a warning would be an error
        run_halving(Batch((0,), torch.tensor([3]), torch.zeros(1, 3)), refuse)


def test_on_a_cpu_nothing_is_copied_to_get_to_main_memory():
    tensor = torch.ones(3)
    assert to_main_memory(tensor)() is tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_copy_from_cuda_is_whole_when_it_is_asked_for():
    tensor = torch.randn(17, 1 << 20, device="cuda")
    wait = to_main_memory(tensor)
    want = tensor.clone()
    tensor.zero_()  # on the same stream, so after the copy
    assert torch.equal(wait(), want.cpu())
