"""Effects of theta and context on planted designs, over prompts and over seeds."""

import dataclasses

import numpy as np
import pytest
from calibration import planted_capture
from planting.reports import RULE, checkpoint, planted, report
from scipy import stats as scipy_stats

from gainlens.claims.attribution import attribute
from gainlens.claims.design import (
    EQUAL_FIRSTS,
    EQUAL_LOSS,
    EQUAL_TOKENS,
    NotAttributable,
    contrasts,
)
from gainlens.claims.pairing import paired_prompts
from gainlens.claims.seeds import contrast_intervals, pooled_error
from gainlens.claims.training_table import read_curves, seed_effects

CORNERS = ((512.0, 1e4), (512.0, 5e5), (4096.0, 1e4), (4096.0, 5e5))
ROLES = ("short", "control", "control", "long")


def design(theta: float, context: float, interaction: float = 0.0):
    """Four reports on one set of prompts, whose mean gains have exactly these effects (nats)."""
    rng = np.random.default_rng(0)
    shared = 0.3 * rng.normal(size=40)
    reports = []
    for role, (c, t) in zip(ROLES, CORNERS, strict=True):
        high = (c == 4096, t == 5e5)
        gain = 0.1 + shared + context * high[0] + theta * high[1] + interaction * all(high)
        own = rng.normal(size=40)
        capture = planted_capture(gain + 0.02 * (own - own.mean()), rng)
        place = checkpoint(f"c{c:.0f}-t{t:.0f}", int(c), t)
        reports.append(report(role, capture, place, theta=t))
    return reports


def by_factor(effects, at: str, unit: str, component: str | None = None):
    wanted = (at, unit, component)
    return {e.factor: e.log_gain for e in effects if (e.at, e.unit, e.component) == wanted}


def test_contrasts_of_planted_numbers():
    theta, context, interaction = contrasts([np.array([v]) for v in (1.0, 3.0, 11.0, 17.0)])
    assert (theta[0], context[0], interaction[0]) == (4.0, 12.0, 4.0)


def test_planted_effects_are_found_over_prompts():
    effects, note = attribute(design(0.0, -0.2, 0.1), RULE, None)
    found = by_factor(effects, EQUAL_TOKENS, "prompts")
    assert list(found)[:3] == ["theta", "context", "theta:context"]
    truth = {"theta": 0.05, "context": -0.15, "theta:context": 0.1}
    for factor, value in truth.items():
        assert found[factor].estimate == pytest.approx(value)
        assert found[factor].low < value < found[factor].high
        assert found[factor].high - found[factor].low < 0.05  # paired: what prompts share is gone
        assert found[factor].n == 40
    assert "over prompts" in note
    assert f"{found['context'].estimate:+.3f}" in note


def test_only_the_planted_factor_is_claimed():
    for planted_factor, reports in (("theta", design(0.1, 0.0)), ("context", design(0.0, -0.1))):
        effects, _ = attribute(reports, RULE, None)
        claimed = {e.factor for e in effects if e.log_gain.excludes_zero}
        assert claimed == {planted_factor}


def test_a_missing_control_is_named():
    reports = design(0.1, 0.1)
    effects, note = attribute([reports[0], reports[1], reports[3]], RULE, None)
    assert effects == ()
    assert note == (
        "not attributable: theta and context change together, and there is no control of "
        "context 4,096 with theta 10,000"
    )


def test_a_control_that_differs_otherwise_is_no_control():
    reports = design(0.1, 0.1)
    other = {**reports[1].checkpoint.training, "seed": 1}
    reports[1] = dataclasses.replace(
        reports[1], checkpoint=dataclasses.replace(reports[1].checkpoint, training=other)
    )
    effects, note = attribute(reports, RULE, None)
    assert effects == ()
    assert "no control of context 512 with theta 500,000" in note


def test_two_models_that_differ_in_one_factor_need_no_control():
    reports = design(0.0, 0.3)
    long = dataclasses.replace(reports[2], role="long")
    effects, note = attribute([reports[0], long], RULE, None)
    (effect,) = effects
    assert effect.factor == "context"
    assert effect.log_gain.low < 0.3 < effect.log_gain.high
    assert "nothing else differs" in note


