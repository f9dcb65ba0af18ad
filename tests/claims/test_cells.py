"""Every way of measuring the last block, on planted captures; and every block's band."""

import dataclasses

import numpy as np
import pytest
from planting.reports import RULE, planted

from gainlens.claims.blocks import block_gains
from gainlens.claims.cells import LENGTHS, grade_cells, length_halves
from gainlens.claims.intervals import mean_interval
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import REDUCTIONS, TOKEN_CLASSES
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.records.verdict import GainCell


def cell(cells: tuple[GainCell, ...], *key: object) -> GainCell:
    return next(
        c for c in cells if (c.token_class, c.reduction, c.lengths, c.after_final_norm) == key
    )


def cells_of(capture, rule: Rule = RULE) -> tuple[GainCell, ...]:
    return grade_cells(decompose(capture), rule, "float32")


def test_every_cell_is_there_once_and_holds_the_mean_over_prompts():
    capture = planted(1.2, 0, massive=-1.0)
    decomposition = decompose(capture)
    cells = cells_of(capture)
    assert len(cells) == len(TOKEN_CLASSES) * len(REDUCTIONS) * len(LENGTHS) * 2
    for reduction in REDUCTIONS:
        values = reduce_gains(decomposition, "all", reduction).log_gain[-1]
        found = cell(cells, "all", reduction, "all", False).log_gain
        want = mean_interval(values, resamples=RULE.resamples)
        # 1e-12: products of other shapes round otherwise
        assert (found.low, found.high) == pytest.approx((want.low, want.high), abs=1e-12)
        assert found.n == want.n


def test_planted_classes_are_told_apart():
    """Ordinary tokens expand, massive ones contract, position 0 expands, the final norm shrinks."""
    capture = planted(1.2, 1, first=0.4, massive=-1.0, normed=-0.5)
    cells = cells_of(capture)
    ordinary = cell(cells, "ordinary", "geomean", "all", False)
    assert ordinary.log_gain.estimate == pytest.approx(np.log(1.2))
    assert ordinary.log_gain.low < np.log(1.2) < ordinary.log_gain.high
    assert ordinary.behaviour == "EXPANDS"
    # one value in every prompt, so no interval; it is not position 0
    massive = cell(cells, "massive", "median", "all", False)
    assert massive.log_gain.estimate == pytest.approx(-1.0)
    assert massive.behaviour is None
    assert not massive.log_gain.known
    for name in TOKEN_CLASSES:
        after = cell(cells, name, "ratio_of_means", "all", True)
        assert after.log_gain.estimate == pytest.approx(-0.5)


@pytest.mark.fault("position 0, the same number in every prompt", "caveat: one value, no interval")
def test_position_zero_is_one_value_without_an_interval():
    found = cell(cells_of(planted(1.2, 2, first=-0.3)), "bos", "geomean", "all", False)
    assert found.behaviour == "CONTRACTS"
    assert found.log_gain.estimate == pytest.approx(-0.3)
    assert np.isnan([found.log_gain.low, found.log_gain.high]).all()
    assert (found.log_gain.n, found.log_gain.problem) == (1, "one value")
    assert not found.log_gain.known


def test_position_zero_has_an_interval_where_prompts_begin_differently():
    capture = planted(1.2, 3)
    start = capture.position == 0
    token_id = np.where(start, 5 + capture.prompt, 2)
    gram = capture.gram.copy()
    gram[6, 0, start] *= np.exp(2 * (0.1 + 0.02 * np.random.default_rng(0).normal(size=40)))
    found = cell(
        cells_of(dataclasses.replace(capture, token_id=token_id, gram=gram)),
        "bos", "geomean", "all", False,
    )  # fmt: skip
    assert found.log_gain.n == 40
    assert found.log_gain.low < 0.1 < found.log_gain.high
    assert found.behaviour == "EXPANDS"


def test_cells_without_tokens_and_cells_with_few_prompts_say_so():
    cells = cells_of(planted(1.2, 4, prompts=20))
    massive = cell(cells, "massive", "geomean", "all", False)
    assert massive.log_gain.problem == "no tokens"
    assert massive.log_gain.n == 0
    short = cell(cells, "ordinary", "geomean", "short", False)
    assert short.log_gain.problem == "too few"
    assert short.behaviour is None
    assert not np.isnan(short.log_gain.low)
    assert cell(cells, "ordinary", "geomean", "all", False).behaviour == "EXPANDS"


