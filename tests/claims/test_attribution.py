"""Effects of theta and context on planted designs, over prompts and over seeds."""

import dataclasses

import numpy as np
import pytest
from calibration import planted_capture
from planting.reports import RULE, checkpoint, planted, report
from scipy import stats as scipy_stats

from gainlens.claims.attribution import attribute
from gainlens.claims.design import AT_FIRSTS, AT_LOSS, AT_TOKENS, contrasts
from gainlens.claims.pairing import paired_prompts
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


def by_factor(effects, at: str, unit: str):
    return {e.factor: e.log_gain for e in effects if (e.at, e.unit) == (at, unit)}


def test_contrasts_of_planted_numbers():
    theta, context, interaction = contrasts([np.array([v]) for v in (1.0, 3.0, 11.0, 17.0)])
    assert (theta[0], context[0], interaction[0]) == (4.0, 12.0, 4.0)


def test_planted_effects_are_found_over_prompts():
    effects, note = attribute(design(0.0, -0.2, 0.1), RULE, None)
    found = by_factor(effects, AT_TOKENS, "prompts")
    assert list(found) == ["theta", "context", "theta:context"]
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
        claimed = {e.factor for e in effects if not e.log_gain.low < 0 < e.log_gain.high}
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


# --- over seeds


def curves(gain_of, *, seeds: int = 4, slower: float = 1.0, controls: bool = False):
    """A table of training: loss 8 -> 2 in log tokens; long contexts lag by a factor in tokens.

    `gain_of(context, theta, bos_every, loss)` gives the gain, to which each seed adds its own.
    """
    rng = np.random.default_rng(1)
    cells = [(*corner, 1) for corner in CORNERS]
    cells += [(512.0, 1e4, 8), (512.0, 5e5, 8)] if controls else []
    rows = []
    for context, theta, every in cells:
        for seed in range(seeds):
            own = 0.002 * rng.normal()
            for tokens in np.geomspace(1e3, 1e6, 25):
                lag = slower if context == 4096 else 1.0
                loss = 8 - 2 * np.log10(max(tokens / lag, 1e3) / 1e3)
                gain = gain_of(context, theta, every, loss) + own
                rows.append((context, theta, every, seed, tokens, loss, gain))
    rng.shuffle(rows)
    names = ("context", "theta", "bos_every", "seed", "tokens", "loss_512")
    names += ("log_gain_last_ordinary",)
    return dict(zip(names, np.array(rows).T, strict=True))


def test_planted_effects_are_found_over_seeds():
    table = curves(lambda c, t, _, loss: 0.1 * (c == 4096) + 0.05 * (t == 5e5) - 0.02 * loss)
    effects = seed_effects(table, CORNERS, RULE)
    for at in (AT_TOKENS, AT_LOSS):
        found = by_factor(effects, at, "seeds")
        assert found["context"].low < 0.1 < found["context"].high
        assert found["theta"].low < 0.05 < found["theta"].high
        assert found["theta:context"].low < 0 < found["theta:context"].high
        assert found["context"].n == 4


def test_seed_interval_is_students_t_over_seed_contrasts():
    table = curves(lambda c, *_: 0.1 * (c == 4096))
    last = table["tokens"] == table["tokens"].max()
    values = []
    for context, theta in CORNERS:
        cell = last & (table["context"] == context) & (table["theta"] == theta)
        order = np.argsort(table["seed"][cell])
        values.append(table["log_gain_last_ordinary"][cell][order])
    expected = scipy_stats.ttest_1samp(contrasts(values)[1], 0).confidence_interval(0.95)
    found = by_factor(seed_effects(table, CORNERS, RULE), AT_TOKENS, "seeds")["context"]
    np.testing.assert_allclose((found.low, found.high), expected)


def test_an_effect_of_training_progress_alone_goes_away_at_equal_loss():
    """The gain follows the loss; long contexts lag tenfold in tokens: context does nothing else."""
    table = curves(lambda c, t, _, loss: -0.05 * loss, slower=10.0)
    effects, note = attribute(design(0.0, -0.1), RULE, table)
    at_tokens = by_factor(effects, AT_TOKENS, "seeds")["context"]
    assert at_tokens.estimate == pytest.approx(-0.1, abs=0.005)  # 0.05 x 2 nats of loss
    assert at_tokens.high < 0
    at_loss = by_factor(effects, AT_LOSS, "seeds")["context"]
    assert at_loss.low < 0 < at_loss.high
    assert "the effect of context cannot be told from training progress" in note
    real = curves(lambda c, t, _, loss: -0.05 * loss - 0.1 * (c == 4096), slower=10.0)
    note = attribute(design(0.0, -0.1), RULE, real)[1]
    assert "training progress" not in note
    assert "over prompts alone" not in note
    assert "4 seeds a cell" in note


def test_what_only_these_weights_do_is_not_put_down_to_training():
    """Over prompts of the shipped run context is claimed; over seeds it goes either way."""
    table = curves(lambda *_: 0.1)
    either_way = np.array([0.3, -0.3, 0.2, -0.2])[table["seed"].astype(int)]
    table["log_gain_last_ordinary"] += (table["context"] == 4096) * either_way
    effects, note = attribute(design(0.0, -0.1), RULE, table)
    assert by_factor(effects, AT_TOKENS, "prompts")["context"].high < 0
    assert "over seeds none can be told from 0" in note
    assert "over prompts alone that of context would be claimed" in note


def test_the_control_of_position_zero_gets_its_own_effect():
    """The short context's gain comes from its many first positions: the control lacks it."""
    table = curves(lambda c, t, every, _: 0.1 * (c == 512 and every == 1), controls=True)
    effects = seed_effects(table, CORNERS, RULE)
    plain = by_factor(effects, AT_TOKENS, "seeds")["context"]
    control = by_factor(effects, AT_FIRSTS, "seeds")["context"]
    assert plain.high < -0.09
    assert control.low < 0 < control.high
    assert AT_FIRSTS not in {e.at for e in seed_effects(curves(lambda *_: 0.1), CORNERS, RULE)}


def test_a_table_that_does_not_fit_is_said_and_prompts_still_count():
    table = curves(lambda *_: 0.1, seeds=1)
    effects, note = attribute(design(0.0, -0.1), RULE, table)
    assert {e.unit for e in effects} == {"prompts"}
    assert "1 seeds" in note
    del table["loss_512"]
    assert "lacks loss_512" in attribute(design(0.0, -0.1), RULE, table)[1]


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
