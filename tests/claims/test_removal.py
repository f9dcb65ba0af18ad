"""Orders of removal on planted losses, and the chance level against every order there is."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from gainlens.claims.removal import agreements, chance_level, removal_of
from gainlens.core.spec import Rule

RULE = Rule(resamples=400)


def losses(means, prompts=32, noise=0.1, seed=0):
    """One row per block; prompts differ in difficulty, which every block shares."""
    rng = np.random.default_rng(seed)
    return (
        np.array(means)[:, None]
        + rng.normal(size=prompts)
        + noise * rng.normal(size=(len(means), prompts))
    )


def test_a_planted_order_is_found_in_spite_of_what_prompts_share():
    found = removal_of(losses([3.0, 1.0, 2.0, 0.5]), RULE)
    assert found.order == (3, 1, 2, 0)
    assert found.groups == ((3,), (1,), (2,), (0,))


@pytest.mark.fault("prompts that cannot tell two blocks apart", "the blocks tie, no full order")
def test_blocks_that_cost_the_same_tie_and_no_full_order_is_given():
    found = removal_of(losses([3.0, 1.0, 2.0, 1.0]), RULE)
    assert found.groups == ((1, 3), (2,), (0,))
    assert found.order is None
    assert not found.withheld


def test_blocks_that_do_nothing_tie_and_a_constant_difference_is_known():
    constant = np.repeat([[0.0], [0.0], [1.0]], 20, axis=1)
    assert removal_of(constant, RULE).groups == ((0, 1), (2,))


@pytest.mark.parametrize("blocks", [2, 8])
def test_equal_blocks_get_an_order_no_more_often_than_stated(blocks):
    """95 %: of 200 worlds 10 may, and 19 with a probability below 0.5 %."""
    worlds = (losses([0.0] * blocks, seed=seed) for seed in range(200))
    assert sum(len(removal_of(world, RULE).groups) > 1 for world in worlds) < 19


@pytest.mark.fault("too few prompts for an order of blocks", "the order is withheld, and why")
def test_few_prompts_or_one_block_withhold_the_order():
    few = removal_of(losses([1.0, 2.0], prompts=15), RULE)
    assert few.groups == ()
    assert few.order is None
    assert "loss: 15" in few.withheld
    assert "one block" in removal_of(losses([1.0]), RULE).withheld
    unknown = losses([1.0, 2.0], prompts=17)
    unknown[1, :2] = np.nan
    assert "loss: 15" in removal_of(unknown, RULE).withheld


@pytest.mark.parametrize("blocks", [2, 4, 5, 6, 7])
def test_chance_is_that_of_every_order(blocks):
    sizes = np.array(
        [abs(spearmanr(range(blocks), order)[0]) for order in permutations(range(blocks))]
    )
    level = chance_level(blocks, 0.95, 0)
    assert (sizes > level).mean() <= 0.05
    below = np.unique(sizes.round(9))
    below = below[below < level - 1e-6]
    if len(below):
        assert (sizes > below[-1] + 1e-6).mean() > 0.05, "a smaller level would do"


def test_agreement_is_scipys_rank_correlation():
    rng = np.random.default_rng(1)
    skip = rng.normal(size=9)
    measures = {"same": skip**3, "turned": -skip, "noise": rng.normal(size=9).round(0)}
    found = {one.measure: one for one in agreements(measures, skip, RULE)}
    for name, values in measures.items():
        assert found[name].spearman == pytest.approx(spearmanr(values, skip)[0], abs=1e-12)
    assert found["same"].beyond_chance
    assert found["turned"].beyond_chance
    (constant,) = agreements({"constant": np.zeros(9)}, skip, RULE)
    assert np.isnan(constant.spearman)
    assert not constant.beyond_chance
