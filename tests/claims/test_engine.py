"""The claims engine on numbers whose answer is planted."""

from dataclasses import replace

import numpy as np
import pytest
from planting.evidence import RULE, intervened, planted

from gainlens.claims.claim import catalogue, parse_claim
from gainlens.claims.contrasts import contrast_of
from gainlens.claims.engine import judge_claim
from gainlens.claims.numbers import NotEnough, block_indices, one_number
from gainlens.claims.outcomes import decide, outcome_of_claim
from gainlens.claims.sentences import interval_text
from gainlens.records.interval import Interval

RAMP = np.linspace(0.1, 0.8, 8)
LONG = {"context": 4096.0, "theta": 5e5}


def pair(first, second, roles=("short", "long"), **fields):
    facts = LONG if roles == ("short", "long") else None
    return [
        planted(first, roles[0], seed=1, **fields),
        planted(second, roles[1], seed=2, facts=facts, **fields),
    ]


def series(levels):
    return [
        planted(level, name=f"step-{place}", seed=place, step=10.0**place)
        for place, level in enumerate(levels, start=1)
    ]


def design(effect, interaction=0.0, seeds=4):
    """Return a 2 x 2 design whose main effect of theta is planted."""
    models = []
    for context in (512.0, 4096.0):
        for theta in (1e4, 5e5):
            sign = 0.5 if theta > 1e4 else -0.5
            other = 0.5 if context > 512 else -0.5
            for seed in range(seeds):
                level = 0.3 + sign * effect + 2 * sign * other * interaction
                level += 0.005 * np.random.default_rng(seed * 7 + int(context + theta)).normal()
                models.append(
                    planted(level, name=f"{context}-{theta}-{seed}", seed=seed,
                            facts={"context": context, "theta": theta}, training=float(seed))
                )  # fmt: skip
    return models


def widths(slope):
    def model(place):
        width = {"d_model": 64.0 * 2**place}
        return planted(0.3 + slope * place, name=f"model-{place}", seed=place, facts=width)

    return [model(place) for place in range(8)]


def jump(by):
    return [0.1] * 7 + [0.1 + by]


WORLDS = {
    "long-context-contracts": (pair(0.2, -0.2), pair(0.2, 0.2), "CONFIRMED", "UNEXPECTED"),
    "final-block-jump": ([planted(jump(0.1))], [planted(jump(-0.05))], None, None),
    "final-block-jump-grows": (
        [planted(jump(0.02 * s), name=str(s), seed=s, step=float(s)) for s in range(1, 6)],
        [planted(jump(-0.02 * s), name=str(s), seed=s, step=float(s)) for s in range(1, 6)],
        None, None,
    ),
    "norm-grows-4.5-percent": ([planted(0.044)], [planted(0.2)], None, None),
    "norm-grows-in-every-block": ([planted(0.3)], [planted(jump(-0.4))], None, None),
    "gain-falls-with-depth": ([planted(RAMP[::-1])], [planted(RAMP)], None, None),
    "second-half-writes-less": ([planted(RAMP[::-1])], [planted(RAMP)], None, None),
    "deep-blocks-turn-less": ([planted(RAMP[::-1])], [planted(RAMP)], None, None),
    "influence-ranks-pruning": (
        [planted(RAMP, others=RAMP)], [planted(RAMP, others=RAMP[::-1])], None, None,
    ),
    "massive-erased-late": ([planted(-1.0)], [planted(0.5)], None, None),
    "late-mlps-erase": ([planted(-0.2)], [planted(0.2)], None, None),
    "sinks-in-small-models": ([planted(0.3)], [planted(0.0)], None, None),
    "sinks-grow-with-context": (pair(0.2, 0.4), pair(0.4, 0.2), None, None),
    "tuning-keeps-last-gain": (
        pair(0.3, 0.3, ("base", "tuned"), scatter=0.001), pair(0.3, -0.3, ("base", "tuned")),
        None, None,
    ),
    "theta-raises-last-gain": (design(0.2), design(-0.2), None, None),
    "massive-zeroing-ruins": (
        [intervened(3.0, 0.01, beyond=True)], [intervened(0.2, 0.01, beyond=True)], None, None,
    ),
    "massive-mean-harmless": (
        [intervened(0.001, 0.0, beyond=False)], [intervened(0.5, 0.0, beyond=False)], None, None,
    ),
    "sinks-dispensable": (
        [intervened(0.002, 0.1, beyond=False)], [intervened(1.2, 0.1, beyond=False)], None, None,
    ),
    "last-attention-matters-less": (
        [intervened(0.1, 0.5, beyond=True)], [intervened(0.5, 0.1, beyond=True)], None, None,
    ),
    "gain-unrelated-to-width": (None, widths(0.1), None, "CONTRADICTED"),
}  # fmt: skip


