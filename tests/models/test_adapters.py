"""A PEFT adapter gives the logits of peft's own model, or one sentence."""

import json

import pytest
import torch
from planting.checkpoints import build_model, save_tokenizer
from planting.gguf_files import TINY, write_gguf
from safetensors.torch import load_file, save_file

from gainlens.models.loading import load

peft = pytest.importorskip("peft", reason="the extra gainlens[peft]")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning", "ignore::UserWarning"
)
TOKENS = torch.arange(20)[None]


@pytest.fixture
def adapt(tmp_path):
    """Return a function that writes a base and an adapter on it, and returns peft's model."""

    def write(settings, *, gguf=False, **shape):
        model = build_model(**TINY, rms_norm_eps=1e-6, **shape)
        base = tmp_path / ("base.gguf" if gguf else "base")
        if gguf:
            write_gguf(base, model)
        else:
            model.save_pretrained(base)
            save_tokenizer(base)
        adapted = peft.get_peft_model(model, settings).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.3)
        adapted.peft_config["default"].base_model_name_or_path = str(base)
        adapted.save_pretrained(tmp_path / "adapter")
        return adapted

    return write


def lora(*targets, **more):
    return peft.LoraConfig(r=4, target_modules=[*targets], **more)


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        (lora("q_proj", "down_proj"), {"gguf": True}),
        (lora("q_proj", modules_to_save=["lm_head", "embed_tokens"]), {}),
        (lora("q_proj", modules_to_save=["embed_tokens"]), {"tie_word_embeddings": True}),
        (lora("embed_tokens"), {"tie_word_embeddings": True}),
    ],
    ids=[
        "gguf base",
        "modules_to_save",
        "modules_to_save of a tied base",
        "embedding of a tied base",
    ],
)
def test_a_merged_adapter_gives_the_logits_of_pefts_own_model(adapt, tmp_path, settings, how):
    adapted = adapt(settings, **how)
    with torch.no_grad():
        want = adapted(TOKENS).logits
    loaded = load(tmp_path / "adapter", backend="native")
    torch.testing.assert_close(loaded.sites.logits(TOKENS), want, rtol=0, atol=2e-5)
    assert loaded.checkpoint.base == str(tmp_path / ("base.gguf" if how.get("gguf") else "base"))


def half(tensors):
    return {name: tensor for name, tensor in tensors.items() if "q_proj" in name}


def renamed(tensors):
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def more(tensors):
    return tensors | {
        name.replace("q_proj", "v_proj"): value.clone() for name, value in tensors.items()
    }


@pytest.mark.parametrize(
    ("change", "keyword"), [(half, "lacks 4"), (renamed, "lacks 8"), (more, "holds unknown 4")]
)
@pytest.mark.fault("an adapter whose tensors are not those of its settings", "refused: which")
def test_an_adapter_is_merged_whole_or_not_at_all(adapt, tmp_path, change, keyword):
    adapt(lora("q_proj", "down_proj"))
    file = tmp_path / "adapter/adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(ValueError, match=keyword):
        load(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("base", "keyword"),
    [
        ("/nowhere/base", "there is no directory /nowhere/base"),
        ("gone.gguf", "gone.gguf"),
        ("", "names no base"),
        (".", "is an adapter itself"),
    ],
)
@pytest.mark.fault("an adapter without its base", "refused: where to name it")
def test_an_adapter_without_its_base_is_refused(adapt, tmp_path, base, keyword):
    adapt(lora("q_proj"))
    settings = tmp_path / "adapter/adapter_config.json"
    changed = {**json.loads(settings.read_text("utf-8")), "base_model_name_or_path": base}
    settings.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(ValueError, match=keyword) as caught:
        load(tmp_path / "adapter")
    assert "base_model_name_or_path" in str(caught.value) or base == "."


@pytest.mark.fault("an adapter that adds tokens", "refused: it cannot be merged")
def test_an_adapter_that_cannot_be_merged_is_refused(adapt, tmp_path):
    adapt(peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="PREFIX_TUNING adapter"):
        load(tmp_path / "adapter")