def test_halves_by_number_of_tokens():
    prompt = np.repeat(np.arange(5), [9, 3, 4, 12, 3])
    halves = length_halves(np.bincount(prompt))
    assert np.flatnonzero(halves["short"]).tolist() == [1, 4]
    assert np.flatnonzero(halves["long"]).tolist() == [0, 2, 3]
    assert halves["all"].all()
    equal = length_halves(np.full(4, 6))
    assert not (equal["short"] | equal["long"]).any()


def test_block_gains_stand_within_their_band():
    capture = planted(1.3, 5)
    (block,) = block_gains(reduce_gains(decompose(capture)), RULE)
    assert block.gain == pytest.approx(1.3)
    assert block.low < 1.3 < block.high
    assert block.attention + block.mlp + block.remainder == pytest.approx(block.log_gain)


def over(*captures):
    """Captures of one block each, on the same prompts, as the blocks of one."""
    fields = {
        name: np.concatenate([getattr(c, name) for c in captures], axis=axis)
        for name, axis in (("gram", 1), ("top_value", 0), ("top_index", 0))
    }
    return dataclasses.replace(captures[-1], **fields)


def test_the_last_of_several_blocks_is_the_one_that_is_judged():
    first, last = planted(1.5, 30), planted(0.7, 31)
    both, alone = cells_of(over(first, last)), cells_of(last)
    for mine, want in zip(both, alone, strict=True):
        np.testing.assert_equal(dataclasses.asdict(mine), dataclasses.asdict(want))
    capture = over(first, last)
    blocks = block_gains(reduce_gains(decompose(capture)), RULE)
    assert [block.block for block in blocks] == [0, 1]
    np.testing.assert_allclose([block.gain for block in blocks], [1.5, 0.7])


def test_a_class_that_no_prompt_has_leaves_blocks_unknown():
    capture = planted(1.2, 34)
    (block,) = block_gains(reduce_gains(decompose(capture), "massive"), RULE)
    assert np.isnan([block.log_gain, block.attention, block.gain, block.low, block.high]).all()


def test_halves_keep_the_order_of_prompts_of_one_length():
    lengths = np.tile([3, 4], 40)
    halves = length_halves(lengths)
    assert np.flatnonzero(halves["short"]).tolist() == list(range(0, 80, 2))
    assert np.flatnonzero(halves["long"]).tolist() == list(range(1, 80, 2))
    tied = length_halves(np.array([5] * 80 + [6]))
    assert np.flatnonzero(tied["short"]).tolist() == list(range(40))
    assert all(half.shape == (81,) and half.dtype == bool for half in tied.values())


def test_as_many_prompts_as_the_rule_wants_are_enough():
    cells = cells_of(planted(1.2, 35, prompts=RULE.min_prompts))
    assert cell(cells, "ordinary", "geomean", "all", False).behaviour == "EXPANDS"
    first = cell(cells, "bos", "geomean", "all", False).log_gain
    assert first.problem == "one value"
    massive = cell(cells, "massive", "geomean", "all", False).log_gain
    assert (massive.method, massive.problem) == ("none", "no tokens")


def test_position_zero_needs_as_many_prompts_as_any_cell():
    """Few prompts that begin alike do not make position 0 one value that decides."""
    for prompts in (1, RULE.min_prompts - 1):
        first = cell(cells_of(planted(1.2, 3, prompts=prompts)), "bos", "geomean", "all", False)
        assert first.log_gain.problem == "too few"
        assert first.behaviour is None


def test_a_block_counts_the_prompts_that_every_block_knows():
    """Prompt 0 has no number in block 1: it is left out of both blocks."""
    gains = reduce_gains(decompose(over(planted(1.5, 30), planted(0.7, 31))))
    log_gain = gains.log_gain.copy()
    log_gain[1, 0] = np.nan
    blocks = block_gains(dataclasses.replace(gains, log_gain=log_gain), RULE)
    for row, block in zip(gains.log_gain, blocks, strict=True):
        assert block.log_gain == pytest.approx(row[1:].mean(), abs=1e-12)