def way(claim, evidence):
    """Rename the planted way of reducing to the claim's own."""
    return [replace(one, values={claim.estimand.reduction: one.values["mean"]}) for one in evidence]


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_each_claim_has_a_world_where_it_holds_and_one_where_it_fails(name):
    """No world of 8 models shows that two ranks are unrelated, so that claim can only fail."""
    claim = catalogue()[name]
    holds, fails, supported, contradicted = WORLDS[name]
    if holds is not None:
        verdict = judge_claim(claim, way(claim, holds), RULE)
        assert verdict.outcome == (supported or "SUPPORTED"), verdict.reasons
        assert verdict.robust is True
    verdict = judge_claim(claim, way(claim, fails), RULE)
    assert verdict.outcome == (contradicted or "CONTRADICTED"), verdict.reasons
    assert 1 <= len(verdict.reasons) <= 5


def test_no_number_if_a_premise_fails_or_is_not_known():
    claim = catalogue()["long-context-contracts"]
    evidence = way(claim, pair(0.2, -0.2))
    same = [evidence[0], replace(evidence[1], facts=evidence[0].facts)]
    verdict = judge_claim(claim, same, RULE)
    assert (verdict.outcome, verdict.robust, verdict.premise) == ("NOT TESTED", None, False)
    assert verdict.measured == "CONFIRMED"
    assert verdict.reasons[0].startswith("The premise fails")
    unknown = evidence[1].facts | {"theta": None}
    evidence[1] = replace(evidence[1], facts=unknown)
    verdict = judge_claim(claim, evidence, RULE)
    assert (verdict.outcome, verdict.premise) == ("NOT TESTED", None)


def test_what_cannot_be_decided_says_why():
    claims = catalogue()

    def outcome(name, evidence):
        verdict = judge_claim(claims[name], way(claims[name], evidence), RULE)
        return verdict.outcome, verdict.reasons[0]

    assert outcome("final-block-jump", [])[0] == "NOT TESTED"
    assert "model=MODEL" in outcome("final-block-jump", [])[1]
    assert outcome("final-block-jump", [planted(jump(0.1), prompts=5)])[0] == "UNDETERMINED"
    assert outcome("final-block-jump", [planted(0.1), planted(0.1)])[0] == "NOT TESTED"
    few = outcome("theta-raises-last-gain", design(0.2, seeds=1))
    assert few[0] == "UNDETERMINED"
    assert "seed" in few[1]
    assert outcome("gain-unrelated-to-width", widths(0.1)[:4])[0] == "UNDETERMINED"
    assert outcome("final-block-jump-grows", series([0.1, 0.2]))[0] == "UNDETERMINED"
    unpaired = pair(0.2, 0.4)
    unpaired[1] = replace(unpaired[1], sha256="other")
    assert outcome("sinks-grow-with-context", unpaired)[0] == "UNDETERMINED"


def test_a_premise_that_fails_comes_before_what_could_not_be_measured():
    claim = catalogue()["long-context-contracts"]
    evidence = way(claim, pair(0.2, -0.2))
    blind = replace(evidence[1], values={}, unmeasured="this back end shows nothing")
    verdict = judge_claim(claim, [evidence[0], blind], RULE)
    assert (verdict.outcome, verdict.premise) == ("UNDETERMINED", True)
    assert verdict.reasons == ("This back end shows nothing.",)
    assert verdict.models == {"short": "short", "long": "long"}
    same = replace(blind, facts=evidence[0].facts)
    verdict = judge_claim(claim, [evidence[0], same], RULE)
    assert (verdict.outcome, verdict.robust, verdict.premise) == ("NOT TESTED", None, False)
    assert verdict.reasons[0].startswith("The premise fails")
    assert verdict.reasons[1] == "This back end shows nothing."


