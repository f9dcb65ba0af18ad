"""Interventions of claims and their random controls, on models whose answer is planted or known."""

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS
from planting.hooks import hooks_of, prompts_of

import gainlens
from gainlens.activations.capturing import capture
from gainlens.claims.intervention import Intervention
from gainlens.core.spec import Rule
from gainlens.interventions.controlled import Subject, plan_of
from gainlens.interventions.masking import (
    attention_masked,
    check_masking,
    first_position,
    random_position,
)
from gainlens.interventions.rope_override import rope_frequencies, rope_theta
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.weights.rope import inverse_frequencies

PROMPTS = prompts_of((12, 30, 9, 21))
RULE = Rule(resamples=400)


def subject_of(loaded, prompts=PROMPTS):
    decomposition = decompose(capture(loaded, prompts))
    return Subject(loaded.model, loaded.checkpoint.config, prompts, decomposition, RULE)


def streams(model, prompts=PROMPTS):
    return capture(model, prompts).column("yy")


def reference_with_mask(hf_model, tokens, forbidden):
    """Return Hugging Face's logits under an explicit mask [query, key], True where forbidden."""
    length = len(tokens)
    allowed = torch.ones(length, length, dtype=torch.bool).tril() & ~forbidden
    mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        return hf_model(torch.from_numpy(tokens)[None], attention_mask=mask).logits[0]


