"""A prompt gives alone what it gives among others: every architecture, every back end, every pass.

float32, atol 1e-5 nats per token: batches of other shapes sum in other orders.
"""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from planting.architectures import CASES
from planting.checkpoints import build_model
from planting.hooks import prompts_of

from gainlens.activations.capturing import capture
from gainlens.activations.losses import loss
from gainlens.core.spec import Rule
from gainlens.interventions.ablation import ablate
from gainlens.interventions.baseline import baseline_of
from gainlens.interventions.last_block import measure_last
from gainlens.interventions.rope_override import rope_theta
from gainlens.interventions.skipping import with_losses
from gainlens.interventions.sweep import sweep_last_blocks
from gainlens.interventions.tokens import massive_set
from gainlens.models.loaded import LoadedModel
from gainlens.models.wrapping import wrap
from gainlens.records.inputs import EncodedPrompts

LENGTHS = (7, 30, 12)
RULE = Rule(resamples=200, massive_ratio=1.3)
"""A ratio at which tokens of random models are massive."""
INTERVENED = {"llama", "gemma3", "gpt2", "neox-parallel"}
"""One architecture per order of a block's norms and additions: their sites are replaced too."""
Numbers = dict[str, np.ndarray]


def doubled(tensor, hook):
    return tensor * 2


def of_prompt(prompts: EncodedPrompts, index: int) -> EncodedPrompts:
    return replace(prompts, ids=prompts.ids[index : index + 1], tokens=(prompts.tokens[index],))


def captured(model: LoadedModel, prompts: EncodedPrompts, index: int) -> np.ndarray:
    """Log gains [block, token] of one of the prompts."""
    found = capture(model.model, prompts)
    mine = found.prompt == index
    return 0.5 * np.log(found.column("yy")[:, mine] / found.column("xx")[:, mine])


def ablated(model: LoadedModel, prompts: EncodedPrompts, index: int, everyone) -> np.ndarray:
    """Every kind of replacement at once, each at a site of its own."""
    sites = {
        "blocks.0.hook_mlp_out": "mean",
        "blocks.1.hook_attn_out": "resample",
        "L1H2": "zero",
        "blocks.2.hook_mlp_out": doubled,
    }
    with (
        ablate(model, sites, reference=everyone),
        ablate(model, {"blocks.3.hook_attn_out": "zero"}, positions=[0, 3]),
        ablate(
            model, {"blocks.3.hook_mlp_out": "zero"}, reference=everyone, token_class="ordinary"
        ),
    ):
        return captured(model, prompts, index)


def judged(model: LoadedModel, prompts: EncodedPrompts, index: int) -> Numbers:
    """Return what interventions measure: the last block's log gain and the loss of one prompt."""
    baseline = baseline_of(model, prompts, RULE, sentence=prompts_of((5,), seed=1))
    swept = sweep_last_blocks(baseline, hows=("zero",))
    with massive_set(baseline, "zero"):
        unmassed = measure_last(baseline)
    return {
        "sweep": np.array([effect.last_block[index] for effect in swept]),
        "massive": np.array([unmassed.log_gain[index], unmassed.loss[index]]),
    }


def numbers(
    model: LoadedModel, prompts: EncodedPrompts, index: int, everyone: EncodedPrompts, whole: bool
) -> Numbers:
    """Whatever is measured of one of the prompts; what interventions measure if `whole`."""
    found = with_losses(capture(model.model, prompts), model.model, prompts, skip=whole)
    mine = found.prompt == index
    has_rope = "GPT2" not in model.checkpoint.architecture
    with rope_theta(model.model, 5e5) if has_rope else nullcontext():
        swapped = captured(model, prompts, index)
    plain = {
        "capture": 0.5 * np.log(found.column("yy") / found.column("xx"))[:, mine],
        "loss": loss(model.model, prompts)[index],
        "token losses": found.token_loss[mine][1:],
        "theta": swapped,
    }
    if not whole:
        return plain
    return plain | {
        "skip losses": found.skip_loss[:, mine][:, 1:],
        "ablation": ablated(model, prompts, index, everyone),
        **judged(model, prompts, index),
    }


def check(
    model: LoadedModel, lengths: tuple[int, ...], alone: tuple[int, ...], whole: bool = True
) -> None:
    everyone = prompts_of(lengths)
    for index in alone:
        among = numbers(model, everyone, index, everyone, whole)
        single = numbers(model, of_prompt(everyone, index), 0, everyone, whole)
        for name, want in single.items():
            assert np.isfinite(want).all(), name
            np.testing.assert_allclose(among[name], want, rtol=0, atol=1e-5, err_msg=name)
        assert not whole or (single["ablation"] != single["capture"]).any()


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_every_architecture(loaded_of, case, backend):
    check(loaded_of(case, backend), LENGTHS, (0,), whole=case in INTERVENED)


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 3.0, 5.0, 7.0],
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("Llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 32}),
        ("Phi3", {"rope_parameters": LONGROPE, "pad_token_id": 0,
                  "original_max_position_embeddings": 32}),
    ],
)  # fmt: skip
def test_rope_that_depends_on_the_length(architecture, shape):
    check(wrap(build_model(architecture, **shape)), (12, 60, 33), (0, 2))
