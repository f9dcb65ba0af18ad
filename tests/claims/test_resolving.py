"""A difference resolved by component, length, position and kind of prompt."""

import dataclasses

import numpy as np
import pytest
from planting.evidence import FACTS
from planting.evidence import planted as numbers
from planting.reports import RULE, checkpoint, pair, planted, report

from gainlens.claims.claim import catalogue, parse_claim
from gainlens.claims.clusters import clustering_of, intraclass_correlation
from gainlens.claims.contrasts import contrast_of
from gainlens.claims.engine import judge_claim
from gainlens.claims.evidence import evidence_of
from gainlens.claims.judging import judge
from gainlens.claims.resolving import (
    clustering_between,
    component_differences,
    resolved_differences,
)
from gainlens.claims.wording import short_nats
from gainlens.metrics.decomposition import decompose
from gainlens.records.groups import Resolved, opposed_groups
from gainlens.records.interval import Interval
from gainlens.records.verdict import GroupDifference

PROMPTS = 64
LONG = FACTS | {"context": 4096.0}


def reports_with(shift, groups=(), seed=0):
    """A pair whose long model adds `shift` [token] to the log gain of a capture's tokens."""
    capture, long = captures_with(shift, seed)
    return (
        report("short", capture, checkpoint("s"), groups=groups),
        report("long", long, checkpoint("l", 4096, 5e5), theta=5e5, groups=groups),
    )


def captures_with(shift, seed=0):
    capture = planted(1.3, seed, prompts=PROMPTS)
    gram = capture.gram.copy()
    noise = 0.01 * np.random.default_rng(seed + 1).normal(size=PROMPTS)[capture.prompt]
    added = np.where(capture.position > 0, shift(capture) + noise, 0)
    gram[6, 0] *= np.exp(2 * added)
    return capture, dataclasses.replace(capture, gram=gram)


def by(groups: tuple[GroupDifference, ...], what: str) -> dict[str, float]:
    return {group.group: group.log_gain.estimate for group in groups if group.by == what}


def lengths(capture):
    return np.bincount(capture.prompt)[capture.prompt]


def test_parts_sum_to_the_difference():
    short, long = pair(planted(1.2, 1), planted(1.3, 2))
    attention, mlp = component_differences(short, long, RULE)
    total = judge((short, long), RULE).difference
    remainder = attention.part.estimate + mlp.part.estimate - total.estimate
    assert remainder == pytest.approx(0, abs=1e-9)
    assert (attention.component, mlp.component) == ("attention", "mlp")
    # both write their share of y - x, 0.4 and 0.6
    assert attention.part.estimate / mlp.part.estimate == pytest.approx(2 / 3, rel=1e-6)
    said = f"The MLP contributes most of the difference: {short_nats(mlp.part)}."
    assert said in judge((short, long), RULE).reasons


def test_a_change_of_sign_over_lengths_is_in_the_headline():
    """Half the prompts gain 0.1, half lose 0.1: the mean is near 0."""

    def shift(capture):
        return np.where(lengths(capture) > np.median(np.bincount(capture.prompt)), 0.1, -0.1)

    verdict = judge(reports_with(shift), RULE)
    low, high = verdict.reversal
    assert (low.group, high.group) == ("short prompts", "long prompts")
    assert low.log_gain.high < 0 < high.log_gain.low
    assert "changes sign" in verdict.headline
    assert "changes sign" in verdict.reasons[0]
    assert f"{verdict.difference.estimate:+.3f} nats" not in verdict.headline


def test_a_change_of_sign_over_positions_is_found_too():
    """Every prompt loses at positions 1-3 and gains from 4 on."""
    reports = reports_with(lambda capture: np.where(capture.position < 4, -0.2, 0.1))
    found = by(resolved_differences(*reports, RULE), "position")
    assert found["1-3"] == pytest.approx(-0.2, abs=0.01)
    assert found["4-15"] == pytest.approx(0.1, abs=0.01)
    assert found["0"] == 0
    assert "64-127" not in found  # no prompt is that long
    low, _ = judge(reports, RULE).reversal
    assert (low.by, low.group) == ("position", "1-3")


def test_the_same_sign_everywhere_is_no_reversal():
    verdict = judge(reports_with(lambda capture: 0.1), RULE)
    assert verdict.reversal is None
    assert "long minus short is +0.099" in verdict.headline


