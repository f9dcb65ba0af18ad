"""A back end that refuses a model names one that measures it, or says that none does."""

import runpy
from pathlib import Path

import pytest
import torch
from planting.checkpoints import BACK_ENDS, HOOKED, build_model, save_tokenizer

from gainlens.models.backends import bridge
from gainlens.models.hub import read_tokenizer
from gainlens.models.loading import load
from gainlens.models.refusals import CANNOT, Refusal, unbridged
from gainlens.models.sources import TWINS
from gainlens.models.wrapping import wrap

TOOL = Path(__file__).parents[2] / "tools/models.py"
TOKENS = torch.arange(3, 27)[None]
REFUSED = {
    "BertLMHeadModel": BACK_ENDS,
    "CohereForCausalLM": ("hooked", "bridge"),
    "GraniteForCausalLM": BACK_ENDS,
    "Lfm2ForCausalLM": ("hooked", "native"),
    "OPTForCausalLM": ("bridge",),
}


@pytest.fixture(scope="module")
def build():
    return runpy.run_path(str(TOOL))["build"]


def bridged_of(model):
    tokenizer = read_tokenizer(str(TWINS / "context512-theta10k"), None, False)
    return bridge(model, tokenizer, model.config, "float32", "cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.fault("a model that one back end cannot measure", "refused: which one can, if any")
def test_advice_leads_to_a_back_end_that_measures(build, tmp_path, name):
    build(name).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    refusals: dict[str, Refusal] = {}
    for backend in BACK_ENDS:
        try:
            load(tmp_path, backend=backend)
        except Refusal as refusal:
            refusals[backend] = refusal
    assert set(refusals) == set(REFUSED[name]) & set(BACK_ENDS)
    for refusal in refusals.values():
        said = CANNOT if refusal.instead is None else f"try --backend {refusal.instead}"
        assert str(refusal) == f"{refusal.why}; {said}"
        assert refusal.instead not in refusals
        assert refusal.instead or set(refusals) >= {"native", "bridge"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["CohereForCausalLM", "Cohere2ForCausalLM"])
@pytest.mark.fault("a bridge that computes other numbers than its model", "refused: wrap the model")
def test_a_bridge_is_compared_with_the_model_as_it_was(build, name):
    """TransformerLens' bridge turns halves of Cohere's heads where RoPE turns neighbours."""
    model = build(name)
    with torch.no_grad():
        want = model(TOKENS).logits
    bridged = bridged_of(model)
    with torch.no_grad():
        assert (model(TOKENS).logits - want).abs().max() > 0.1 * want.abs().max()
        with unbridged(model):
            torch.testing.assert_close(model(TOKENS).logits, want)
        assert (model(TOKENS).logits - want).abs().max() > 0.1 * want.abs().max()
    with pytest.raises(Refusal, match="wrap the Hugging Face model itself"):
        wrap(bridged)


def test_small_logits_do_not_hide_wrong_states(build):
    """Cohere multiplies logits by 1/16; at 1/1000 they differ by less than any limit."""
    model = build("CohereForCausalLM")
    model.logit_scale = 1e-3
    bridged = bridged_of(model)
    with pytest.raises(Refusal, match="final states by"):
        wrap(bridged)


@pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")
def test_auto_takes_native_if_the_conversion_does_not_fit(tmp_path):
    model = build_model("Qwen2", head_dim=16)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(Refusal) as caught:
        load(tmp_path, backend="hooked")
    assert caught.value.instead == "native"
    assert load(tmp_path).checkpoint.backend == "native"