def test_nothing_is_attributed_to_a_model_without_rope_or_without_a_difference():
    reports = design(0.0, 0.3)
    bare = dataclasses.replace(
        reports[3], rope=dataclasses.replace(reports[3].rope, rope_theta=None)
    )
    assert "without RoPE" in attribute([reports[0], bare], RULE, None)[1]
    twin = dataclasses.replace(reports[0], role="long")
    assert "one theta and one context" in attribute([reports[0], twin], RULE, None)[1]


def test_prompts_of_other_texts_are_not_paired():
    reports = design(0.0, 0.0)
    other = dataclasses.replace(
        reports[1], prompts=dataclasses.replace(reports[1].prompts, sha256="other")
    )
    assert paired_prompts([reports[0], other], RULE) is None
    assert "share too few" in attribute([reports[0], other, *reports[2:]], RULE, None)[1]
    few = report("short", planted(1.2, 1, prompts=5), checkpoint("s"))
    more = report("long", planted(1.2, 2, prompts=6), checkpoint("l"))
    assert paired_prompts([few, more], RULE) is None
    assert [len(v) for v in paired_prompts([few, few], RULE)] == [5, 5]


def test_a_crossover_shows_simple_effects_over_prompts():
    """Theta lowers the gain at the small context and raises it at the large one."""
    effects, _ = attribute(design(-0.05, 0.0, 0.1), RULE, None)
    found = by_factor(effects, EQUAL_TOKENS, "prompts")
    assert found["theta at context 512"].high < 0 < found["theta at context 4,096"].low
    assert found["context at theta 10,000"].low < 0.001
    additive, _ = attribute(design(0.1, 0.1), RULE, None)
    assert len(additive) == 3


def test_a_reference_stands_on_no_corner():
    reports = design(0.1, 0.1)
    reports[1] = dataclasses.replace(reports[1], role="reference")
    effects, note = attribute(reports, RULE, None)
    assert effects == ()
    assert "no control of context 512 with theta 500,000" in note


# --- over seeds


def curves(
    gain_of, *, seeds: int = 4, slower: float = 1.0, controls: bool = False, noise: float = 0.002
):
    """A table of training: loss 8 -> 2 in log tokens; long contexts lag by a factor in tokens.

    `gain_of(context, theta, bos_every, loss)` gives the gain, to which each seed adds its own and
    each run its own noise.  The learning rate falls at the last of 25 checkpoints.
    """
    rng = np.random.default_rng(1)
    cells = [(*corner, 1) for corner in CORNERS]
    cells += [(512.0, 1e4, 8), (512.0, 5e5, 8)] if controls else []
    shared = 0.05 * rng.normal(size=seeds)
    rows = []
    for context, theta, every in cells:
        for seed in range(seeds):
            own = shared[seed] + noise * rng.normal()
            for tokens in np.geomspace(1e3, 1e6, 25):
                lag = slower if context == 4096 else 1.0
                loss = 8 - 2 * np.log10(max(tokens / lag, 1e3) / 1e3)
                gain = gain_of(context, theta, every, loss) + own
                rate = 1e-6 if tokens > 9.9e5 else 1e-3
                rows.append((context, theta, every, seed, tokens, rate, loss, gain))
    rng.shuffle(rows)
    names = ("context", "theta", "bos_every", "seed", "tokens", "learning_rate", "loss_512")
    names += ("log_gain_last_ordinary",)
    return dict(zip(names, np.array(rows).T, strict=True))


def test_planted_effects_are_found_over_seeds():
    table = curves(lambda c, t, _, loss: 0.1 * (c == 4096) + 0.05 * (t == 5e5) - 0.02 * loss)
    effects = seed_effects(table, CORNERS, RULE)
    for at in (EQUAL_TOKENS, EQUAL_LOSS):
        found = by_factor(effects, at, "seeds")
        planted_effects = {"context": 0.1, "theta": 0.05, "theta:context": 0.0}
        for factor, effect in planted_effects.items():
            assert found[factor].estimate == pytest.approx(effect, abs=0.005)
            assert found[factor].excludes_zero == (effect > 0)
        assert found["context"].n == 4
        assert found["theta"].high - found["theta"].low < 0.02  # what seeds share is taken off


