"""The verdict on planted captures: outcomes, cells, robustness, premise, pairing, sentences."""

import dataclasses

import numpy as np
import pytest
from calibration import planted_capture
from planting.reports import RULE, checkpoint, pair, planted, report

from gainlens.claims.cells import (
    BLIND,
    LENGTHS,
    NO_TOKENS,
    ONE_VALUE,
    block_gains,
    grade_cells,
    is_equivalent,
    length_halves,
)
from gainlens.claims.intervals import mean_interval
from gainlens.claims.judging import judge
from gainlens.claims.outcomes import behaviour_of, outcome_of
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import REDUCTIONS, TOKEN_CLASSES, UNIT_ROUNDOFF
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.records.gains import MassiveToken
from gainlens.records.interval import Interval
from gainlens.records.verdict import GainCell


def interval(low: float, high: float, status: str = "ok") -> Interval:
    return Interval((low + high) / 2, low, high, 40, 0.95, "planted", status)


def cell(cells: tuple[GainCell, ...], *key: object) -> GainCell:
    return next(
        c for c in cells if (c.token_class, c.reduction, c.lengths, c.after_final_norm) == key
    )


def cells_of(capture, rule: Rule = RULE) -> tuple[GainCell, ...]:
    return grade_cells(decompose(capture), rule, "float32")


# --- behaviour and outcome


def test_behaviour_by_the_whole_interval():
    assert behaviour_of(interval(0.01, 0.02), 0.0) == "EXPANDS"
    assert behaviour_of(interval(-0.02, -0.01), 0.0) == "CONTRACTS"
    assert behaviour_of(interval(-0.01, 0.02), 0.0) == "FLAT"
    assert behaviour_of(interval(np.nan, np.nan, "why"), 0.0) is None


@pytest.mark.parametrize("dtype", UNIT_ROUNDOFF)
def test_a_gain_within_the_roundoff_of_its_dtype_is_flat(dtype):
    margin = UNIT_ROUNDOFF[dtype]
    for sign, said in ((1, "EXPANDS"), (-1, "CONTRACTS")):
        within, beyond = (
            interval(*sorted((sign * f * margin, sign * 3 * margin))) for f in (0.9, 1.1)
        )
        assert behaviour_of(within, margin) == "FLAT"
        assert behaviour_of(beyond, margin) == said
    assert UNIT_ROUNDOFF["float32"] < UNIT_ROUNDOFF["float16"] < UNIT_ROUNDOFF["bfloat16"]


def test_outcomes_for_every_pair_of_behaviours():
    said = ("EXPANDS", "CONTRACTS", "FLAT", None)
    found = {(short, long): outcome_of(short, long) for short in said for long in said}
    assert found.pop(("EXPANDS", "CONTRACTS")) == "CONFIRMED"
    assert found.pop(("CONTRACTS", "CONTRACTS")) == "REJECTED"
    assert found.pop(("EXPANDS", "EXPANDS")) == "UNEXPECTED"
    assert found.pop(("CONTRACTS", "EXPANDS")) == "INVERTED"
    assert set(found.values()) == {"UNDETERMINED"}
    assert len(found) == 12


def test_flat_is_not_equality():
    assert is_equivalent(interval(-0.009, 0.009), RULE) is True
    assert is_equivalent(interval(-0.2, 0.2), RULE) is False
    assert is_equivalent(interval(np.nan, np.nan, "why"), RULE) is None


# --- cells


def test_every_cell_is_there_once_and_holds_the_mean_over_prompts():
    capture = planted(1.2, 0, massive=-1.0)
    decomposition = decompose(capture)
    cells = cells_of(capture)
    assert len(cells) == len(TOKEN_CLASSES) * len(REDUCTIONS) * len(LENGTHS) * 2
    for reduction in REDUCTIONS:
        values = reduce_gains(decomposition, "all", reduction).log_gain[-1]
        found = cell(cells, "all", reduction, "all", False).log_gain
        assert found == mean_interval(values, resamples=RULE.resamples)


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
    assert (found.log_gain.n, found.log_gain.method) == (1, ONE_VALUE)
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
    assert massive.log_gain.status == NO_TOKENS
    assert massive.log_gain.n == 0
    short = cell(cells, "ordinary", "geomean", "short", False)
    assert "too few prompts: 10" in short.log_gain.status
    assert short.behaviour is None
    assert not np.isnan(short.log_gain.low)
    assert cell(cells, "ordinary", "geomean", "all", False).behaviour == "EXPANDS"


