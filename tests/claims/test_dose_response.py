"""Trends over a training design whose effects are planted."""

import itertools

import numpy as np
import pandas as pd
import pytest

from gainlens.claims.dose_response import (
    CONTRASTS,
    Design,
    cell_intervals,
    control_effects,
    control_trends,
    read_design,
    seed_contrasts,
    trends,
)

CONTEXTS = (256, 512, 1024, 2048, 4096, 8192)
THETAS = (1e4, 5e5)


def design(slope=0.0, theta=0.0, interaction=0.0, seed=0):
    """Return planted effects plus a seed's own level and scatter that grows with the context."""
    rng = np.random.default_rng(seed)
    doublings = np.log2(CONTEXTS)[:, None, None]
    high = np.array([0.0, 1.0])[None, :, None]
    scatter = np.linspace(0.02, 0.1, len(CONTEXTS))[:, None, None]
    values = 0.25 + slope * doublings + theta * high + interaction * high * doublings
    values = values + 0.05 * rng.standard_normal((1, 1, 8))
    values = values + scatter * rng.standard_normal((len(CONTEXTS), 2, 8))
    return Design(CONTEXTS, THETAS, tuple(range(8)), values)


def test_contrasts_are_those_of_least_squares():
    values = design(slope=-0.03, theta=0.1, interaction=0.01, seed=3)
    found = seed_contrasts(values)
    doublings = np.log2(CONTEXTS)
    for seed in range(8):
        slopes = [np.polyfit(doublings, values.values[:, index, seed], 1)[0] for index in (0, 1)]
        np.testing.assert_allclose(found["context"][seed], np.mean(slopes))
        np.testing.assert_allclose(found["theta:context"][seed], slopes[1] - slopes[0])
        gap = values.values[:, 1, seed] - values.values[:, 0, seed]
        np.testing.assert_allclose(found["theta"][seed], gap.mean())


def test_the_null_is_rejected_as_rarely_as_stated():
    """At most 5 % plus two binomial standard errors of 500 find any of the three effects."""
    alarms = [
        any(interval.excludes_zero for interval in trends(design(seed=seed)).values())
        for seed in range(500)
    ]
    assert 0.005 < np.mean(alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_planted_effect_is_found_and_alone(name):
    keys = {"context": "slope", "theta": "theta", "theta:context": "interaction"}
    sizes = {"context": -0.1, "theta": 0.4, "theta:context": 0.2}
    found = trends(design(**{keys[name]: sizes[name]}, seed=5))
    assert found[name].excludes_zero
    if name != "theta:context":  # an interaction is a main effect of theta and a slope as well
        others = [one for other, one in found.items() if other != name]
        assert not any(one.excludes_zero for one in others)


def test_the_shipped_table_is_a_complete_design():
    shipped = read_design()
    assert (shipped.contexts, len(shipped.seeds)) == (CONTEXTS, 8)
    assert shipped.thetas == THETAS
    cells = cell_intervals(shipped)
    assert (cells[..., 1] < cells[..., 0]).all()
    assert (cells[..., 0] < cells[..., 2]).all()
    with pytest.raises(ValueError, match="nothing"):
        read_design(measure="nothing")


CONTROL = 3.0
"""Nats that many first positions add to the gain of a planted control."""


def planted_table(path, *, left_out=(), controls=()):
    """Write runs whose loss falls by 1 per million tokens, from a start that grows with the
    context; the gain is the loss plus 10 x seed, so that at equal loss only the seed remains.

    controls: contexts that have runs with many first positions as well, at the first theta.
    left_out: pairs of a context or a group with a seed.
    """
    dose = itertools.product(("dose",), (256, 512, 1024), THETAS, (0, 1))
    many = itertools.product(("first_positions",), controls, THETAS[:1], (0, 1))
    rows = []
    for group, context, theta, seed in (*dose, *many):
        if (context, seed) in left_out or (group, seed) in left_out:
            continue
        for tokens in (0, 2, 4, 6, 8, 10):
            loss = 20.0 + context / 512 - tokens
            row = {"group": group, "context": context, "theta": theta, "seed": seed}
            row |= {"tokens": tokens, "block": 0, "positions": "", "length": 0}
            # the pairs of one seed differ by no constant, or Student's t would have no spread
            gain = loss + 10 * seed + (CONTROL + seed / 100) * (group != "dose")
            rows.append(row | {"measure": "log_gain", "value": gain})
            rows.append(row | {"measure": "loss", "length": 256, "value": loss})
            rows.append(row | {"measure": "loss", "length": 512, "value": -loss})
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_equal_loss_takes_each_run_where_it_has_the_loss_that_all_reach(tmp_path):
    table = planted_table(tmp_path / "table.parquet")
    before_decay = 20.0 + 1024 / 512 - 8
    values = read_design(table, equal_loss=True).values
    np.testing.assert_allclose(values[..., 0], before_decay)
    np.testing.assert_allclose(values[..., 1], before_decay + 10)
    ends = read_design(table).values[:, 0, 0]
    np.testing.assert_allclose(ends, [10.5, 11.0, 12.0])


def test_a_context_that_lacks_a_seed_is_left_out(tmp_path):
    table = planted_table(tmp_path / "table.parquet", left_out=[(512, 1)])
    assert read_design(table).contexts == (256, 1024)
    table = planted_table(tmp_path / "table.parquet", left_out=[(512, 1), (1024, 0)])
    with pytest.raises(ValueError, match="fewer than two contexts"):
        read_design(table)


def test_a_control_is_paired_by_seed_with_its_context_and_with_the_shortest(tmp_path):
    table = planted_table(tmp_path / "table.parquet", controls=(512, 1024))
    found = control_effects(table)
    assert list(found) == [512, 1024]
    for context, effects in found.items():
        longer = (context - 256) / 512  # its loss, and so its gain, starts higher by so much
        assert effects.same_context.estimate == pytest.approx(CONTROL + 0.005)
        assert effects.shortest_context.estimate == pytest.approx(CONTROL + 0.005 + longer)
        assert effects.same_context.confidence == pytest.approx(0.975)
    equal = control_effects(table, equal_loss=True)
    assert equal[1024].shortest_context.estimate == pytest.approx(CONTROL + 0.005)


def test_all_controls_together_give_one_difference_and_one_slope_per_seed(tmp_path):
    table = planted_table(tmp_path / "table.parquet", controls=(512, 1024))
    found = control_trends(table)
    assert found.first_positions.estimate == pytest.approx(CONTROL + 0.005)
    # context 256 is its own control, and lacks CONTROL; at 1,024 the loss starts 1.5 higher
    assert found.context.estimate == pytest.approx((CONTROL + 0.005 + 1.5) / 2)
    assert found.context.n == 2
    assert found.context.confidence == pytest.approx(0.975)
    equal = control_trends(table, equal_loss=True)
    assert equal.first_positions.estimate == pytest.approx(CONTROL + 0.005)
    assert equal.context.estimate == pytest.approx((CONTROL + 0.005) / 2)


def test_controls_without_every_seed_are_left_out(tmp_path):
    table = planted_table(tmp_path / "table.parquet", controls=(512, 1024), left_out=[(512, 1)])
    assert list(control_effects(table)) == [1024]
    for left_out in ([(512, 1)], [("first_positions", 1)]):
        table = planted_table(tmp_path / "table.parquet", controls=(512,), left_out=left_out)
        with pytest.raises(ValueError, match="control"):
            control_effects(table)


def test_every_longer_context_has_its_shipped_control():
    assert list(control_effects()) == [512, 1024, 2048, 4096, 8192]
