"""The life of a planted massive token."""

from dataclasses import replace

import numpy as np
import pytest
from planting.captures import capture_of

from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_lifecycle, massive_states

LAYERS, LENGTH, D_MODEL = 6, 8, 16


def planted(write_block=1, erase_block=4, token=3, dim=7, size=200.0):
    """The MLP of one block writes a large coordinate, attention of a later one takes it back."""
    rng = np.random.default_rng(0)
    x = np.empty((LAYERS, LENGTH, D_MODEL))
    a, m = 0.01 * rng.normal(size=(2, LAYERS, LENGTH, D_MODEL))
    m[write_block, token, dim] += size
    if erase_block is not None:
        a[erase_block, token, dim] -= size
    x[0] = rng.normal(size=(LENGTH, D_MODEL))
    for block in range(1, LAYERS):
        x[block] = x[block - 1] + a[block - 1] + m[block - 1]
    return capture_of(x, a, m, (LENGTH,))


def test_write_plateau_erase_component_and_dimension():
    capture = planted()
    (life,) = massive_lifecycle(decompose(capture), ["t"] * LENGTH)
    assert (life.position, life.text) == (3, "t")
    assert (life.written_by, life.written_component) == (1, "mlp")
    assert (life.erased_by, life.erased_component) == (4, "attention")
    assert life.dims == (7,)
    assert life.plateau == pytest.approx(200, rel=0.02)


def test_a_token_that_is_never_erased_and_one_erased_by_the_last_block():
    capture = planted(erase_block=None)
    assert massive_lifecycle(decompose(capture), ["t"] * LENGTH)[0].erased_by is None
    capture = planted(erase_block=LAYERS - 1)
    life = massive_lifecycle(decompose(capture), ["t"] * LENGTH)[0]
    assert life.erased_by == LAYERS - 1


def test_nothing_planted_nothing_found():
    capture = planted(size=0.0)
    assert massive_lifecycle(decompose(capture), ["t"] * LENGTH) == ()


def test_position_zero_is_listed_once_for_prompts_that_begin_alike():
    capture = planted(token=0)
    assert len(massive_lifecycle(decompose(capture), ["<s>"] * LENGTH)) == 1
    doubled = type(capture)(
        prompt=np.repeat([0, 1], LENGTH),
        position=np.tile(capture.position, 2),
        token_id=np.tile(capture.token_id, 2),
        gram=np.concatenate([capture.gram] * 2, axis=2),
        top_value=np.concatenate([capture.top_value] * 2, axis=1),
        top_index=np.concatenate([capture.top_index] * 2, axis=1),
        normed=np.tile(capture.normed, 2),
    )
    assert len(massive_lifecycle(decompose(doubled), ["<s>"] * 2 * LENGTH)) == 1


def test_the_class_is_the_tokens_that_are_massive_at_some_input_but_the_first():
    result = decompose(planted())
    norms = result.norm_in
    massive = norms >= 10 * np.median(norms[:, 1:], axis=1, keepdims=True)
    np.testing.assert_array_equal(massive_states(norms, result.prompt), massive)
    np.testing.assert_array_equal(result.is_massive, massive.any(axis=0) & (np.arange(LENGTH) > 0))
    assert result.is_massive.sum() == 1


def test_others_growing_past_a_tenth_of_it_is_no_erasing():
    """The twins' position 0 keeps its norm while ordinary tokens grow: nothing erases it."""
    capture = planted(erase_block=None)
    gram = capture.gram.copy()
    ordinary = np.arange(LENGTH) != 3
    gram[np.ix_(range(len(gram)), [4, 5], ordinary)] *= 40.0**2
    grown = replace(capture, gram=gram)
    life = massive_lifecycle(decompose(grown), ["t"] * LENGTH)[0]
    norm_out = decompose(grown).norm_out[-1:]
    assert not massive_states(norm_out, grown.prompt)[0, 3]
    assert life.erased_by is None


