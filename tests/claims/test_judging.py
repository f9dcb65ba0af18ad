"""The verdict on planted captures: outcomes, premise, robustness, pairing, headline, reasons."""

import dataclasses

import numpy as np
import pytest
from calibration import planted_capture
from planting.reports import RULE, checkpoint, pair, planted, report

from gainlens.claims.judging import judge
from gainlens.claims.pairing import difference_of
from gainlens.core.vocabulary import REDUCTIONS


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
    assert verdict.outcome == verdict.measured == outcome
    assert verdict.headline.startswith(outcome)
    if outcome == "UNDETERMINED":
        assert verdict.robust is False
    for gain in (short, long):
        assert f"{gain:.3f} [" in verdict.headline


def everywhere(gain: float, seed: int, normed: float = 0.0, prompts: int = 40):
    """Every class of tokens has this gain; every prompt a little apart."""
    return planted(gain, seed, first=np.log(gain), normed=normed, prompts=prompts)


@pytest.mark.fault("models that are equal to 1 within the margin", "caveat: UNDETERMINED, said so")
def test_gains_that_equal_1_are_a_finding_of_their_own():
    """Both intervals leave out 1 and both lie within 1 +- 0.01."""
    tight = [
        planted(gain, seed, prompts=200, spread=0.002) for gain, seed in ((1.003, 1), (0.997, 2))
    ]
    verdict = judge(pair(*tight), RULE)
    assert verdict.outcome == "UNDETERMINED"
    assert "neither model expands or contracts" in verdict.headline
    one = judge(pair(planted(1.4, 3, prompts=200), tight[0]), RULE)
    assert "the long model neither expands nor contracts" in one.headline


# --- premise


def with_theta(model, theta):
    return dataclasses.replace(model, rope=dataclasses.replace(model.rope, rope_theta=theta))


def with_context(model, context):
    return dataclasses.replace(
        model, checkpoint=dataclasses.replace(model.checkpoint, context=context)
    )


@pytest.mark.fault(
    "a long model without the larger theta and context", "NOT TESTED, with the reason"
)
@pytest.mark.parametrize("premise", ["theta", "context", "swapped", "unknown"])
def test_without_its_premise_the_claim_is_not_tested(premise):
    """The gains would give CONFIRMED, robust."""
    short, long = pair(everywhere(1.25, 8), everywhere(0.6, 9))
    if premise == "theta":
        long = with_theta(long, 1e4)
    elif premise == "context":
        long = with_context(long, 512)
    elif premise == "unknown":
        long = with_theta(long, None)
    else:
        short, long = (
            dataclasses.replace(model, role=role)
            for model, role in ((long, "short"), (short, "long"))
        )
    verdict = judge((short, long), RULE)
    assert verdict.outcome == "NOT TESTED"
    assert verdict.robust is None
    assert verdict.premise is (None if premise == "unknown" else False)
    assert verdict.measured == ("INVERTED" if premise == "swapped" else "CONFIRMED")
    assert verdict.reasons[0].startswith("The premise ")
    assert ("context is" in verdict.reasons[0]) == (premise in ("context", "swapped"))
    assert ("theta is" in verdict.reasons[0]) == (premise in ("theta", "swapped"))
    assert verdict.headline.startswith("NOT TESTED")
    assert verdict.headline.index("long minus short") < verdict.headline.index("last block's gain")
    assert "robust" not in verdict.headline


def test_a_premise_that_holds_is_no_reason():
    verdict = judge(pair(planted(1.25, 21), planted(0.6, 22)), RULE)
    assert verdict.premise is True
    assert not any("premise" in reason for reason in verdict.reasons)


# --- robustness


def test_a_pair_separated_under_every_reduction_is_robust():
    verdict = judge(pair(everywhere(1.25, 8, 0.2), everywhere(0.6, 9, -0.4)), RULE)
    assert (verdict.outcome, verdict.robust) == ("CONFIRMED", True)
    assert verdict.dissent == verdict.undecided == ()
    total = len(verdict.analyses)
    assert f"robust: {total} of {total} distinct analyses decide, and all agree" in verdict.headline