def test_halves_by_number_of_tokens():
    prompt = np.repeat(np.arange(5), [9, 3, 4, 12, 3])
    halves = length_halves(prompt)
    assert np.flatnonzero(halves["short"]).tolist() == [1, 4]
    assert np.flatnonzero(halves["long"]).tolist() == [0, 2, 3]
    assert halves["all"].all()
    equal = length_halves(np.repeat(np.arange(4), 6))
    assert not (equal["short"] | equal["long"]).any()


def test_block_gains_stand_within_their_band():
    capture = planted(1.3, 5)
    (block,) = block_gains(reduce_gains(decompose(capture)), RULE)
    assert block.gain == pytest.approx(1.3)
    assert block.low < 1.3 < block.high
    assert block.attention + block.mlp + block.remainder == pytest.approx(block.log_gain)


# --- the verdict


@pytest.mark.parametrize(
    ("short", "long", "outcome"),
    [
        (1.25, 0.6, "CONFIRMED"),
        (0.8, 0.6, "REJECTED"),
        (1.25, 1.1, "UNEXPECTED"),
        (0.6, 1.25, "INVERTED"),
        (1.0, 0.6, "UNDETERMINED"),
        (1.25, 1.0, "UNDETERMINED"),
    ],
)
def test_planted_outcomes(short, long, outcome):
    verdict = judge(pair(planted(short, 6), planted(long, 7)), RULE)
    assert verdict.outcome == outcome
    assert verdict.headline.startswith(outcome)
    assert verdict.robust <= (outcome != "UNDETERMINED")
    if outcome != "UNDETERMINED":
        assert f"{short:.4g}" in verdict.headline
        assert f"{long:.4g}" in verdict.headline


def everywhere(gain: float, seed: int, normed: float = 0.0):
    """Every class of tokens has this gain; every prompt a little apart."""
    return planted(gain, seed, first=np.log(gain), normed=normed)


def test_a_pair_separated_under_every_reduction_is_robust():
    verdict = judge(pair(everywhere(1.25, 8, 0.2), everywhere(0.6, 9, -0.4)), RULE)
    assert (verdict.outcome, verdict.robust, verdict.dissent) == ("CONFIRMED", True, ())
    assert verdict.undecided == ()
    assert "robust: all" in verdict.headline


@pytest.mark.fault(
    "a difference that only numbers after the final norm show",
    "caveat: listed as blind to the last block, without a veto",
)
def test_a_pair_that_only_the_notebooks_measure_separates():
    """Both last blocks contract; after the final norm one reads 1.2 and the other 0.7."""
    short, long = everywhere(0.8, 10, np.log(1.2)), everywhere(0.8, 11, np.log(0.7))
    # the final norm's own spread over prompts, so that its cells have an interval
    rng = np.random.default_rng(1)
    short, long = (
        dataclasses.replace(c, normed=c.normed * np.exp(0.02 * rng.normal(size=40))[c.prompt])
        for c in (short, long)
    )
    verdict = judge(pair(short, long), RULE)
    assert verdict.outcome == "REJECTED"
    assert verdict.robust
    assert verdict.difference.low < 0 < verdict.difference.high
    assert f"ratio of mean norms of all tokens: CONFIRMED {BLIND}" in verdict.dissent
    assert all(line.endswith(f"CONFIRMED {BLIND}") for line in verdict.dissent)


def test_a_cell_that_disagrees_before_the_final_norm_takes_robustness_away():
    """Position 0 is twenty times as large, so it decides where norms are summed."""
    short = planted(1.1, 12, first=np.log(1.1))
    long = planted(1.1, 13, first=np.log(0.5))
    verdict = judge(pair(short, long), RULE)
    assert verdict.outcome == "UNEXPECTED"
    assert not verdict.robust
    assert "position 0: CONFIRMED" in verdict.dissent
    assert "ratio of mean norms of all tokens: CONFIRMED" in verdict.dissent
    assert "ratio of mean norms of all tokens, short prompts: CONFIRMED" in verdict.dissent
    assert not any("ordinary" in line for line in verdict.dissent)
    assert sum(line.startswith("position 0:") for line in verdict.dissent) == 1
    assert "not robust" in verdict.headline


