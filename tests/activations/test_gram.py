"""The Gram kernel: one call a block on every device, and CUDA's numbers beside the CPU's."""

import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gainlens.activations import gram
from gainlens.activations.gram import block_numbers, gram_columns, kernel_name, top_components

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHAPES = ((2, 5, 64), (7, 100), (3, 1, 4096), (4, 3), (0, 64), (2, 9000))


def activations(shape, dtype=torch.float32, seed=0) -> list[torch.Tensor]:
    """x, a, m of unequal sizes and y near their sum, with one large component a token."""
    torch.manual_seed(seed)
    x, a, m = (torch.randn(shape) * size for size in (3.0, 1.0, 2.0))
    x[..., 1] += 300
    return [part.to(dtype) for part in (x, a, m, x + a + m)]


class Largest(TorchDispatchMode):
    """The largest tensor that an operation makes; views are none."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in given:
                self.nbytes = max(self.nbytes, one.nbytes)
        return made


@pytest.fixture
def no_triton(monkeypatch):
    """As on a machine without triton."""
    monkeypatch.setitem(sys.modules, "gainlens.activations.gram_cuda", None)
    gram._fused.cache_clear()
    yield
    gram._fused.cache_clear()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_is_its_columns_and_its_top_components(shape):
    parts = activations(shape)
    numbers = block_numbers(*parts)
    value, index = top_components(parts[3])
    assert torch.equal(numbers.gram, gram_columns(*parts))
    assert numbers.gram.shape == (*shape[:-1], 9)
    assert torch.equal(numbers.top_value, value)
    assert torch.equal(numbers.top_index.long(), index)
    assert index.shape == (*shape[:-1], min(4, shape[-1]))


def test_columns_equal_float64_inner_products():
    """rtol 1e-6: sums of 4,096 float32 products; the scale is that of the largest factor."""
    x, a, m, y = activations((6, 4096))
    got = gram_columns(x, a, m, y).double()
    x, a, m, y = (part.double() for part in (x, a, m, y))
    pairs = ((x, x), (a, a), (m, m), (x, a), (x, m), (a, m), (y, y), (x + a, x + a), (x + m, x + m))
    for column, (left, right) in enumerate(pairs):
        scale = left.norm(dim=-1) * right.norm(dim=-1)
        error = (got[:, column] - (left * right).sum(-1)).abs() / scale
        assert float(error.max()) < 1e-6, gram.GRAM_COLUMNS[column]


def test_top_components_are_numpys_largest_in_size_with_their_sign():
    y = -activations((2, 3, 50))[3]  # the largest of every token is negative
    value, index = top_components(y)
    order = np.argsort(-np.abs(y.numpy()), axis=-1)[..., :4]
    np.testing.assert_array_equal(index.numpy(), order)
    np.testing.assert_array_equal(value.numpy(), np.take_along_axis(y.numpy(), order, -1))
    assert (value[..., 0] < -200).all()
    assert (value > 0).any()


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_slices_of_tokens_give_the_numbers_of_one(tokens, monkeypatch):
    """15 tokens in slices of 1, 2 (with one left over) and 5."""
    parts = activations((3, 5, 64))
    want = block_numbers(*parts).packed
    monkeypatch.setitem(gram.CHUNK_ELEMENTS, "cpu", tokens * 64)
    assert torch.equal(block_numbers(*parts).packed, want)


def test_no_temporary_grows_with_the_prompt():
    """The largest thing that is made on the CPU of 64 slices of tokens is no larger than a slice's,
    beside the numbers themselves."""
    parts = activations((64 * gram.CHUNK_ELEMENTS["cpu"] // 512, 512))
    made = Largest()
    with made:
        numbers = block_numbers(*parts)
    largest = max(gram.CHUNK_ELEMENTS["cpu"] * 4, numbers.packed.nbytes)
    assert made.nbytes <= largest < parts[0].nbytes / 3


def test_cpu_computes_with_torch_and_never_asks_for_triton(no_triton):
    assert kernel_name("cpu") == "torch"


def test_cuda_without_triton_says_so_once(no_triton):
    with pytest.warns(RuntimeWarning, match="triton cannot be imported .* plain torch"):
        assert kernel_name("cuda") == "torch"
    assert kernel_name("cuda") == "torch"


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_gives_the_numbers_of_the_cpu(shape, dtype):
    """Both accumulate in float32, in another order: 1e-6 of the largest factor's size."""
    assert kernel_name("cuda") == "triton"
    parts = activations(shape, dtype)
    want = block_numbers(*parts)
    got = block_numbers(*(part.cuda() for part in parts))
    scale = want.gram.abs().amax(-1, keepdim=True)
    assert (((got.gram.cpu() - want.gram).abs() / scale) < 1e-6).all()
    # among equal |components| either may come first
    assert torch.equal(got.top_value.cpu().abs(), want.top_value.abs())
    picked = parts[3].float().gather(-1, got.top_index.cpu().long())
    assert torch.equal(picked, got.top_value.cpu())
    assert all(len(set(row)) == len(row) for row in got.top_index.reshape(-1, 4).tolist()
               if shape[-1] >= 4)  # fmt: skip


@needs_cuda
def test_cuda_reads_strided_rows():
    wide = torch.randn(5, 128, device="cuda")
    every_other = torch.randn(5, 128, device="cuda")[:, ::2]
    parts = [wide[:, :64], wide[:, 64:], every_other, wide[:, :64]]
    got = block_numbers(*parts)
    want = block_numbers(*(part.cpu() for part in parts))
    torch.testing.assert_close(got.gram.cpu(), want.gram, rtol=1e-5, atol=1e-4)


@needs_cuda
def test_cuda_without_triton_gives_the_same_numbers(no_triton):
    parts = [part.cuda() for part in activations((9, 256))]
    with pytest.warns(RuntimeWarning, match="triton"):
        got = block_numbers(*parts)
    want = block_numbers(*(part.cpu() for part in parts))
    torch.testing.assert_close(got.gram.cpu(), want.gram, rtol=1e-5, atol=1e-2)
