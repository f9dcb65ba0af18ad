"""Claims with an intervention, from a planted checkpoint to the verdict."""

import time

import numpy as np
import pytest
from planting.hooks import hooks_of
from planting.massive import BOS, MASSIVE, OTHER, massive_checkpoint, prompts_with_massive
from planting.planted_blocks import TEXTS, planted_checkpoint

import gainlens
from gainlens.activations.losses import loss
from gainlens.claims.claim import catalogue, parse_claim
from gainlens.core.spec import MeasureSpec, Rule
from gainlens.interventions import skipping
from gainlens.runs import intervening

SPEC = MeasureSpec(name="claims", models=(), rule=Rule(resamples=400))
ZEROING, MEAN, SINKS, LAST = (
    "massive-zeroing-ruins", "massive-mean-harmless", "sinks-dispensable",
    "last-attention-matters-less",
)  # fmt: skip
FLAGS = {BOS: 6.0, MASSIVE: 5.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a planted model and its prompts, by the name of a world."""
    folder = tmp_path_factory.mktemp("worlds")

    def massive(name, flags=FLAGS, ids=(MASSIVE,), **planted):
        massive_checkpoint(folder / name, flags, **planted)
        return gainlens.load(folder / name, backend="native"), prompts_with_massive(ids)

    def even(name):
        planted_checkpoint(folder / name, 1.25, lift=2.0)
        return gainlens.load(folder / name, backend="native"), TEXTS

    two = {BOS: 6.0, MASSIVE: 5.0, OTHER: 5.2}
    return {
        "read": massive("read", lift_seen=False),
        "blind": massive("blind", head=0.01),
        "alike": massive("alike", two, (MASSIVE, OTHER), lift_seen=False),
        "opposite": massive("opposite", two, (MASSIVE, OTHER), against=(OTHER,), lift_seen=False),
        "early": massive("early", reader=1, lift_seen=False),
        "even": even("even"),
    }


@pytest.mark.parametrize(
    ("name", "where", "outcome"),
    [
        (ZEROING, "read", "SUPPORTED"),
        (ZEROING, "blind", "CONTRADICTED"),
        (MEAN, "alike", "SUPPORTED"),
        (MEAN, "opposite", "CONTRADICTED"),
        (SINKS, "even", "SUPPORTED"),
        (SINKS, "read", "CONTRADICTED"),
        (LAST, "early", "SUPPORTED"),
        (LAST, "read", "CONTRADICTED"),
    ],
)
def test_a_claim_holds_in_one_planted_world_and_fails_in_another(world, name, where, outcome):
    model, prompts = world[where]
    before = hooks_of(model.model)
    (verdict,) = gainlens.test(name, {"model": model}, prompts, spec=SPEC).verdicts
    assert verdict.outcome == outcome, verdict.reasons
    assert verdict.effect is not None
    assert hooks_of(model.model) == before


def test_the_change_is_that_of_the_loss_under_the_public_intervention(world):
    model, prompts = world["read"]
    (verdict,) = gainlens.test(LAST, {"model": model}, prompts, spec=SPEC).verdicts
    plain = loss(model, prompts)
    with gainlens.ablate(model.model, {"blocks.-1.hook_attn_out": "zero"}):
        under = loss(model.model, prompts)
    assert verdict.effect.change.estimate == pytest.approx(np.mean(under - plain), rel=1e-5)
    assert verdict.effect.control_change.estimate == pytest.approx(0.0, abs=1e-6)
    assert verdict.effect.exhausted


def test_any_metric_can_be_what_changes(world):
    """The last block's log gain without its MLP, which scales the stream by 1.25."""
    text = (
        'name = "c"\nstatement = "s"\nroles = ["model"]\n[intervention]\nkind = "leave out"\n'
        'component = "mlp"\nblock = "last"\n[estimand]\nmetric = "log_gain"\nblocks = "last"\n'
        '[contrast]\nkind = "level"\nprediction = "< 0"'
    )
    model, prompts = world["even"]
    (verdict,) = gainlens.test(parse_claim(text), {"model": model}, prompts, spec=SPEC).verdicts
    assert verdict.outcome == "SUPPORTED"
    assert verdict.effect.change.estimate == pytest.approx(-np.log(1.25), abs=0.02)
    assert verdict.effect.control_change.estimate == pytest.approx(0.0, abs=1e-6)


def test_prompts_without_what_is_set_do_not_count(world):
    model, _ = world["read"]
    few = prompts_with_massive(count=20)
    tokens = [ids[1:] if place % 4 == 0 else ids for place, ids in enumerate(few.tokens)]
    tokens = [ids[ids != MASSIVE] if place % 4 == 0 else ids for place, ids in enumerate(tokens)]
    changed = type(few)(**{**vars(few), "tokens": tuple(tokens)})
    spec = SPEC.model_copy(update={"rule": Rule(resamples=400, min_prompts=3)})
    (verdict,) = gainlens.test(ZEROING, {"model": model}, changed, spec=spec).verdicts
    assert verdict.estimates[0].interval.n == 15


def test_what_cannot_be_done_to_a_model_leaves_the_claim_undetermined(world):
    model, prompts = world["even"]
    found = gainlens.test([ZEROING, MEAN], {"model": model}, prompts, spec=SPEC)
    for verdict in found.verdicts:
        assert verdict.outcome == "UNDETERMINED"
        assert verdict.reasons == ("No token is massive on these prompts, so nothing is set.",)
        assert verdict.effect is None
    model, prompts = world["read"]  # one massive token, so each equals the mean
    (verdict,) = gainlens.test(MEAN, {"model": model}, prompts, spec=SPEC).verdicts
    assert verdict.outcome == "UNDETERMINED"
    assert "by construction" in verdict.reasons[0]


def test_claims_of_one_intervention_share_its_passes(world, monkeypatch):
    model, prompts = world["read"]
    passes = []

    def counted(*args, **kwargs):
        passes.append(kwargs)
        return skipping.with_losses(*args, **kwargs)

    monkeypatch.setattr(intervening, "with_losses", counted)
    claim = catalogue()[SINKS]
    beyond = claim.intervention.model_copy(update={"against": "control"})
    other = claim.model_copy(update={"name": "other", "intervention": beyond})
    gainlens.test([claim], {"model": model}, prompts, spec=SPEC)
    alone = len(passes)
    found = gainlens.test([claim, other], {"model": model}, prompts, spec=SPEC)
    assert len(passes) == 2 * alone == 2 * (1 + claim.intervention.draws)
    first, second = found.verdicts
    assert first.effect.change == second.effect.change
    assert first.effect.excess == second.effect.excess
    assert first.estimates[0].interval == first.effect.change
    assert second.estimates[0].interval == second.effect.excess


def test_the_seed_draws_the_control(world):
    model, prompts = world["read"]

    def draws(seed):
        spec = SPEC.model_copy(update={"rule": Rule(resamples=400, seed=seed)})
        (verdict,) = gainlens.test(SINKS, {"model": model}, prompts, spec=spec).verdicts
        return verdict.effect.draws

    assert draws(0) == draws(0)
    assert draws(0) != draws(1)
    assert len(set(draws(0))) == len(draws(0))


def test_judging_takes_less_than_two_seconds_beyond_the_passes(world, monkeypatch):
    model, prompts = world["read"]
    claim = catalogue()[SINKS]
    spec = SPEC.model_copy(update={"rule": Rule()})
    spent = []
    judge = gainlens.runs.testing.judge_claim

    def timed(*args):
        started = time.process_time()
        verdict = judge(*args)
        spent.append(time.process_time() - started)
        return verdict

    monkeypatch.setattr(gainlens.runs.testing, "judge_claim", timed)
    gainlens.test(claim, {"model": model}, prompts, spec=spec)
    assert spent[0] < 2.0