def test_undecided_cells_are_listed_and_have_no_veto():
    """40 prompts decide; in halves of 20, below this rule's minimum, nothing does."""
    rule = RULE.model_copy(update={"min_prompts": 30})
    verdict = judge(pair(everywhere(1.25, 14), everywhere(0.6, 15), rule=rule), rule)
    assert verdict.robust
    assert "geometric mean of ordinary tokens, short prompts" in verdict.undecided
    assert all("prompts" in name for name in verdict.undecided)
    assert not any("massive" in name for name in verdict.undecided)


@pytest.mark.fault("too few prompts for a verdict", "caveat: UNDETERMINED, with the numbers")
def test_too_few_prompts_is_undetermined_with_the_reason():
    verdict = judge(pair(planted(1.25, 16, prompts=8), planted(0.6, 17, prompts=8)), RULE)
    assert verdict.outcome == "UNDETERMINED"
    assert not verdict.robust
    assert "too few prompts: 8, at least 16" in verdict.headline


def test_the_same_model_twice_differs_in_nothing():
    capture = planted(1.25, 18)
    verdict = judge(pair(capture, capture), RULE)
    assert verdict.difference.estimate == 0
    assert not verdict.difference.known
    assert verdict.paired


def test_a_different_rule_decides_by_its_own_cell():
    short, long = planted(1.1, 19, first=np.log(1.1)), planted(1.1, 20, first=np.log(0.5))
    rule = RULE.model_copy(update={"token_class": "all", "reduction": "frobenius"})
    assert judge(pair(short, long), RULE).outcome == "UNEXPECTED"
    assert judge(pair(short, long, rule=rule), rule).outcome == "CONFIRMED"


# --- premise and pairing


def with_theta(model, theta):
    return dataclasses.replace(model, rope=dataclasses.replace(model.rope, rope_theta=theta))


@pytest.mark.fault("a long model without the larger theta and context", "caveat: the premise fails")
def test_premise_needs_the_larger_theta_and_the_larger_context():
    short, long = pair(planted(1.2, 21), planted(1.2, 22))
    assert judge((short, long), RULE).premise is True
    assert judge((short, with_theta(long, 1e4)), RULE).premise is False
    unknown = judge((short, with_theta(long, None)), RULE)
    assert unknown.premise is None
    assert "no RoPE" in unknown.reasons[0]
    swapped = tuple(
        dataclasses.replace(model, role=role)
        for model, role in zip((long, short), ("short", "long"), strict=True)
    )
    failed = judge(swapped, RULE)
    assert failed.premise is False
    assert "the premise fails" in failed.headline


def test_prompts_are_paired_by_name_whatever_their_order():
    """The long model holds the prompts in reverse, and two more were left out of the short one."""
    rng = np.random.default_rng(23)
    shared = 0.3 * rng.normal(size=30)
    place = checkpoint("s"), checkpoint("l", 4096, 5e5)
    names = tuple(f"p{i}" for i in range(30))
    long = report("long", planted_capture(shared[::-1] + 0.05, rng), place[1], ids=names[::-1])
    noise = 0.01 * rng.normal(size=28)
    short = report("short", planted_capture(shared[:28] + noise, rng), place[0], ids=names[:28])
    verdict = judge((short, long), RULE)
    assert verdict.paired
    assert verdict.difference.n == 28
    assert verdict.difference.low > 0.03
    other = dataclasses.replace(
        long, prompts=dataclasses.replace(long.prompts, sha256="other texts")
    )
    unpaired = judge((short, other), RULE)
    assert not unpaired.paired
    assert unpaired.difference.high - unpaired.difference.low > 0.1


# --- sentences