def test_one_number_under_many_names_counts_once():
    """The last token is ordinary, so it is the last of all tokens too: in whole, short and long."""
    verdict = judge(pair(everywhere(1.25, 36), everywhere(0.6, 37)), RULE)
    names = [cell.name for cell in verdict.analyses]
    assert len(names) == len(set(names)) == 2 * len(REDUCTIONS) * 3 - 3
    assert sum("last token of" in name for name in names) == 3


def test_one_massive_token_per_prompt_is_one_analysis():
    """Every reduction of it is its own gain."""
    rng = np.random.default_rng(0)

    def massive(gain, seed):
        capture = planted(gain, seed, massive=np.log(gain))
        gram = capture.gram.copy()
        gram[6, 0, capture.position == 1] *= np.exp(0.1 * rng.normal(size=40))
        return dataclasses.replace(capture, gram=gram)

    verdict = judge(pair(massive(1.25, 1), massive(0.6, 2)), RULE)
    assert sum(cell.token_class == "massive" for cell in verdict.analyses) == 3


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
    assert verdict.vetoes == ()
    assert {(cell.after_final_norm, cell.outcome) for cell in verdict.dissent} == {
        (True, "CONFIRMED")
    }
    assert all("blind" in str(cell) for cell in verdict.dissent)


def test_position_zero_is_a_finding_without_a_veto():
    short, long = planted(1.3, 12, first=-0.05), planted(1.3, 13, first=-0.05)
    small = {"token_class": "ordinary", "reduction": "geomean"}
    verdict = judge(pair(short, long), RULE.model_copy(update=small))
    first = [cell for cell in verdict.dissent if cell.token_class == "bos"]
    assert [(cell.outcome, cell.counts) for cell in first] == [("REJECTED", False)]
    assert not any(cell.token_class == "bos" for cell in verdict.analyses)
    assert any(
        "Position 0" in reason and "contracts in both" in reason for reason in verdict.reasons
    )


def test_an_analysis_that_disagrees_takes_robustness_away():
    """Position 0 is twenty times as large, so it decides if norms of all tokens are summed."""
    short = planted(1.1, 12, first=np.log(1.1))
    long = planted(1.1, 13, first=np.log(0.5))
    verdict = judge(pair(short, long), RULE)
    assert verdict.outcome == "UNEXPECTED"
    assert verdict.robust is False
    assert "ratio of mean norms of all tokens" in [cell.name for cell in verdict.vetoes]
    assert not any(cell.token_class == "ordinary" for cell in verdict.vetoes)
    assert "not robust" in verdict.headline


def test_what_does_not_decide_is_no_agreement():
    """40 prompts decide; in halves of 20, below this rule's minimum, nothing does."""
    rule = RULE.model_copy(update={"min_prompts": 30})
    verdict = judge(pair(everywhere(1.25, 14), everywhere(0.6, 15), rule=rule), rule)
    assert verdict.outcome == "CONFIRMED"
    assert verdict.vetoes == ()
    assert verdict.robust is False
    assert {cell.lengths for cell in verdict.undecided} == {"short", "long"}
    assert "not robust: only" in verdict.headline


@pytest.mark.slow
@pytest.mark.parametrize("first", [np.log(1.3), -0.3])
def test_more_prompts_never_make_an_effect_less_robust(first):
    """P(right outcome) and P(robust) over repeats, from 16 to 96 prompts."""
    rates = []
    for prompts in (16, 96):
        runs = [
            judge(
                pair(
                    planted(1.2, 2 * seed, prompts=prompts, spread=0.15, first=first),
                    planted(0.85, 2 * seed + 1, prompts=prompts, spread=0.15, first=first),
                ),
                RULE,
            )
            for seed in range(8)
        ]
        right = np.mean([run.outcome == "CONFIRMED" for run in runs])
        rates.append((right, np.mean([bool(run.robust) for run in runs])))
    assert rates == sorted(rates)
    assert rates[-1][0] == 1


# --- prompts and pairing


