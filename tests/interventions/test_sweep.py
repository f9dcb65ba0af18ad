"""Sweeps and theta doses: planted components that decide, and ones that must not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS
from planting.hooks import hooks_of, prompts_of
from planting.planted_blocks import TEXTS, planted_checkpoint
from planting.reports import pair
from planting.reports import planted as plain_gain

import gainlens
from gainlens.activations.capturing import capture
from gainlens.activations.losses import loss
from gainlens.claims.components import ablated_verdicts
from gainlens.core.presets import PRESETS
from gainlens.core.spec import Ablation, ComparisonSpec, Rule
from gainlens.interventions.ablation import ablate
from gainlens.interventions.baseline import baseline_of
from gainlens.interventions.last_block import Meter, measure_last
from gainlens.interventions.plain import plain_pass
from gainlens.interventions.plan import ablated_model, intervene
from gainlens.interventions.replay import Passage
from gainlens.interventions.rope_override import rope_theta
from gainlens.interventions.sweep import Sweep, sweep_last_blocks
from gainlens.interventions.theta import theta_dose
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.hooks import reading
from gainlens.models.loading import load
from gainlens.models.sites import sites_of
from gainlens.records.interventions import Interventions
from gainlens.results.values import to_json

RULE = Rule(resamples=400)


@pytest.fixture(scope="module")
def random_models(make_checkpoint):
    folder = make_checkpoint()
    return {backend: load(folder, backend=backend) for backend in BACK_ENDS}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Attention lifts, the MLP scales: without the MLP every last block expands."""

    def build(gain, backend="native", lift=2.0):
        folder = tmp_path_factory.mktemp("planted") / "model"
        loaded = load(planted_checkpoint(folder, gain, lift=lift).folder, backend=backend)
        return baseline_of(loaded, gainlens.encode_for(loaded, TEXTS), RULE)

    return build