def test_the_writer_is_the_block_that_raises_it_not_the_one_that_crosses_the_threshold():
    """Written to 9 times the median by block 1, nudged over 10 by block 3."""
    rng = np.random.default_rng(0)
    x = np.empty((LAYERS, LENGTH, D_MODEL))
    a, m = 0.001 * rng.normal(size=(2, LAYERS, LENGTH, D_MODEL))
    x[0] = rng.normal(size=(LENGTH, D_MODEL))
    median = np.median(np.linalg.norm(x[0, 1:], axis=-1))
    m[1, 3, 7], m[3, 3, 7] = 9 * median, 3 * median
    for block in range(1, LAYERS):
        x[block] = x[block - 1] + a[block - 1] + m[block - 1]
    capture = capture_of(x, a, m, (LENGTH,))
    assert massive_lifecycle(decompose(capture), ["t"] * LENGTH)[0].written_by == 1


@pytest.mark.parametrize("prefix", [1, 2])
def test_what_begins_every_prompt_alike_is_in_no_median_and_listed_once(prefix):
    """Planted at position 1: massive like any token, or, of a prefix of two, classed as bos."""
    one = planted(token=1)
    capture = replace(
        one,
        prompt=np.repeat([0, 1], LENGTH),
        position=np.tile(one.position, 2),
        token_id=np.tile(one.token_id, 2),
        gram=np.concatenate([one.gram] * 2, axis=2),
        top_value=np.concatenate([one.top_value] * 2, axis=1),
        top_index=np.concatenate([one.top_index] * 2, axis=1),
        normed=np.tile(one.normed, 2),
        prefix=prefix,
    )
    decomposition = decompose(capture)
    np.testing.assert_array_equal(decomposition.is_bos, capture.position < prefix)
    np.testing.assert_array_equal(decomposition.is_massive, (capture.position == 1) & (prefix == 1))
    ordinary = decomposition.is_ordinary
    np.testing.assert_array_equal(ordinary, capture.position > 1)
    lives = massive_lifecycle(decomposition, ["t"] * 2 * LENGTH)
    assert len(lives) == (2 if prefix == 1 else 1)
    norms = np.array([[1.0, 1.0, 1.0, 0.01, 0.01]])
    states = massive_states(norms, np.zeros(5, np.int64), ratio=10.0, prefix=prefix)
    assert states.tolist() == [[prefix == 2] * 3 + [False] * 2]


def test_position_zero_does_not_count_towards_the_median():
    """The median of 1, 2 and 15 is 2, so 15 is not massive; with position 0 it would be 1.5."""
    norms = np.array([[0.1, 1.0, 2.0, 15.0]])
    assert not massive_states(norms, np.zeros(4, dtype=np.int64)).any()


def stream(written):
    """A capture whose MLPs write `written`, {(block, token): vector}, onto small noise."""
    rng = np.random.default_rng(0)
    x = np.empty((LAYERS, LENGTH, D_MODEL))
    a, m = 0.001 * rng.normal(size=(2, LAYERS, LENGTH, D_MODEL))
    x[0] = rng.normal(size=(LENGTH, D_MODEL))
    for block in range(LAYERS):
        if block:
            x[block] = x[block - 1] + a[block - 1] + m[block - 1]
        if (block, None) in written:  # every token is scaled
            m[block] += (written[block, None] - 1) * x[block]
        for (at, token), size in written.items():
            if at == block and token is not None:
                m[block, token, 7] += size
    return capture_of(x, a, m, (LENGTH,))


def test_erased_is_a_fall_below_half_of_the_highest_norm_not_of_the_first_massive_one():
    """Massive at 200, highest at 600, then 200 again."""
    capture = stream({(1, 3): 200.0, (2, 3): 400.0, (4, 3): -400.0})
    (life,) = massive_lifecycle(decompose(capture), ["t"] * LENGTH)
    assert (life.written_by, life.erased_by) == (1, 4)


def test_the_writer_raises_the_token_above_the_others_not_with_them():
    """Block 0 makes every token 50 times as large; block 1 adds to one token alone."""
    capture = stream({(0, None): 50.0, (1, 3): 4000.0})
    (life,) = massive_lifecycle(decompose(capture), ["t"] * LENGTH)
    assert life.written_by == 1