def test_one_error_is_pooled_over_cells_and_contrasts_are_corrected():
    """Against the two-way analysis of variance and Sidak's correction, by hand."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(4, 3)) + 5 * rng.normal(size=3)
    deviation, degrees = pooled_error(values)
    design_matrix = np.array(
        [
            [*(np.arange(4) == cell), *(np.arange(1, 3) == seed)]
            for cell in range(4)
            for seed in range(3)
        ],
        dtype=float,
    )
    _, squares, rank, _ = np.linalg.lstsq(design_matrix, values.ravel(), rcond=None)
    assert degrees == 12 - rank == 6
    assert deviation == pytest.approx(np.sqrt(squares[0] / 6))
    weights = {
        "theta": np.array([-0.5, 0.5, -0.5, 0.5]),
        "context": np.array([-0.5, -0.5, 0.5, 0.5]),
    }
    found, visible = contrast_intervals(values, weights, 0.95)["theta"]
    quantile = scipy_stats.t.ppf((1 + 0.95 ** (1 / 2)) / 2, 6)
    assert found.high - found.estimate == pytest.approx(quantile * deviation / np.sqrt(3))
    power = scipy_stats.nct.sf(quantile, 6, visible / (deviation / np.sqrt(3)))
    assert power == pytest.approx(0.8, abs=1e-6)


@pytest.mark.slow
def test_no_effect_of_training_is_claimed_more_often_than_stated():
    """Three contrasts of 2-df intervals each would claim something in 14 % of repeats."""
    rng = np.random.default_rng(4)
    rows = contrasts(list(np.eye(4)))
    weights = dict(zip("abc", rows, strict=True))
    claimed = 0
    for _ in range(2000):
        values = rng.normal(size=(4, 3)) + rng.normal(size=3)
        found = contrast_intervals(values, weights, 0.95)
        claimed += any(interval.excludes_zero for interval, _ in found.values())
    assert 0.03 < claimed / 2000 < 0.06


def test_an_effect_of_training_progress_alone_goes_away_at_equal_loss():
    """The gain follows the loss; long contexts lag tenfold in tokens: context does nothing else."""
    table = curves(lambda c, t, _, loss: -0.05 * loss, slower=10.0)
    effects, note = attribute(design(0.0, -0.1), RULE, table)
    at_tokens = by_factor(effects, EQUAL_TOKENS, "seeds")["context"]
    assert at_tokens.estimate == pytest.approx(-0.1, abs=0.005)  # 0.05 x 2 nats of loss
    assert at_tokens.high < 0
    at_loss = by_factor(effects, EQUAL_LOSS, "seeds")["context"]
    assert at_loss.estimate == pytest.approx(0, abs=0.002)
    assert "4 seeds per cell" in note


def test_equal_loss_is_a_loss_that_every_run_reaches_before_its_rate_decays():
    """The rate's decay adds 1 nat to the gain and takes 2 off the loss: neither may enter."""
    table = curves(lambda c, t, _, loss: 0.1 * (c == 4096), slower=10.0)
    last = table["learning_rate"] < 1e-4
    table["log_gain_last_ordinary"][last] += 1.0
    table["loss_512"][last] -= 2.0
    found = by_factor(seed_effects(table, CORNERS, RULE), EQUAL_LOSS, "seeds")["context"]
    assert found.estimate == pytest.approx(0.1, abs=0.005)
    del table["learning_rate"]
    assert EQUAL_LOSS not in {e.at for e in seed_effects(table, CORNERS, RULE)}


def test_equal_loss_follows_the_lowest_loss_so_far():
    """One run forgets after its lowest loss and only begins to recover: no guide to its gain."""
    table = curves(lambda c, t, _, loss: -0.05 * loss, noise=1e-5)
    plain = by_factor(seed_effects(table, CORNERS, RULE), EQUAL_LOSS, "seeds")["context"]
    order = np.unique(table["tokens"])
    late = (table["tokens"] > order[20]) & (table["tokens"] < order[24])
    late &= (table["context"] == 4096) & (table["seed"] == 0)
    table["loss_512"][late] = 9.0 - 1e-6 * table["tokens"][late]
    table["log_gain_last_ordinary"][late] -= 3.0
    worse = by_factor(seed_effects(table, CORNERS, RULE), EQUAL_LOSS, "seeds")["context"]
    assert worse.estimate == pytest.approx(plain.estimate, abs=0.001)