def test_an_effect_holds_the_change_the_controls_and_their_paired_difference():
    claim = catalogue()["sinks-dispensable"]
    (one,) = way(claim, [intervened(1.2, 0.1, beyond=False, between=0.05)])
    effect = judge_claim(claim, [one], RULE).effect
    last = one.controlled.change[-1]
    drawn = one.controlled.draws[:, -1]
    assert effect.change.estimate == pytest.approx(last.mean())
    assert effect.control_change.estimate == pytest.approx(drawn.mean())
    assert effect.excess.estimate == pytest.approx(last.mean() - drawn.mean())
    assert effect.draws == pytest.approx(drawn.mean(axis=1))
    assert effect.change.known
    assert effect.change.n == 32


def test_an_interval_beside_a_random_control_allows_for_its_draws():
    """Three draws whose means differ by 0.2: Student's t with 2 degrees of freedom, by hand."""
    claim = catalogue()["last-attention-matters-less"]
    (one,) = way(claim, [intervened(0.1, 0.3, beyond=True, between=0.2)])
    verdict = judge_claim(claim, [one], RULE)
    means = one.controlled.draws[:, -1].mean(axis=1)
    half = 4.302653 * means.std(ddof=1) / np.sqrt(3)
    (estimate,) = verdict.estimates
    assert estimate.interval.high - estimate.interval.estimate == pytest.approx(half, rel=0.01)
    assert estimate.interval == verdict.effect.excess
    assert verdict.outcome == "UNDETERMINED"
    prompts_alone = verdict.effect.change
    assert prompts_alone.high - prompts_alone.estimate < 0.02
    (every,) = way(claim, [intervened(0.1, 0.3, beyond=True, between=0.2, population=3)])
    verdict = judge_claim(claim, [every], RULE)
    assert verdict.effect.exhausted
    assert verdict.outcome == "SUPPORTED"


@pytest.mark.parametrize("name", ["massive-zeroing-ruins", "sinks-dispensable"])
def test_what_an_intervention_does_is_said_with_its_control_alone(name):
    claim = catalogue()[name]
    (one,) = way(claim, [intervened(1.2, 0.1, beyond=claim.intervention.against == "control")])
    verdict = judge_claim(claim, [one], RULE)
    causal = [reason for reason in verdict.reasons if claim.intervention.words in reason.lower()]
    assert len(causal) == 1
    assert claim.intervention.control_words in causal[0]
    undrawn = replace(one, values={}, controlled=None, unmeasured="no control can be drawn")
    verdict = judge_claim(claim, [undrawn], RULE)
    assert verdict.outcome == "UNDETERMINED"
    assert verdict.reasons == ("No control can be drawn.",)
    assert verdict.effect is None


@pytest.mark.parametrize(("control", "told"), [(0.1, True), (1.2, False)])
def test_a_control_that_does_as_much_is_said(control, told):
    claim = catalogue()["sinks-dispensable"]
    (one,) = way(claim, [intervened(1.2, control, beyond=False)])
    verdict = judge_claim(claim, [one], RULE)
    assert "predicts = 0 ± 0.05" in verdict.reasons[1]
    assert ("cannot be told from 0" in verdict.reasons[1]) is not told


def test_a_difference_of_effects_is_paired_over_prompts():
    text = (
        'name = "c"\nstatement = "s"\nroles = ["a", "b"]\n[intervention]\nkind = "mask sink"\n'
        '[estimand]\nmetric = "loss"\nblocks = "last"\n'
        '[contrast]\nkind = "difference"\nprediction = "> 0"'
    )
    claim = parse_claim(text)
    first = intervened(0.2, 0.1, beyond=False, role="a", seed=1)
    second = intervened(0.5, 0.1, beyond=False, role="b", seed=2)
    verdict = judge_claim(claim, [first, second], RULE)
    assert verdict.outcome == "SUPPORTED"
    wanted = (second.controlled.change - first.controlled.change)[-1].mean()
    assert verdict.effect.change.estimate == pytest.approx(wanted)
    drawn = (second.controlled.control - first.controlled.control)[-1].mean()
    assert verdict.effect.excess.estimate == pytest.approx(wanted - drawn)


