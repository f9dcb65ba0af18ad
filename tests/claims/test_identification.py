"""Which differences leave two models comparable, and which confound."""

import dataclasses

import pytest
from planting.reports import TRAINING, checkpoint

from gainlens.claims.identification import identify

SHORT = checkpoint("short", 512, 1e4)


def differing(long) -> tuple[str, ...]:
    found = identify(SHORT, long)
    assert found.controlled == (not found.differing)
    return found.differing


def test_theta_context_and_bookkeeping_are_no_confounds():
    long = checkpoint("long", 4096, 5e5, transformers_version="9", torch_dtype="bfloat16")
    assert differing(long) == ()


@pytest.mark.parametrize(
    "field",
    [
        "unsloth_version",
        "unsloth_fixed",
        "auto_map",
        "is_decoder",
        "image_token_id",
        "initializer_range",
        "attention_dropout",
        "embd_pdrop",
        "pretraining_tp",
        "_name_or_path",
    ],
)
@pytest.mark.fault("config fields that change no computation", "ignored: no confound")
def test_what_cannot_matter_is_ignored(field):
    assert differing(checkpoint("long", **{field: "other"})) == ()


@pytest.mark.parametrize("field", ["attention_bias", "rms_norm_eps", "drop_every", "token_shift"])
def test_what_may_matter_is_not(field):
    assert differing(checkpoint("long", **{field: "other"})) != ()


def test_every_other_field_is_named_with_both_values():
    long = checkpoint("long", vocab_size=128256, num_key_value_heads=8)
    assert differing(long) == ("vocab_size 4096 vs 128256", "num_key_value_heads none vs 8")


@pytest.mark.parametrize("style", ["old", "new"])
def test_scaling_of_rope_is_a_difference_in_either_style(style):
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    if style == "new":
        fields = {"rope_parameters": {"rope_theta": 5e5, **scaling}}
    else:
        fields = {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": scaling}
    assert differing(checkpoint("long", **fields)) == (
        "rope_scaling none vs rope_type=llama3 factor=8.0",
    )


def test_old_and_new_style_say_the_same():
    old = {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": None}
    assert differing(checkpoint("long", **old)) == ()
    named = {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}}
    pair = checkpoint("a", **named), checkpoint("b", **new)
    assert identify(*pair).controlled


@pytest.mark.fault(
    "training that is not known or not the same", "caveat: CONFOUNDED, training unknown"
)
def test_training_must_be_known_and_agree():
    assert differing(checkpoint("long", training=TRAINING | {"seed": 3})) == (
        "training seed 0 vs 3",
    )
    assert differing(checkpoint("long", training=None)) == ("training unknown of long",)
    unknown = dataclasses.replace(SHORT, training=None)
    assert identify(unknown, unknown).differing == ("training unknown",)


@pytest.mark.fault("two directories with the same weights", "said; their training is one")
def test_equal_weights_have_one_training_and_are_said():
    """Qwen's YaRN is a line in config.json: context and scaling differ, no weight does."""
    weights = dataclasses.replace(SHORT, training=None, weights="ab")
    long = checkpoint("long", 2048, training=None)
    found = identify(weights, dataclasses.replace(long, weights="ab"))
    assert found.same_weights
    assert found.controlled
    assert found.by_design == ()
    found = identify(weights, dataclasses.replace(long, weights="cd"))
    assert not found.same_weights
    assert found.differing == ("training unknown",)
    assert not identify(SHORT, long).same_weights  # a hub model's weights have no hash


def test_a_dtype_of_its_own_is_a_difference():
    long = dataclasses.replace(checkpoint("long"), dtype="bfloat16")
    assert differing(long) == ("measured in float32 vs bfloat16",)


def test_long_values_are_cut():
    (line,) = differing(checkpoint("long", layer_types=["full_attention"] * 80))
    assert len(line) < 100
    assert line.endswith("...")