def test_equal_tokens_are_tokens_that_every_run_has_seen():
    """One run is cut short; the gain rises by 0.1 nats per decade of tokens in every cell."""
    table = curves(lambda c, t, _, loss: -0.05 * loss, noise=1e-5)
    keep = (table["tokens"] < 2e5) | (table["context"] == 512) | (table["seed"] != 2)
    table = {name: values[keep] for name, values in table.items()}
    found = by_factor(seed_effects(table, CORNERS, RULE), EQUAL_TOKENS, "seeds")["context"]
    assert found.estimate == pytest.approx(0, abs=0.001)


def test_what_only_these_weights_do_is_not_put_down_to_training():
    """Over prompts of the shipped run context is claimed; over seeds it goes either way."""
    table = curves(lambda *_: 0.1)
    either_way = np.array([0.3, -0.3, 0.2, -0.2])[table["seed"].astype(int)]
    table["log_gain_last_ordinary"] += (table["context"] == 4096) * either_way
    effects, note = attribute(design(0.0, -0.1), RULE, table)
    assert by_factor(effects, EQUAL_TOKENS, "prompts")["context"].high < 0
    assert not by_factor(effects, EQUAL_TOKENS, "seeds")["context"].excludes_zero
    assert "with 4 seeds effects of theta below" in note
    assert "cannot be seen" in note


def test_a_crossover_over_seeds_shows_simple_effects_and_components_are_told_apart():
    def gain(context, theta, *_):
        return 0.1 * (1 if context == 4096 else -1) * (theta == 5e5)

    table = curves(gain)
    table["mlp_last_ordinary"] = table["log_gain_last_ordinary"] - 0.3
    table["attention_last_ordinary"] = 0.3 + 0.001 * np.random.default_rng(0).normal(
        size=len(table["seed"])
    )
    effects = seed_effects(table, CORNERS, RULE)
    whole = by_factor(effects, EQUAL_TOKENS, "seeds")
    assert whole["theta at context 512"].high < 0 < whole["theta at context 4,096"].low
    mlp = by_factor(effects, EQUAL_TOKENS, "seeds", "mlp")
    attention = by_factor(effects, EQUAL_TOKENS, "seeds", "attention")
    assert mlp["theta:context"].low > 0.15
    assert not attention["theta:context"].excludes_zero
    width = mlp["theta"].high - mlp["theta"].low  # six contrasts where the whole has three
    assert width > whole["theta"].high - whole["theta"].low


def test_the_control_of_position_zero_gets_its_own_effect():
    """The short context's gain comes from its many first positions: the control lacks it."""
    table = curves(lambda c, t, every, _: 0.1 * (c == 512 and every == 1), controls=True)
    effects = seed_effects(table, CORNERS, RULE)
    plain = by_factor(effects, EQUAL_TOKENS, "seeds")["context"]
    control = by_factor(effects, EQUAL_FIRSTS, "seeds")["context"]
    assert plain.high < -0.09
    assert control.low < 0 < control.high
    assert EQUAL_FIRSTS not in {e.at for e in seed_effects(curves(lambda *_: 0.1), CORNERS, RULE)}


def test_a_table_that_does_not_fit_is_said_and_prompts_still_count():
    table = curves(lambda *_: 0.1, seeds=1)
    effects, note = attribute(design(0.0, -0.1), RULE, table)
    assert {e.unit for e in effects} == {"prompts"}
    assert "1 seeds" in note
    with pytest.raises(NotAttributable, match="seeds"):
        seed_effects(table, CORNERS, RULE)
    del table["seed"]
    assert "lacks seed" in attribute(design(0.0, -0.1), RULE, table)[1]


def test_the_training_table_is_read_with_its_comments(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("# made by a command\ncontext,theta\n512,1e4\n4096,500000.0\n")
    found = read_curves(path)
    assert found["context"].tolist() == [512, 4096]
    assert found["theta"].tolist() == [1e4, 5e5]
    for text in ("", "context,theta\n", "context,theta\n512,many\n", "context,theta\n512\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"training table table\.csv"):
            read_curves(path)