def test_an_interaction_is_said_beside_a_main_effect():
    claim = catalogue()["theta-raises-last-gain"]
    verdict = judge_claim(claim, way(claim, design(0.2, interaction=0.3)), RULE)
    assert verdict.independent == "seeds"
    assert any("interaction" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("ends", "prediction", "margin", "outcome"),
    [
        ((0.2, 0.3), "> 0.1", 0.0, "SUPPORTED"),
        ((0.0, 0.05), "> 0.1", 0.0, "CONTRADICTED"),
        ((0.05, 0.2), "> 0.1", 0.0, "UNDETERMINED"),
        ((0.105, 0.2), "> 0.1", 0.01, "UNDETERMINED"),
        ((0.095, 0.105), "> 0.1", 0.01, "EQUIVALENT"),
        ((-0.3, -0.2), "< 0", 0.01, "SUPPORTED"),
        ((0.2, 0.3), "< 0", 0.01, "CONTRADICTED"),
        ((-0.005, 0.005), "= 0", 0.01, "SUPPORTED"),
        ((0.02, 0.03), "= 0", 0.01, "CONTRADICTED"),
        ((0.005, 0.03), "= 0", 0.01, "UNDETERMINED"),
        ((0.1, 0.9), "in [0, 1]", 0.0, "SUPPORTED"),
        ((1.1, 1.9), "in [0, 1]", 0.0, "CONTRADICTED"),
        ((np.nan, np.nan), "> 0", 0.0, "UNDETERMINED"),
    ],
)
def test_the_outcome_of_one_interval(ends, prediction, margin, outcome):
    middle = sum(ends) / 2
    assert decide(Interval(middle, *ends, 32, 0.95, "planted"), prediction, margin) == outcome


def test_blocks_are_chosen_as_the_claim_says():
    chosen = {
        "first": [0], "last": [8], 3: [3], -2: [7], -1: [8], "1:3": [1, 2], "-2:": [7, 8],
        "first half": [0, 1, 2, 3], "last half": [5, 6, 7, 8], "middle half": [2, 3, 4, 5, 6],
        "last third": [6, 7, 8], "each": list(range(9)),
    }  # fmt: skip
    for blocks, indices in chosen.items():
        assert block_indices(blocks, 9).tolist() == indices, blocks
    with pytest.raises(NotEnough, match="9 blocks"):
        block_indices(20, 9)


def test_minus_and_slope_over_blocks():
    claim = catalogue()["final-block-jump"]
    values = np.arange(8.0)[:, None] ** 2 + np.zeros((8, 3))
    np.testing.assert_allclose(one_number(claim, values), 49 - np.median([4, 9, 16, 25]))
    estimand = claim.estimand.model_copy(
        update={"over_blocks": "slope", "minus": None, "blocks": "0:"}
    )
    steep = claim.model_copy(update={"estimand": estimand})
    np.testing.assert_allclose(one_number(steep, 3.0 * np.arange(8.0)[:, None] + 1), 3.0)


def test_no_contrast_cries_wolf_and_each_finds_what_is_there():
    """At no effect at most 5 % plus two binomial standard errors of 500 decide; 2 sd are found."""
    rule = RULE.model_copy(update={"resamples": 200})
    level = parse_claim(
        'name = "l"\nstatement = "s"\nroles = ["model"]\n[estimand]\nmetric = "angle"\n'
        'blocks = "last"\n[contrast]\nkind = "level"\nprediction = "> 0"'
    )
    worlds = {
        "level": (level, lambda e, s: [planted(e, scatter=1.0, seed=s)]),
        "difference": (
            catalogue()["sinks-grow-with-context"],
            lambda e, s: [
                planted(0.0, "short", scatter=1.0, seed=2 * s),
                planted(3 * e, "long", scatter=1.0, seed=2 * s + 1, facts=LONG),
            ],
        ),
        "trend": (
            catalogue()["final-block-jump-grows"],
            lambda e, s: [
                planted(jump(e * k), name=str(k), scatter=1.0, seed=4 * s + k, step=np.exp(k))
                for k in range(4)
            ],
        ),
    }  # fmt: skip
    repeats = 500
    bound = 0.05 + 2 * np.sqrt(0.05 * 0.95 / repeats)
    for kind, (claim, world) in worlds.items():

        def decided(effect, seed, claim=claim, world=world):
            evidence = way(claim, world(effect, seed))
            way_of = claim.estimand.reduction
            return outcome_of_claim(claim, contrast_of(claim, evidence, way_of, rule))

        null = [decided(0.0, seed) for seed in range(repeats)]
        assert np.mean([one in ("SUPPORTED", "CONTRADICTED") for one in null]) <= bound, kind
        assert decided(2.0, 0) == "SUPPORTED", kind