def random_baseline(random_models, backend):
    loaded = random_models[backend]
    lengths = tuple(9 + 2 * (i % 7) for i in range(20))
    return baseline_of(loaded, prompts_of(lengths), RULE)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_taking_a_pass_up_again_changes_nothing_to_the_bit(random_models, backend):
    model = random_models[backend].model
    sites = sites_of(model)
    tokens = torch.tensor([[256, 5, 6, 7, 8, 9], [256, 1, 1, 2, 0, 0]])
    seen = []
    before = hooks_of(model)
    with reading([(sites.site("blocks.3.hook_resid_post"), seen.append)]):
        passage = Passage(sites, tokens, 0).run()
        for block in range(4):
            passage.resume(block)
    assert len(seen) == 5
    assert all(torch.equal(stream, seen[0]) for stream in seen[1:])
    assert hooks_of(model) == before


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_taking_up_runs_no_block_before(random_models, backend):
    model = random_models[backend].model
    sites = sites_of(model)
    passage = Passage(sites, torch.tensor([[256, 5, 6]]), 2).run()
    fired = []
    readers = [
        (sites.site(f"blocks.{block}.hook_mlp_out"), lambda t, block=block: fired.append(block))
        for block in range(4)
    ]
    with reading(readers):
        passage.resume(2)
    assert fired == [2, 3]


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_an_outer_ablation_applies_once_when_taken_up(random_models, backend):
    """A hook that adds applies to the stream as it entered, not to what it made of it before."""
    model = random_models[backend].model
    sites = sites_of(model)
    seen = []
    with (
        ablate(model, {"blocks.2.hook_resid_pre": lambda tensor, hook: tensor + 1}),
        reading([(sites.site("blocks.3.hook_resid_post"), seen.append)]),
    ):
        Passage(sites, torch.tensor([[256, 5, 6]]), 2).run().resume(2)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_an_outer_ablation_knows_the_rows_of_the_pass_that_is_taken_up(random_models, backend):
    """Resample tells rows apart by their tokens, and another batch has run in between."""
    model, reference = random_models[backend].model, prompts_of((6, 6, 6))
    sites = sites_of(model)
    seen = []
    with (
        ablate(model, {"blocks.3.hook_mlp_out": "resample"}, reference=reference),
        reading([(sites.site("blocks.3.hook_resid_post"), seen.append)]),
    ):
        passages = [
            Passage(sites, torch.from_numpy(ids)[None], 3).run() for ids in reference.tokens
        ]
        passages[0].resume(3)
    assert torch.equal(seen[0], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_the_sweep_equals_ablating_and_capturing(random_models):
    """The long way round: whole forward passes under `ablate`, capture, loss.  rtol: float32.

    On one back end: the next test says that the others agree with it.
    """
    baseline = random_baseline(random_models, "native")
    model, prompts = baseline.model, baseline.prompts
    effects = sweep_last_blocks(baseline, 2, heads=True)
    assert len(effects) == 2 * (2 + 4) * 2
    plain_loss = loss(model, prompts)
    for effect in effects:
        if effect.site.endswith(("hook_z[1]", "hook_z[2]")):
            continue  # the first and the last head show that an index is the head's
        with ablate(model, {effect.site: effect.how}, reference=prompts):
            captured = capture(model, prompts)
            sentence = capture(model, baseline.sentence)
            under_loss = loss(model, prompts)
        classes = replace(decompose(captured), is_massive=baseline.decomposition.is_massive)
        wanted = reduce_gains(classes).log_gain[-1]
        plain = reduce_gains(baseline.decomposition).log_gain[-1]
        change = effect.change
        assert change.after.log_gain.estimate == pytest.approx(wanted.mean(), abs=1e-5)
        assert change.delta_log_gain.estimate == pytest.approx((wanted - plain).mean(), abs=1e-5)
        assert change.after.loss.estimate == pytest.approx(under_loss.mean(), abs=1e-5)
        assert change.delta_loss.estimate == pytest.approx(
            (under_loss - plain_loss).mean(), abs=2e-5
        )
        ratio = sentence.normed.mean() / np.sqrt(sentence.column("xx")[-1]).mean()
        assert change.after.notebook_last_gain == pytest.approx(ratio, rel=1e-5)


def test_effects_agree_between_back_ends(random_models):
    found = [sweep_last_blocks(random_baseline(random_models, b), 2, heads=True) for b in BACK_ENDS]
    for effects in zip(*found, strict=True):
        first = effects[0].change
        for other in (effect.change for effect in effects[1:]):
            for name in ("delta_log_gain", "delta_loss"):
                mine, its = getattr(first, name), getattr(other, name)
                # atol 1e-5: float32 forward passes through differently ordered attention
                np.testing.assert_allclose(
                    [mine.estimate, mine.low, mine.high], [its.estimate, its.low, its.high],
                    atol=1e-5,
                )  # fmt: skip


def by_site(effects, how="zero"):
    return {effect.site: effect.change for effect in effects if effect.how == how}


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_the_component_that_contracts_flips_the_behaviour_and_the_other_does_not(planted, backend):
    found = by_site(sweep_last_blocks(planted(0.6, backend), 3))
    mlp, attention = found["blocks.-1.hook_mlp_out"], found["blocks.-1.hook_attn_out"]
    assert mlp.before.behaviour == "CONTRACTS"
    assert mlp.after.behaviour == "EXPANDS"  # what is left is attention's lift
    assert attention.after.behaviour == "CONTRACTS"
    assert attention.delta_log_gain.high < 0  # attention did lift
    for back in (2, 3):  # blocks that write nothing
        for site in ("hook_attn_out", "hook_mlp_out"):
            change = found[f"blocks.-{back}.{site}"]
            assert change.delta_log_gain.estimate == pytest.approx(0, abs=1e-7)
            assert change.delta_loss.estimate == pytest.approx(0, abs=1e-6)
            assert change.after.behaviour == "CONTRACTS"


def test_the_verdict_names_the_component_that_it_depends_on(planted):
    short, long = pair(plain_gain(1.25, 1, prompts=20), plain_gain(0.6, 2, prompts=20))
    sweeps = [Interventions(sweep=sweep_last_blocks(planted(gain))) for gain in (1.25, 0.6)]
    verdicts = ablated_verdicts(
        replace(short, interventions=sweeps[0]), replace(long, interventions=sweeps[1]), RULE
    )
    found = {(verdict.site, verdict.how): verdict for verdict in verdicts}
    mlp = found["blocks.-1.hook_mlp_out", "zero"]
    assert mlp.before == "CONFIRMED"
    assert mlp.short_ablated == "CONFIRMED"  # attention's lift still expands
    assert mlp.long_ablated == mlp.both_ablated == "UNEXPECTED"
    assert mlp.decides
    attention = found["blocks.-1.hook_attn_out", "zero"]
    assert not attention.decides
    assert attention.both_ablated == "CONFIRMED"


def test_the_planted_effect_has_its_planted_size(planted):
    """Without the MLP the last block's gain is attention's lift alone: sqrt(1 + (a/x)^2)."""
    baseline = planted(0.6)
    change = by_site(sweep_last_blocks(baseline))["blocks.-1.hook_mlp_out"]
    captured = baseline.decomposition.capture
    lift = np.log1p(captured.column("aa")[-1] / captured.column("xx")[-1]) / 2
    truth = [lift[(captured.prompt == p) & (captured.position > 0)].mean() for p in range(20)]
    assert change.after.log_gain.estimate == pytest.approx(np.mean(truth), rel=1e-4)
    assert change.after.log_gain.low < np.mean(truth) < change.after.log_gain.high


def test_the_notebook_is_blind_to_what_the_mlp_does_and_the_loss_to_scale(planted):
    """The MLP writes parallel to its input: ablating it moves the gain, nothing after the norm."""
    change = by_site(sweep_last_blocks(planted(0.6)))["blocks.-1.hook_mlp_out"]
    assert abs(change.delta_log_gain.estimate) > 0.4
    assert change.after.notebook_last_gain == pytest.approx(
        change.before.notebook_last_gain, rel=1e-5
    )
    assert change.delta_loss.estimate == pytest.approx(0, abs=1e-4)


def test_means_and_zeros_differ_where_a_mean_is_not_zero(planted):
    effects = sweep_last_blocks(planted(0.6))
    zero, mean = (by_site(effects, how)["blocks.-1.hook_attn_out"] for how in ("zero", "mean"))
    assert abs(mean.delta_log_gain.estimate) < abs(zero.delta_log_gain.estimate) / 10


def test_prompts_that_cannot_be_kept_pass_twice_to_the_same_numbers(random_models, monkeypatch):
    baseline = random_baseline(random_models, "native")
    passes = []
    handle = baseline.model.model.layers[0].register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    try:
        kept = sweep_last_blocks(baseline, 2)
        once = sum(passes)
        monkeypatch.setattr("gainlens.interventions.replay.KEEP_BYTES", 0)
        assert to_json(sweep_last_blocks(baseline, 2)) == to_json(kept)
    finally:
        handle.remove()
    assert once == len(baseline.prompts.tokens) + 2  # the sentence runs before and behind them
    assert sum(passes) == once + once + len(baseline.prompts.tokens)


def test_too_few_prompts_have_no_behaviour(random_models):
    baseline = baseline_of(random_models["native"], prompts_of((9, 12, 7)), RULE)
    for effect in sweep_last_blocks(baseline):
        assert effect.change.after.behaviour is None
        assert np.isfinite(effect.change.delta_log_gain.estimate)


def test_a_sweep_of_no_block_is_refused_and_of_too_many_is_of_all(random_models):
    baseline = random_baseline(random_models, "native")
    with pytest.raises(ValueError, match="at least the last block"):
        sweep_last_blocks(baseline, 0)
    assert len(sweep_last_blocks(baseline, 99, hows=("zero",))) == 4 * 2


def test_progress_counts_every_prompt_and_not_the_sentence(random_models):
    done = []
    baseline = random_baseline(random_models, "native")
    sweep_last_blocks(baseline, progress=done.append)
    assert sum(done) == len(baseline.prompts.tokens)


def test_no_hook_survives_a_sweep_that_fails(random_models, monkeypatch):
    baseline = random_baseline(random_models, "native")
    before = hooks_of(baseline.model)
    monkeypatch.setattr(
        "gainlens.interventions.last_block.Meter.prompt_values",
        lambda *_: (_ for _ in ()).throw(KeyError("x")),
    )
    with pytest.raises(KeyError):
        sweep_last_blocks(baseline)
    assert hooks_of(baseline.model) == before


@pytest.mark.fault("an ablation that leaves a stream of norm 0", "refused: block and position")
def test_a_stream_that_vanishes_is_one_sentence(planted):
    baseline = planted(0.6)
    with (
        ablate(baseline.model, {"blocks.-1.hook_resid_post": "zero"}),
        pytest.raises(ValueError, match="norm 0 or is not finite at"),
    ):
        measure_last(baseline)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_theta_dose_equals_measuring_under_each_base(random_models, backend):
    baseline = random_baseline(random_models, backend)
    doses = theta_dose(baseline, [5e5, 1e3, 5e5])
    assert [dose.theta for dose in doses] == [1e3, 1e4, 5e5]
    assert [dose.own for dose in doses] == [False, True, False]
    own = doses[1].change
    assert own.after.log_gain == own.before.log_gain
    assert own.delta_loss.estimate == 0.0
    for dose in (doses[0], doses[2]):
        with rope_theta(baseline.model, dose.theta):
            captured = capture(baseline.model, baseline.prompts)
            wanted = loss(baseline.model, baseline.prompts)
        gains = reduce_gains(decompose(captured)).log_gain[-1]
        assert dose.change.after.log_gain.estimate == pytest.approx(gains.mean(), abs=1e-5)
        assert dose.change.after.loss.estimate == pytest.approx(wanted.mean(), abs=1e-5)
        assert abs(dose.change.delta_loss.estimate) > 1e-4


def test_a_model_whose_attention_ignores_position_does_not_answer_theta(planted):
    """The null of the dose: zero query and key."""
    for dose in theta_dose(planted(0.6), [1e2, 5e5]):
        assert dose.change.delta_log_gain.estimate == pytest.approx(0, abs=1e-7)
        assert dose.change.delta_loss.estimate == pytest.approx(0, abs=1e-7)


def test_a_model_without_rope_has_no_dose(random_models):
    baseline = replace(random_baseline(random_models, "native"), config={"n_positions": 128})
    with pytest.raises(ValueError, match="no theta to vary"):
        theta_dose(baseline, [1e5])


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_an_ablated_model_has_the_curve_that_capture_sees(random_models, backend):
    baseline = random_baseline(random_models, backend)
    model, prompts = baseline.model, baseline.prompts
    wanted = (
        Ablation(site="blocks.-2.hook_mlp_out", how="mean"),
        Ablation(site="blocks.-1.attn.hook_z[1]", how="resample"),
    )
    found = ablated_model(baseline, wanted)
    with ablate(model, {one.site: one.how for one in wanted}, reference=prompts, seed=RULE.seed):
        captured = capture(model, prompts)
        loss_under = loss(model, prompts)
    classes = replace(decompose(captured), is_massive=baseline.decomposition.is_massive)
    gains = reduce_gains(classes, "ordinary", "geomean").log_gain.mean(axis=1)
    assert [block.log_gain for block in found.blocks] == pytest.approx(gains.tolist(), rel=1e-6)
    assert found.change.after.log_gain.estimate == pytest.approx(gains[-1], rel=1e-5)
    assert found.change.after.loss.estimate == pytest.approx(loss_under.mean(), rel=1e-6)
    assert found.change.before.log_gain.estimate != pytest.approx(gains[-1], rel=1e-3)


def spec_of(**fields):
    return ComparisonSpec(name="twins", models=PRESETS["twins"], rule=RULE, **fields)


@pytest.mark.parametrize("backend", ["native", "bridge"])
def test_the_captures_own_pass_serves_the_sweep_to_the_bit(random_models, monkeypatch, backend):
    loaded, spec = random_models[backend], spec_of(sweep=2)
    baseline = random_baseline(random_models, backend)
    plain = plain_pass(replace(loaded, hf_model=None), baseline.prompts, spec)
    gainlens.capture(loaded.model, baseline.prompts, beside=plain)
    wanted = intervene(baseline, spec, (1e3,))

    ran = []
    monkeypatch.setattr(Sweep, "_passage", lambda sweep, batch: ran.append(batch.index))
    sentence = Passage(loaded.sites, torch.from_numpy(baseline.sentence.tokens[0])[None], 0)
    monkeypatch.setattr(Sweep, "_sentence", lambda sweep: sentence.run())
    assert to_json(intervene(replace(baseline, plain=plain), spec, (1e3,))) == to_json(wanted)
    assert ran == []  # nothing but the sentence, and the blocks from the ablated one on


def test_models_whose_interventions_run_elsewhere_are_not_read_along(random_models):
    loaded = random_models["native"]
    prompts = prompts_of((9, 12))
    assert plain_pass(loaded, prompts, spec_of(sweep=0)) is None
    assert plain_pass(replace(loaded, hf_model=loaded.model), prompts, spec_of(sweep=1)) is None


def test_sweep_and_thetas_share_the_model_as_it_is(random_models):
    baseline = random_baseline(random_models, "native")
    done = []
    found = intervene(baseline, spec_of(sweep=2), (1e3, 1e6), progress=done.append)
    assert [effect.site for effect in found.sweep] == [
        f"blocks.-{back}.hook_{name}_out" for back in (1, 2) for name in ("attn", "mlp")
    ]
    assert [dose.theta for dose in found.theta_dose] == [1e3, 1e4, 1e6]
    before = found.sweep[0].change.before
    assert all(dose.change.before == before for dose in found.theta_dose)
    assert sum(done) == 3 * len(baseline.prompts.tokens)
    alone = intervene(baseline, spec_of(sweep=0), (1e3, 1e6))
    for one, other in zip(alone.theta_dose, found.theta_dose, strict=True):
        np.testing.assert_allclose(one.last_block, other.last_block, rtol=1e-5)


def test_nothing_is_done_where_nothing_is_wanted(random_models):
    baseline = random_baseline(random_models, "native")
    found = intervene(baseline, spec_of(sweep=0, theta=()), ())
    assert found == Interventions()


def test_a_theta_that_nobody_asked_for_and_that_cannot_be_is_a_note(random_models):
    baseline = replace(random_baseline(random_models, "native"), config={})
    found = intervene(baseline, spec_of(), (1e4, 5e5))
    assert found.theta_dose == ()
    assert found.notes == (
        "theta was not swapped: this model has no rotary position embedding, so it has no theta to "
        "vary",
    )
    with pytest.raises(ValueError, match="no rotary position embedding"):
        intervene(baseline, spec_of(theta=(1e5,)), (1e5,))


@pytest.mark.fault("memory runs out in a sweep", "the batch is halved, and said so")
@pytest.mark.parametrize("keep", [0, 1 << 29])
def test_a_batch_that_does_not_fit_in_a_sweep_is_halved(random_models, monkeypatch, keep):
    baseline = random_baseline(random_models, "native")
    monkeypatch.setattr("gainlens.interventions.replay.KEEP_BYTES", keep)
    whole = sweep_last_blocks(baseline, blocks=2)
    prompt_values, resume = Meter.prompt_values, Passage.resume
    failed = []

    def no_room(meter, batch):
        """The plain pass fails after its means were observed."""
        if not failed:
            failed.append("plain")
            raise torch.OutOfMemoryError("no room")
        return prompt_values(meter, batch)

    def no_room_either(passage, block):
        if failed == ["plain"]:
            failed.append("resumed")
            raise torch.OutOfMemoryError("no room")
        resume(passage, block)

    monkeypatch.setattr(Meter, "prompt_values", no_room)
    monkeypatch.setattr(Passage, "resume", no_room_either)
    with pytest.warns(RuntimeWarning, match="halves"):
        halved = sweep_last_blocks(baseline, blocks=2)
    assert failed == ["plain", "resumed"]
    for one, other in zip(whole, halved, strict=True):
        for name in ("delta_log_gain", "delta_loss"):
            estimates = [getattr(effect.change, name).estimate for effect in (one, other)]
            assert estimates[0] == pytest.approx(estimates[1], abs=1e-5)