@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.parametrize("random", [False, True])
def test_a_masked_model_is_hugging_faces_own_under_that_mask(loaded_of, backend, random):
    loaded, native = loaded_of("llama", backend), loaded_of("llama", "native").model
    tokens = PROMPTS.tokens[1]

    def chosen(key, length):
        return random_position((3, 1), key, length) if random else first_position(key, length)

    before = hooks_of(loaded.model)
    key = np.trim_zeros(tokens.astype(np.int64), "b").tobytes()
    places = torch.from_numpy(chosen(key, len(tokens)))
    wanted = reference_with_mask(native, tokens, places[:, None] == torch.arange(len(tokens)))
    with attention_masked(loaded.model, chosen), torch.no_grad():
        found = loaded.sites.logits(torch.from_numpy(tokens)[None])[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    plain = loaded.sites.logits(torch.from_numpy(tokens)[None])[0]
    assert (plain - wanted)[2:].abs().max() > 1e-2, "the mask changes nothing: no test"
    assert hooks_of(loaded.model) == before


@pytest.mark.parametrize(
    "case", ["gpt2", "neox-parallel", "mistral", "gemma2", "gemma3", "phi3", "olmo2", "qwen3"]
)
def test_masks_hold_on_every_architecture(loaded_of, case):
    """Blind to position 0: `check_masking` would raise.  Batches give what single prompts give."""
    loaded = loaded_of(case, "native")
    check_masking(loaded.model, PROMPTS.tokens[0])
    with attention_masked(loaded.model, first_position):
        together = streams(loaded.model)
        alone = capture(loaded.model, PROMPTS, batch_tokens=1).column("yy")
    np.testing.assert_allclose(together, alone, rtol=2e-3)


def test_a_model_that_does_not_keep_to_its_mask_is_refused(loaded_of, monkeypatch):
    loaded = loaded_of("llama", "native")
    monkeypatch.setattr(
        "gainlens.interventions.masking.attention_masked",
        lambda model, chosen: gainlens.ablate(model, {}),
    )
    with pytest.raises(ValueError, match="although it is masked"):
        check_masking(loaded.model, PROMPTS.tokens[0])


def test_a_random_mask_has_the_budget_of_the_sinks_and_spares_position_0_and_the_query():
    chosen = random_position((0, 0), b"prompt", 400)
    assert (chosen[:2] == -1).all()
    assert (chosen[2:] >= 1).all()
    assert (chosen[2:] < np.arange(2, 400)).all()
    assert (first_position(b"prompt", 400) >= 0).sum() - (chosen >= 0).sum() == 1
    share = chosen[2:] / np.arange(2, 400)
    assert abs(share.mean() - 0.5) < 0.06
    np.testing.assert_array_equal(chosen[:50], random_position((0, 0), b"prompt", 50))
    assert (random_position((0, 1), b"prompt", 400) != chosen).mean() > 0.9
    assert (random_position((0, 0), b"other", 400) != chosen).mean() > 0.9


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_leaving_out_a_block_is_leaving_out_what_it_writes(loaded_of, backend):
    loaded = loaded_of("llama", backend)
    wanted = Intervention(kind="leave out", component="block", block=1, draws=8)
    plan = plan_of(wanted, subject_of(loaded))
    assert len(plan.controls) == plan.population == 3
    with plan.treated():
        captured = capture(loaded.model, PROMPTS)
    np.testing.assert_allclose(captured.column("yy")[1], captured.column("xx")[1], rtol=1e-6)
    silent = []
    for control in plan.controls:
        with control():
            under = capture(loaded.model, PROMPTS)
        written = under.column("aa").max(axis=1) + under.column("mm").max(axis=1)
        silent += np.flatnonzero(written == 0).tolist()
    assert sorted(silent) == [0, 2, 3]


def test_one_block_leaves_no_control(make_checkpoint):
    loaded = gainlens.load(make_checkpoint(num_hidden_layers=1), backend="native")
    subject = subject_of(loaded)
    for kind, keys in (("leave out", {"component": "mlp", "block": "last"}), ("equal gain", {})):
        with pytest.raises(ValueError, match="control"):
            plan_of(Intervention(kind=kind, **keys), subject)
    wanted = Intervention(kind="leave out", component="mlp", block=4)
    with pytest.raises(ValueError, match="has no block 4"):
        plan_of(wanted, subject)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_blocks_rescaled_to_equal_gain_have_equal_gain(loaded_of, backend):
    loaded = loaded_of("llama", backend)
    subject = subject_of(loaded)
    plain = reduce_gains(subject.decomposition).log_gain.mean(axis=1)
    assert np.ptp(plain) > 0.1, "the gains are equal already: no test"
    plan = plan_of(Intervention(kind="equal gain", draws=2), subject)
    with plan.treated():
        under = reduce_gains(decompose(capture(loaded.model, PROMPTS))).log_gain.mean(axis=1)
    np.testing.assert_allclose(under, plain.mean(), atol=2e-3)
    for control in plan.controls:
        with control():
            under = reduce_gains(decompose(capture(loaded.model, PROMPTS))).log_gain.mean(axis=1)
        assert np.ptp(under) > 0.05


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_a_theta_swap_has_the_same_frequency_factors_in_another_order_beside_it(loaded_of, backend):
    model = loaded_of("llama", backend).model
    subject = subject_of(loaded_of("llama", backend))
    own, before = inverse_frequencies(model), streams(model)
    plan = plan_of(Intervention(kind="swap theta", theta=5e5, draws=2), subject)
    with rope_theta(model, 5e5):
        swapped = inverse_frequencies(model) / own
    with plan.treated():
        np.testing.assert_allclose(inverse_frequencies(model) / own, swapped, rtol=1e-6)
    for control in plan.controls:
        with control():
            factors = inverse_frequencies(model) / own
            assert not np.allclose(streams(model), before, rtol=1e-4)
        np.testing.assert_allclose(np.sort(factors), np.sort(swapped), rtol=1e-3)
        assert not np.allclose(factors, swapped, rtol=1e-2)
    np.testing.assert_array_equal(streams(model), before)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_multiplied_frequencies_equal_those_of_another_base(loaded_of, backend):
    """Theta's own factors in their own order: the same numbers as under the swap."""
    model = loaded_of("llama", backend).model
    own = inverse_frequencies(model)
    with rope_theta(model, 5e5):
        wanted, factors = streams(model), inverse_frequencies(model) / own
    with rope_frequencies(model, factors):
        np.testing.assert_allclose(streams(model), wanted, rtol=1e-4)


def test_a_theta_that_cannot_be_swapped_says_why(loaded_of, make_checkpoint):
    wanted = Intervention(kind="swap theta", theta=1e4)
    with pytest.raises(ValueError, match="already"):
        plan_of(wanted, subject_of(loaded_of("llama", "native")))
    with pytest.raises(ValueError, match="no rotary"):
        plan_of(wanted, subject_of(loaded_of("gpt2", "native")))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    loaded = gainlens.load(make_checkpoint(rope_parameters=dynamic), backend="native")
    with pytest.raises(ValueError, match="depend on the prompt's length"):
        plan_of(Intervention(kind="swap theta", theta=5e5), subject_of(loaded))
