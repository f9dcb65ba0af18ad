"""Every prompt's numbers in their place, whatever the batches; nothing of a batch stays."""

import numpy as np
import pytest
import torch

from gainlens.activations.buffers import Collector, to_main_memory
from gainlens.activations.gram import BlockNumbers

LENGTHS = (3, 1, 4)
LAYERS, D_MODEL = 2, 16


def numbers_of(prompts, block: int, width: int) -> BlockNumbers:
    """Row r, token t holds 1000 prompt + 100 layer + 10 t + number; padding is NaN."""
    packed = torch.full((17, len(prompts), width), torch.nan)
    for row, prompt in enumerate(prompts):
        for token in range(LENGTHS[prompt]):
            packed[:, row, token] = 1000 * prompt + 100 * block + 10 * token + torch.arange(17) / 20
            packed[13:, row, token] = torch.tensor([3.0, 1.0, 15.0, 0.0])
    return BlockNumbers(packed)


def collected(batches) -> Collector:
    collector = Collector(LENGTHS, LAYERS, D_MODEL)
    for batch in batches:
        for block in range(LAYERS):
            collector.put(block, numbers_of(batch, block, width=5))
        collector.finish(batch, [LENGTHS[prompt] for prompt in batch])
    return collector


@pytest.mark.parametrize("batches", [((2, 0, 1),), ((1,), (2, 0)), ((0,), (1,), (2,))])
def test_every_number_lies_with_its_prompt_block_and_token(batches):
    got = collected(batches)
    prompt = np.repeat(np.arange(3), LENGTHS)
    token = np.concatenate([np.arange(length) for length in LENGTHS])
    for block in range(LAYERS):
        base = 1000 * prompt + 100 * block + 10 * token
        for column in range(9):
            np.testing.assert_allclose(got.gram[column, block], base + column / 20, rtol=1e-6)
        for rank in range(4):
            want = base + (9 + rank) / 20
            np.testing.assert_allclose(got.top_value[block, :, rank], want, rtol=1e-6)
    assert (got.top_index == [3, 1, 15, 0]).all()
    assert (got.gram.dtype, got.top_value.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(got.gram_of(2), got.gram[:, :, 4:])


def test_what_is_not_finite_is_told():
    collector = Collector((2,), 1, D_MODEL)
    packed = torch.ones(17, 1, 2)
    collector.put(0, BlockNumbers(packed))
    assert collector.finish((0,), (2,))
    assert collector.blocks == set()
    packed[3, 0, 1] = torch.inf
    collector.put(0, BlockNumbers(packed))
    assert not collector.finish((0,), (2,))


def test_a_batch_that_is_dropped_leaves_no_block_seen():
    collector = Collector((2,), 2, D_MODEL)
    collector.put(1, BlockNumbers(torch.ones(17, 1, 2)))
    assert collector.blocks == {1}
    collector.drop()
    assert collector.blocks == set()


def test_a_stream_narrower_than_four_has_fewer_top_components():
    collector = Collector((2,), 1, 3)
    collector.put(0, BlockNumbers(torch.ones(9 + 2 * 3, 1, 2)))
    collector.finish((0,), (2,))
    assert collector.top_value.shape == (1, 2, 3)


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