def test_kinds_with_enough_prompts_are_compared():
    groups = ("code",) * 32 + ("prose",) * 28 + ("rare",) * 4

    def shift(capture):
        return np.where(capture.prompt < 32, -0.1, 0.1)

    reports = reports_with(shift, groups)
    found = by(resolved_differences(*reports, RULE), "kind")
    assert set(found) == {"code", "prose"}
    assert found["code"] < -0.09 < 0.09 < found["prose"]


def test_unpaired_models_resolve_nothing():
    short, long = reports_with(lambda capture: 0.1)
    other = dataclasses.replace(long, prompts=dataclasses.replace(long.prompts, sha256="other"))
    assert resolved_differences(short, other, RULE) == ()
    assert component_differences(short, other, RULE) == ()
    assert clustering_between(short, other, RULE) is None


# --- clusters


def test_intraclass_correlation_of_planted_clusters():
    """Group effects of variance 1 among errors of variance 1: 0.5; none: 0."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(400), rng.integers(2, 9, size=400))
    error = rng.normal(size=len(group))
    clustered = rng.normal(size=400)[group] + error
    assert intraclass_correlation(clustered, group) == pytest.approx(0.5, abs=0.05)
    assert intraclass_correlation(error, group) < 0.05
    assert np.isnan(intraclass_correlation(np.ones(6), np.arange(6) // 2))


@pytest.mark.fault(
    "prompts of one kind that resemble one another", "caveat: the interval over groups beside it"
)
def test_clustered_prompts_are_said_to_be_so():
    """Eight documents of eight prompts; the difference is a property of the document."""
    groups = tuple(f"doc-{i // 8}" for i in range(PROMPTS))
    effect = 0.1 * np.random.default_rng(5).normal(size=8)

    verdict = judge(reports_with(lambda c: effect[c.prompt // 8], groups), RULE)
    clustering = verdict.clustering
    assert clustering.groups == 8
    assert clustering.correlation > 0.8
    width = clustering.over_groups.high - clustering.over_groups.low
    assert width > 2 * (verdict.difference.high - verdict.difference.low)
    assert any("over 8 groups" in reason for reason in verdict.reasons)


def test_prompts_without_groups_have_no_clustering():
    assert judge(reports_with(lambda capture: 0.1), RULE).clustering is None
    names = tuple(f"own-{i}" for i in range(PROMPTS))
    assert judge(reports_with(lambda capture: 0.1, names), RULE).clustering is None


# --- claims of any metric


def difference_claim(metric="angle"):
    return parse_claim(
        'name = "c"\nstatement = "s"\nroles = ["short", "long"]\n[estimand]\n'
        f'metric = "{metric}"\nblocks = "last"\n[contrast]\nkind = "difference"\n'
        'prediction = "> 0"\nmargin = 0.0'
    )


def measured(claim, reports_captures):
    """The evidence that two captures give for a claim."""
    return [
        evidence_of(claim, model, decompose(capture), model.role)
        for model, capture in reports_captures
    ]


def claim_and_seed(shift, groups=()):
    """A log-gain difference judged as a claim, and the same pair judged by the seed's claim."""
    reports = reports_with(shift, groups)
    claim = difference_claim("log_gain")
    evidence = measured(claim, zip(reports, captures_with(shift), strict=True))
    return judge_claim(claim, evidence, RULE), judge(reports, RULE)


def test_a_claim_is_resolved_as_the_seeds_claim_is():
    groups = ("code",) * 32 + ("prose",) * 32
    claim, seed = claim_and_seed(lambda capture: np.where(capture.position < 4, -0.2, 0.1), groups)
    found = {(one.by, one.group): one.interval for one in claim.resolved}
    for part in seed.parts:
        assert found.pop(("component", part.component)) == part.part
    assert found == {(one.by, one.group): one.log_gain for one in seed.resolved}
    assert claim.estimates[0].clustering == seed.clustering
    assert claim.estimates[0].interval == seed.difference
    assert (claim.reversal[0].group, claim.reversal[1].group) == ("1-3", "4-15")


def test_a_claims_sentence_gives_both_signs_instead_of_one_average():
    def shift(capture):
        return np.where(lengths(capture) > np.median(np.bincount(capture.prompt)), 0.1, -0.1)

    claim, _ = claim_and_seed(shift)
    (said,) = [reason for reason in claim.reasons if "changes sign" in reason]
    assert said == claim.reasons[0]
    assert "on short prompts" in said
    assert "on long prompts" in said
    average = claim.estimates[0].interval.estimate
    assert f"{average:+.4f}" not in said
    same, _ = claim_and_seed(lambda capture: 0.1)
    assert same.reversal is None
    assert "changes sign" not in same.reasons[0]