def test_robust_does_not_fall_with_the_number_of_prompts():
    claim = catalogue()["late-mlps-erase"]
    shares = []
    for prompts in (16, 32, 96):
        worlds = [planted(-0.05, scatter=0.3, prompts=prompts, seed=seed) for seed in range(60)]
        found = [judge_claim(claim, way(claim, [world]), RULE) for world in worlds]
        shares.append(np.mean([one.robust is True for one in found]))
    assert shares == sorted(shares), shares
    assert shares[-1] > shares[0]


def test_a_rank_that_chance_reaches_supports_nothing():
    """Over 8 blocks orders drawn at random reach 0.71; the planted correlation is 0.62."""
    claim = catalogue()["influence-ranks-pruning"]
    others = RAMP[[2, 3, 0, 1, 6, 7, 4, 5]]
    evidence = way(claim, [planted(RAMP, others=others, scatter=0.001)])
    verdict = judge_claim(claim, evidence, RULE)
    (estimate,) = verdict.estimates
    assert estimate.interval.low > 0
    assert estimate.interval.estimate < 0.71
    assert verdict.outcome == "UNDETERMINED"
    assert any("at random" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("order", [(2, 3, 0, 1, 6, 7, 4, 5), (5, 4, 7, 6, 1, 0, 3, 2)])
def test_a_rank_within_chance_contradicts_nothing_either(order):
    """A correlation of -0.62 among 8 blocks is as likely by chance as one of 0.62."""
    claim = catalogue()["influence-ranks-pruning"]
    evidence = way(claim, [planted(RAMP, others=RAMP[list(order)], scatter=0.001)])
    verdict = judge_claim(claim, evidence, RULE)
    assert abs(verdict.estimates[0].interval.estimate) == pytest.approx(0.619, abs=0.001)
    assert verdict.outcome == "UNDETERMINED"


def test_a_rank_of_close_blocks_may_be_higher_than_its_resamples():
    """Blocks as close as their standard errors: each resample shuffles them, the truth does not."""
    claim = catalogue()["influence-ranks-pruning"]
    held = 0
    for seed in range(40):
        (one,) = way(claim, [planted(0.1 * RAMP, others=0.1 * RAMP, scatter=0.06, seed=seed)])
        (found,) = contrast_of(claim, [one], claim.estimand.reduction, RULE).estimates
        assert -1 <= found.interval.low <= found.interval.estimate <= found.interval.high <= 1
        held += found.interval.high >= 1 - 1e-12
    assert held >= 36


def test_four_in_five_analyses_must_decide():
    """The last token says nothing, on all prompts or on either half: three of nine analyses."""
    claim = catalogue()["late-mlps-erase"]
    one = planted(-0.5, ways=("mean", "median", "last_token"))
    noise = 50 * np.random.default_rng(0).normal(size=one.values["mean"].shape)
    values = dict(one.values) | {"last_token": noise - noise.mean(axis=1, keepdims=True)}
    verdict = judge_claim(claim, [replace(one, values=values)], RULE)
    assert verdict.outcome == "SUPPORTED"
    assert (verdict.disagreeing, verdict.analyses) == ((), 9)
    assert verdict.robust is False


def test_bands_over_each_block_are_wider_than_a_single_interval():
    claim = catalogue()["norm-grows-in-every-block"]
    one = way(claim, [planted(0.3)])[0]
    found = contrast_of(claim, [one], claim.estimand.reduction, RULE).estimates
    alone = claim.model_copy(update={"estimand": claim.estimand.model_copy(update={"blocks": 3})})
    (single,) = contrast_of(alone, [one], claim.estimand.reduction, RULE).estimates
    width = found[3].interval.high - found[3].interval.low
    assert width > 1.1 * (single.interval.high - single.interval.low)


def test_a_rank_over_models_has_the_interval_of_bonett_and_wright():
    claim = catalogue()["gain-unrelated-to-width"]
    levels = [0.1, 0.3, 0.2, 0.5, 0.4, 0.6, 0.8, 0.7]
    models = [
        planted(level, name=f"model-{place}", seed=place, facts={"d_model": 64.0 * 2**place})
        for place, level in enumerate(levels)
    ]
    (found,) = contrast_of(claim, way(claim, models), claim.estimand.reduction, RULE).estimates
    rho = 1 - 6 * 6 / (8 * 63)
    half = 1.959964 * np.sqrt((1 + rho**2 / 2) / 5)
    np.testing.assert_allclose(
        [found.interval.estimate, found.interval.low, found.interval.high],
        [rho, np.tanh(np.arctanh(rho) - half), np.tanh(np.arctanh(rho) + half)],
        rtol=1e-6,
    )


def test_the_block_that_contradicts_is_named_before_one_that_is_open():
    claim = catalogue()["norm-grows-in-every-block"]
    (one,) = way(claim, [planted([0.3, 0.3, 0.01, 0.3, 0.3, 0.3, 0.3, -0.4])])
    verdict = judge_claim(claim, [one], RULE)
    assert decide(verdict.estimates[2].interval, "> 0", claim.margin) == "UNDETERMINED"
    assert verdict.outcome == "CONTRADICTED"
    assert "of block 7 is" in verdict.reasons[0]


def test_prompts_pair_by_name_whatever_their_order():
    """The long model holds the prompts in reverse, and the short one lacks two of them."""
    claim = catalogue()["sinks-grow-with-context"]
    shared = np.random.default_rng(0).normal(size=32)
    short, long = way(claim, pair(0.0, 0.1, scatter=0.001))

    def holding(one, rows):
        return replace(
            one,
            ids=tuple(one.ids[row] for row in rows),
            lengths=one.lengths[rows],
            values={over: (own + shared)[:, rows] for over, own in one.values.items()},
        )

    models = [holding(short, np.arange(30)), holding(long, np.arange(32)[::-1])]
    (found,) = contrast_of(claim, models, claim.estimand.reduction, RULE).estimates
    assert found.interval.n == 30
    assert found.interval.low == pytest.approx(0.1, abs=0.002)


def test_equal_analyses_count_once():
    claim = catalogue()["late-mlps-erase"]
    one = planted(-0.2)
    same = replace(one, values=dict.fromkeys(("mean", "median"), one.values["mean"]))
    assert judge_claim(claim, [same], RULE).analyses == 3  # all prompts and either half


def test_every_model_of_a_role_must_meet_a_premise():
    text = (
        'name = "c"\nstatement = "s"\nmodels = "series"\n[premise]\n"model.layers >= 8" = true\n'
        '[estimand]\nmetric = "angle"\nblocks = "last"\n'
        '[contrast]\nkind = "trend"\nx = "step"\nprediction = "> 0"'
    )
    models = series([0.1, 0.2, 0.3])
    assert judge_claim(parse_claim(text), models, RULE).outcome == "SUPPORTED"
    models[1] = replace(models[1], facts=models[1].facts | {"layers": 4.0})
    assert judge_claim(parse_claim(text), models, RULE).outcome == "NOT TESTED"


def test_a_verdict_that_the_longer_prompts_contradict_is_not_robust():
    claim = catalogue()["late-mlps-erase"]
    (one,) = way(claim, [planted(-1.0)])
    values = {name: found + 1.3 * (one.lengths >= 26) for name, found in one.values.items()}
    verdict = judge_claim(claim, [replace(one, values=values)], RULE)
    assert verdict.outcome == "SUPPORTED"
    assert verdict.robust is False
    assert verdict.disagreeing == ("mean, long prompts",)


def test_a_trend_on_a_logarithmic_scale_has_the_slope_per_e_fold():
    claim = catalogue()["final-block-jump-grows"]
    steps = (10, 100, 500, 4000)
    levels = [jump(0.3 * np.log(step)) for step in steps]
    models = [
        planted(level, name=str(step), seed=step, scatter=0.001, step=float(step))
        for level, step in zip(levels, steps, strict=True)
    ]
    (found,) = contrast_of(claim, way(claim, models), claim.estimand.reduction, RULE).estimates
    assert found.interval.estimate == pytest.approx(0.3, abs=0.002)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0804, 0.08, 0.0875), "+0.08040 [+0.08000, +0.08750] nats"),
        ((-1.25, -1.5, -1.0), "-1.250 [-1.500, -1.000] nats"),
        ((12345.0, 12000.0, 13000.0), "+12345 [+12000, +13000] nats"),
        ((0.0, -1e-9, 1e-9), "+0.000000 [+0.000000, +0.000000] nats"),
    ],
)
def test_an_interval_is_written_with_one_number_of_decimals(numbers, text):
    assert interval_text(Interval(*numbers, 32, 0.95, "planted"), "nats") == text