@pytest.mark.fault("too few prompts for a verdict", "caveat: UNDETERMINED, with the numbers")
@pytest.mark.parametrize("prompts", [2, 8])
def test_too_few_prompts_decide_neither_outcome_nor_difference(prompts):
    captures = [
        planted(gain, seed, prompts=prompts, spread=0.001) for gain, seed in ((1.25, 16), (0.6, 17))
    ]
    verdict = judge(pair(*captures), RULE)
    assert verdict.outcome == "UNDETERMINED"
    assert verdict.robust is False
    assert verdict.difference.problem == "too few"
    assert np.isfinite(verdict.difference.low)
    assert all(part.part.problem == "too few" for part in verdict.parts)
    assert verdict.reversal is None
    short, long = pair(*captures)
    other = dataclasses.replace(long, prompts=dataclasses.replace(long.prompts, sha256="other"))
    unpaired = judge((short, other), RULE)
    assert not unpaired.paired
    assert unpaired.difference.problem == "too few"


@pytest.mark.parametrize("few", ["short", "long"])
def test_an_unpaired_difference_needs_enough_prompts_on_either_side(few):
    """One side of 40 prompts does not make up for 14 on the other."""
    counts = {"short": 40, "long": 40} | {few: 14}
    short, long = pair(
        planted(1.25, 1, prompts=counts["short"]), planted(0.6, 2, prompts=counts["long"])
    )
    other = dataclasses.replace(long, prompts=dataclasses.replace(long.prompts, sha256="other"))
    interval, paired = difference_of(short, other, RULE)
    assert not paired
    assert (interval.problem, interval.n) == ("too few", 14)


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
    assert "unpaired" in unpaired.headline


@pytest.mark.parametrize(("field", "value"), [("confidence", 0.8), ("resamples", 250), ("seed", 3)])
def test_every_interval_of_the_verdict_follows_the_rule(field, value):
    """Each setting reaches the band, the cells and the difference, and a rule gives one answer."""
    short, long = planted(1.25, 32), planted(0.6, 33)
    told: list[list[float]] = []
    for rule in (RULE, RULE, RULE.model_copy(update={field: value})):
        reports = pair(short, long, rule=rule)
        verdict = judge(reports, rule)
        primary = next(
            c.log_gain
            for c in reports[0].cells
            if (c.token_class, c.reduction, c.lengths) == ("ordinary", "geomean", "all")
        )
        assert primary.confidence == verdict.difference.confidence == rule.confidence
        told.append(
            [
                reports[0].blocks[0].high,
                primary.high,
                verdict.difference.high,
                verdict.parts[0].part.high,
                verdict.resolved[0].log_gain.high,
            ]
        )
    assert told[0] == told[1]
    assert all(one != other for one, other in zip(told[0], told[2], strict=True))


# --- sentences


def reports_of_other_spectra():
    short, long = pair(planted(1.25, 24), planted(0.6, 25))
    spectrum = 2 * np.ones(8)
    unembed = dataclasses.replace(long.unembed, centred_spectrum=spectrum, spectral_norm=99.0)
    return short, dataclasses.replace(long, unembed=unembed)


def test_reasons_are_few_and_the_weightiest_come_first():
    verdict = judge(reports_of_other_spectra(), RULE)
    assert 1 <= len(verdict.reasons) <= 5
    assert "long model's gain differs" in verdict.reasons[0]
    assert "nan" not in "".join(verdict.reasons)


def test_w_u_is_the_centred_one_in_a_sentence():
    """The raw largest singular value is that of the mean row, to which softmax is blind."""
    from gainlens.claims.reasons import _unembedding

    said = _unembedding(*reports_of_other_spectra())
    assert "2.00 times" in said
    assert "33" not in said


def test_the_notebooks_number_is_contrasted_with_the_block():
    verdict = judge(pair(planted(1.25, 24), planted(1.3, 25)), RULE)
    (said,) = [reason for reason in verdict.reasons if "notebook" in reason]
    assert "0.90 and 0.90" in said
    assert "lies above 1" in said


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