def test_reasons_carry_the_numbers():
    short, long = pair(planted(1.25, 24), planted(0.6, 25))
    unembed = dataclasses.replace(long.unembed, spectral_norm=12.78, vocab_size=16_384)
    long = dataclasses.replace(long, unembed=unembed, visible_share=(0.02, 0.25))
    text = "\n".join(judge((short, long), RULE).reasons)
    assert "theta 10,000 against 500,000, context 512 against 4,096" in text
    assert "last_gain of s, 0.9, is its last block, 1.2, times the final norm, 0.75" in text
    assert "turns the answer round" in text
    assert "4.26 times as large" in text
    assert "2.00 of it is the square root" in text
    assert "the rest is 2.13" in text
    assert "2.0% of what attention and 25.0% of what the MLP" in text
    assert "chance 12.5%" in text
    assert "measure theta 500,000 where its config says 500,000" in text
    assert "In the last block of l attention adds -" in text
    assert "both erase" in text
    assert "nan" not in text


def massive_token(position: int, erased_by: int | None) -> MassiveToken:
    component = None if erased_by is None else "mlp"
    return MassiveToken(0, position, 1, ".", 1, "mlp", erased_by, component, 300.0, (3,))


def test_reasons_say_which_block_erases_massive_tokens():
    short, long = pair(planted(1.25, 28), planted(0.6, 29))
    tokens = (massive_token(4, 30), massive_token(9, 30), massive_token(2, 31))
    first = massive_token(0, None)
    short = dataclasses.replace(short, massive=(first, *tokens, massive_token(5, None)))
    text = "\n".join(judge((short, long), RULE).reasons)
    assert "s: 3 of 4 massive tokens erased, 2 of them by block 30 (mlp)" in text
    assert "0 of 1 first position erased" in text
    assert "l has no massive token here" in text


@pytest.mark.fault(
    "models that differ in more than theta and context", "caveat: CONFOUNDED, with the list"
)
def test_confounded_models_are_named_so_in_the_headline():
    short, long = planted(1.25, 26), planted(0.6, 27)
    clean = judge(pair(short, long), RULE)
    assert clean.identification.controlled
    assert "confounded" not in clean.headline
    verdict = judge(pair(short, long, vocab_size=9000), RULE)
    assert verdict.identification.differing == ("vocab_size 4096 vs 9000",)
    assert "confounded by 1 further difference" in verdict.headline
    assert "not attributable: short and long also differ in vocab_size" in verdict.attribution_note


# --- edges that only a mutant showed


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


def test_an_interval_that_touches_the_margin_does_not_lie_beyond_it():
    margin = float(np.log1p(0.01))
    assert behaviour_of(interval(margin, 1.0), 0.01) == "FLAT"
    assert behaviour_of(interval(-1.0, -margin), 0.01) == "FLAT"
    assert behaviour_of(interval(np.nan, 1.0), 0.01) is None
    assert behaviour_of(interval(-1.0, np.nan), 0.01) is None
    low, high = float(np.log1p(-RULE.equivalence)), float(np.log1p(RULE.equivalence))
    assert is_equivalent(interval(low, high), RULE) is True
    assert is_equivalent(interval(low, 0.2), RULE) is False
    assert is_equivalent(interval(-0.2, high), RULE) is False


@pytest.mark.parametrize(("field", "value"), [("confidence", 0.8), ("resamples", 250), ("seed", 3)])
def test_every_interval_of_the_verdict_follows_the_rule(field, value):
    """Each setting reaches the band, the cells and the difference, and a rule gives one answer."""
    short, long = planted(1.25, 32), planted(0.6, 33)
    told: list[list[float]] = []
    for rule in (RULE, RULE, RULE.model_copy(update={field: value})):
        reports = pair(short, long, rule=rule)
        verdict = judge(reports, rule)
        primary = cell(reports[0].cells, "ordinary", "geomean", "all", False).log_gain
        assert primary.confidence == verdict.difference.confidence == rule.confidence
        told.append([reports[0].blocks[0].high, primary.high, verdict.difference.high])
    assert told[0] == told[1]
    assert all(one != other for one, other in zip(told[0], told[2], strict=True))


def test_a_class_that_no_prompt_has_leaves_blocks_unknown():
    capture = planted(1.2, 34)
    (block,) = block_gains(reduce_gains(decompose(capture), "massive"), RULE)
    assert np.isnan([block.log_gain, block.attention, block.gain, block.low, block.high]).all()