def test_a_metric_other_than_log_gain_is_resolved_by_position_too():
    """The long model turns tokens from position 4 on, and no others."""
    short = planted(1.3, 5, prompts=PROMPTS)
    gram = short.gram.copy()
    later = short.position >= 4
    x, a, m = (short.column(name)[0, later] for name in ("xx", "xa", "xm"))
    gram[3, 0, later], gram[4, 0, later] = a - 0.3 * x, m
    turned = dataclasses.replace(short, gram=gram)
    claim = difference_claim()
    reports = report("short", short, checkpoint("s")), report("long", turned, checkpoint("l"))
    evidence = measured(claim, zip(reports, (short, turned), strict=True))
    found = {one.group: one.interval for one in judge_claim(claim, evidence, RULE).resolved}
    assert found["1-3"].estimate == pytest.approx(0, abs=1e-12)
    assert found["4-15"].low > 0.01
    assert "attention" not in found  # an angle is no sum of parts


def test_only_a_difference_is_resolved():
    level = parse_claim(
        'name = "c"\nstatement = "s"\nroles = ["short"]\n[estimand]\nmetric = "log_gain"\n'
        'blocks = "last"\n[contrast]\nkind = "level"\nprediction = "> 0"'
    )
    capture = planted(1.3, 0, prompts=PROMPTS)
    model = report("short", capture, checkpoint("s"), groups=("a", "b") * 32)
    verdict = judge_claim(level, measured(level, [(model, capture)]), RULE)
    assert verdict.resolved == ()
    assert verdict.estimates[0].clustering.groups == 2


def test_groups_stand_beside_every_contrast_over_prompts():
    """Eight documents of eight prompts: each contrast has its interval over documents."""
    names = tuple(f"doc-{i // 8}" for i in range(64))
    effect = np.repeat(np.random.default_rng(5).normal(size=8), 8)

    def model(role, level, step=None):
        one = numbers(level, role, prompts=64, seed=int(level), step=step, facts=LONG)
        values = {way: own + level * effect for way, own in one.values.items()}
        return dataclasses.replace(one, values=values, groups=names)

    worlds = {
        "late-mlps-erase": [model("model", 1)],
        "norm-grows-in-every-block": [model("model", 1)],
        "sinks-grow-with-context": [
            dataclasses.replace(model("short", 1), facts=LONG | {"context": 512.0}),
            model("long", 3),
        ],
        "final-block-jump-grows": [model("model", k, step=float(k)) for k in (1, 2, 4)],
    }
    for name, models in worlds.items():
        claim = catalogue()[name]
        if name == "final-block-jump-grows":  # blocks move together, so only their level does
            estimand = claim.estimand.model_copy(update={"minus": None})
            claim = claim.model_copy(update={"estimand": estimand})
        found = contrast_of(claim, models, "mean", RULE).estimates
        assert all(one.clustering.groups == 8 for one in found), name
        assert all(one.clustering.correlation > 0.8 for one in found), name
        for one in found:
            over = one.clustering.over_groups
            wide = one.interval.high - one.interval.low
            assert over.high - over.low > 1.5 * wide, name
    reasons = judge_claim(catalogue()["late-mlps-erase"], [model("model", 1)], RULE).reasons
    assert any("over 8 groups" in reason and "correlation" in reason for reason in reasons)


def test_signs_are_opposed_only_if_neither_interval_contains_0():
    def group(name, low, high, by="kind"):
        return Resolved(by, name, Interval((low + high) / 2, low, high, 40, 0.95, "planted"))

    falls, rises, open_ = group("a", -0.2, -0.1), group("b", 0.1, 0.2), group("c", -0.3, 0.1)
    assert opposed_groups([rises, falls]) == (falls, rises)
    assert opposed_groups([rises, open_]) is None
    assert opposed_groups([falls, group("short", 0.1, 0.2, "length")]) is None


def test_a_prompt_without_a_group_is_a_group_of_its_own():
    values = np.random.default_rng(0).normal(size=8)
    assert clustering_of(values, ("a",) * 4 + ("",) * 4, 0.95).groups == 5


def test_a_median_over_blocks_has_no_parts():
    capture = planted(1.3, 0, prompts=PROMPTS)
    claim = difference_claim("log_gain")
    estimand = claim.estimand.model_copy(update={"over_blocks": "median"})
    model = report("short", capture, checkpoint("s"))
    for asked, parts in ((claim.estimand, {"attention", "mlp"}), (estimand, set())):
        one = claim.model_copy(update={"estimand": asked})
        (evidence,) = measured(one, [(model, capture)])
        assert set(evidence.parts) == parts
