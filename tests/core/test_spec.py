"""Test what a spec refuses before anything runs."""

import pytest
from pydantic import ValidationError

from gainlens.core.presets import PRESETS, named_models
from gainlens.core.spec import Ablation, ComparisonSpec

TWINS = {"name": "twins", "models": PRESETS["twins"]}


def test_an_ablation_is_parsed():
    found = Ablation.model_validate("blocks.-1.hook_mlp_out=mean")
    assert found == Ablation(site="blocks.-1.hook_mlp_out", how="mean")


@pytest.mark.parametrize("text", ["blocks.-1.hook_mlp_out", "=zero", "x=one", "x=", "", "x=zero="])
def test_what_is_no_ablation_is_refused(text):
    with pytest.raises(ValidationError, match="SITE=HOW"):
        Ablation.model_validate(text)


@pytest.mark.parametrize("theta", [0.0, 1.0, -5.0, float("inf"), float("nan")])
def test_a_theta_that_is_no_base_is_refused(theta):
    with pytest.raises(ValidationError, match="a RoPE base is a number above 1"):
        ComparisonSpec(**TWINS, theta=(5e5, theta))


def test_a_site_is_ablated_once():
    twice = (Ablation.model_validate("blocks.-1.hook_mlp_out=mean"),) * 2
    with pytest.raises(ValidationError, match=r"blocks\.-1\.hook_mlp_out is ablated twice"):
        ComparisonSpec(**TWINS, ablate=twice)


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ComparisonSpec(**TWINS, thetas=(1e4,))


def test_a_preset_stands_under_its_name_and_a_checkpoint_beside_the_first_twin():
    assert named_models("llama") == ("llama", PRESETS["llama"])
    name, models = named_models("models/gemma.gguf")
    assert name == "context512-theta10k-vs-gemma.gguf"
    assert [(model.role, model.hf_name) for model in models] == [
        ("short", "gainlens:context512-theta10k"),
        ("long", "models/gemma.gguf"),
    ]
    name, models = named_models(("a/model", "b/model"))
    assert name == "model-vs-model-2"
    with pytest.raises(ValueError, match="got 3"):
        named_models(("a", "b", "c"))