def test_halves_keep_the_order_of_prompts_of_one_length():
    lengths = np.tile([3, 4], 40)
    halves = length_halves(np.repeat(np.arange(80), lengths))
    assert np.flatnonzero(halves["short"]).tolist() == list(range(0, 80, 2))
    assert np.flatnonzero(halves["long"]).tolist() == list(range(1, 80, 2))
    tied = length_halves(np.repeat(np.arange(81), [5] * 80 + [6]))
    assert np.flatnonzero(tied["short"]).tolist() == list(range(40))
    assert all(half.shape == (81,) and half.dtype == bool for half in tied.values())


def test_as_many_prompts_as_the_rule_wants_are_enough():
    cells = cells_of(planted(1.2, 35, prompts=RULE.min_prompts))
    assert cell(cells, "ordinary", "geomean", "all", False).behaviour == "EXPANDS"
    first = cell(cells, "bos", "geomean", "all", False).log_gain
    assert (first.method, first.status) == (ONE_VALUE, ONE_VALUE)
    massive = cell(cells, "massive", "geomean", "all", False).log_gain
    assert (massive.method, massive.status) == ("none", NO_TOKENS)


def test_agreement_counts_every_way_of_measuring_once():
    """Two classes x 5 reductions x 3 lengths, and position 0, which is one number, once."""
    verdict = judge(pair(everywhere(1.25, 36), everywhere(0.6, 37)), RULE)
    assert "robust: all 31 ways" in verdict.headline
    rule = RULE.model_copy(update={"min_prompts": 30})
    verdict = judge(pair(everywhere(1.25, 36), everywhere(0.6, 37), rule=rule), rule)
    assert len(verdict.undecided) == 20
    assert "all 11 ways of measuring that decide agree (20 more undecided)" in verdict.headline


def test_position_zero_is_listed_by_halves_where_one_model_begins_differently():
    capture = planted(1.2, 38, first=0.2)
    start = capture.position == 0
    gram = capture.gram.copy()
    gram[6, 0, start] *= np.exp(0.04 * np.random.default_rng(0).normal(size=40))
    token_id = np.where(start, 5 + capture.prompt, 2)
    varied = dataclasses.replace(capture, token_id=token_id, gram=gram)
    same = planted(1.2, 39, first=-0.2)
    verdict = judge(pair(same, varied), RULE)
    assert [line for line in verdict.dissent if line.startswith("position 0")] == [
        "position 0: INVERTED",
        "position 0, short prompts: INVERTED",
        "position 0, long prompts: INVERTED",
    ]
    once = judge(pair(same, planted(1.2, 39, first=0.2)), RULE)  # one value has no halves
    assert [line for line in once.dissent if line.startswith("position 0")] == [
        "position 0: INVERTED"
    ]


def test_premise_is_unknown_without_either_theta_and_fails_at_one_context():
    short, long = pair(planted(1.2, 40), planted(1.2, 41))
    assert judge((with_theta(short, None), long), RULE).premise is None
    context = short.checkpoint.context
    same = dataclasses.replace(
        long, checkpoint=dataclasses.replace(long.checkpoint, context=context)
    )
    assert judge((short, same), RULE).premise is False


def test_verdict_carries_what_attribution_and_pairing_said():
    short, long = pair(planted(1.25, 42), planted(0.6, 43))
    verdict = judge((short, long), RULE)
    assert "paired over prompts" in verdict.reasons[1]
    assert isinstance(verdict.attribution, tuple)
    other = dataclasses.replace(long, prompts=dataclasses.replace(long.prompts, sha256="other"))
    assert "unpaired: the prompts differ" in judge((short, other), RULE).reasons[1]


def test_the_training_curves_reach_the_attribution(monkeypatch):
    given = []

    def record(reports, rule, curves):
        given.append((tuple(report.role for report in reports), rule, curves))
        return (), "a note"

    monkeypatch.setattr("gainlens.claims.judging.attribute", record)
    curves = {"seed": np.zeros(1)}
    verdict = judge(pair(planted(1.25, 44), planted(0.6, 45)), RULE, curves)
    assert given == [(("short", "long"), RULE, curves)]
    assert (verdict.attribution, verdict.attribution_note) == ((), "a note")
