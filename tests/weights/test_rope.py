"""RoPE of configs old and new, and theta measured from buffers that models really use."""

import copy
import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from planting.checkpoints import LLAMA3_SCALING, build_model

from gainlens.models.config import rope_from_config
from gainlens.records.weights import RopeReport
from gainlens.weights.rope import (
    _share_beyond,
    check_theta,
    inverse_frequencies,
    measured_theta,
    rope_report,
)
from gainlens.weights.rope_frequencies import scaled_frequencies

LLAMA3 = {key: value for key, value in LLAMA3_SCALING.items() if key != "rope_theta"}
pytestmark = pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def hooked(theta: float, **changes: Any) -> Any:
    """A TransformerLens model with weights left empty: only its tables matter."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    settings: dict[str, Any] = {
        "n_layers": 2, "d_model": 64, "n_heads": 2, "d_head": 32, "d_mlp": 8, "n_ctx": 512,
        "d_vocab": 7, "act_fn": "silu", "positional_embedding_type": "rotary", "rotary_dim": 32,
        "rotary_base": theta, "rotary_adjacent_pairs": False, "init_weights": False,
    }  # fmt: skip
    return HookedTransformer(HookedTransformerConfig(**{**settings, **changes}))


def native(architecture: str, rope: dict[str, Any], **shape: Any) -> Any:
    shape |= {"head_dim": 8} if architecture == "Gemma2" else {}
    shape |= (
        {"pad_token_id": 0} if architecture == "Phi3" else {}
    )  # its own is beyond our vocabulary
    return build_model(architecture, rope_parameters=rope, num_hidden_layers=1, **shape)


def report_with(theta: float | None, measured: float | None) -> RopeReport:
    return RopeReport(
        rope_theta=theta, rope_scaling=None, max_position=128, measured_theta=measured,
        wavelengths=np.ones(1), beyond_context=0.0, theta_bound=None,
    )  # fmt: skip


def test_old_and_new_configs_say_the_same():
    old = {"rope_theta": 5e5, "rope_scaling": dict(LLAMA3), "max_position_embeddings": 128}
    new = {"rope_parameters": dict(LLAMA3_SCALING), "max_position_embeddings": 128}
    assert rope_from_config(old) == rope_from_config(new) == (5e5, LLAMA3, 128)
    config = native("Llama", LLAMA3_SCALING).config
    assert rope_from_config(config) == rope_from_config(config.to_dict()) == (5e5, LLAMA3, 128)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_theta": 1e4, "rope_scaling": None, "max_position_embeddings": 64}, (1e4, None, 64)),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, (1e6, None, None)),
        ({"rotary_emb_base": 10000, "rotary_pct": 0.25}, (1e4, None, None)),
        ({"rotary_dim": 64, "n_positions": 2048}, (1e4, None, 2048)),
        ({"n_positions": 1024}, (None, None, 1024)),
        ({"text_config": {"rope_theta": 1e6}, "rope_theta": 1.0}, (1e6, None, None)),
        (
            {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
            (1e4, {"type": "linear", "factor": 2.0}, None),
        ),
        (
            {"rope_theta": 1e4, "rope_scaling": {"type": "yarn"}, "max_position_embeddings": 64},
            (1e4, {"type": "yarn", "original_max_position_embeddings": 64}, 64),
        ),
        (
            {
                "rope_theta": 1e4,
                "rope_scaling": {"type": "yarn"},
                "original_max_position_embeddings": 16,
            },
            (1e4, {"type": "yarn", "original_max_position_embeddings": 16}, None),
        ),
        (
            {
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                }
            },
            (
                1e6,
                {
                    "rope_type": "linear",
                    "factor": 8.0,
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
                None,
            ),
        ),
    ],
)
def test_every_style_of_config(config, expected):
    assert rope_from_config(config) == expected


def test_a_config_is_not_changed_by_reading_it():
    config = {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "yarn"}}}
    before = copy.deepcopy(config)
    rope_from_config(config)
    assert config == before


@pytest.mark.parametrize(
    ("architecture", "theta", "scaling"),
    [
        ("Llama", 1e4, {}),
        ("Llama", 5e5, {}),
        ("Llama", 5e5, LLAMA3),
        ("Llama", 1e4, {"rope_type": "linear", "factor": 4.0}),
        ("Llama", 1e4, {"rope_type": "dynamic", "factor": 4.0}),
        ("Llama", 5e5, YARN),
        ("Mistral", 1e6, {}),
        ("Qwen2", 1e6, {}),
        ("Gemma2", 1e4, {}),
        ("Phi3", 1e4, {}),
        ("GPTNeoX", 25_000.0, {"partial_rotary_factor": 0.5}),
    ],
)
def test_theta_of_a_hugging_face_model_is_measured(architecture, theta, scaling):
    rope = {"rope_type": "default", "rope_theta": theta, **scaling}
    model = native(architecture, rope)
    report = rope_report(model, model.config)
    assert report.rope_theta == theta
    assert report.measured_theta == pytest.approx(theta, rel=1e-5)  # float32 buffers
    check_theta(report)
    from_config = rope_report(None, model.config.to_dict())
    assert from_config.measured_theta is None
    np.testing.assert_allclose(report.wavelengths, from_config.wavelengths, rtol=1e-5)


def test_longrope_is_measured_even_after_a_long_prompt():
    factors = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [1.0, 4.0, 9.0, 16.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, **factors}
    model = native("Phi3", rope, original_max_position_embeddings=32)
    model(torch.zeros(1, 100, dtype=torch.long))
    assert rope_report(model, model.config).measured_theta == pytest.approx(1e4, rel=1e-5)


def test_gemma3_measures_its_layers_with_full_attention():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    }
    blocks = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(
        rope_parameters=rope, layer_types=blocks, num_hidden_layers=2, hidden_size=32, vocab_size=9,
        intermediate_size=8, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    report = rope_report(Gemma3ForCausalLM(config), config)
    assert report.measured_theta == pytest.approx(1e6, rel=1e-5)
    assert report.wavelengths[0] == pytest.approx(8 * 2 * np.pi)
    local = {"attn_types": ["local", "global"], "use_local_attn": True, "window_size": 8}
    on_hooks = hooked(1e6, rotary_base_local=1e4, rotary_scaling_factor=8.0, **local)
    assert rope_report(on_hooks, config).measured_theta == pytest.approx(1e6, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("theta", [1e4, 1e5, 1e6])
@pytest.mark.parametrize("pairs", [True, False])
def test_theta_of_a_hooked_model_is_measured(theta, dtype, pairs):
    model = hooked(theta, dtype=dtype, rotary_adjacent_pairs=pairs)
    report = rope_report(model, {"rope_theta": theta, "max_position_embeddings": 512})
    assert report.measured_theta == pytest.approx(theta, rel=1e-4)
    expected = 2 * np.pi * theta ** (np.arange(16) / 16)
    np.testing.assert_allclose(report.wavelengths, expected, rtol=1e-3)  # bfloat16, 512 rows


def test_scaling_is_undone_on_a_hooked_model():
    llama3 = {
        "use_NTK_by_parts_rope": True, "NTK_original_ctx_len": 64, "NTK_by_parts_factor": 8.0,
        "NTK_by_parts_low_freq_factor": 1.0, "NTK_by_parts_high_freq_factor": 4.0,
    }  # fmt: skip
    yarn = {
        "use_yarn_rope": True, "yarn_factor": 4.0, "yarn_original_max_position_embeddings": 32,
        "yarn_beta_fast": 32, "yarn_beta_slow": 1, "yarn_attention_factor": 1.139,
    }  # fmt: skip
    for changes, scaling in ((llama3, LLAMA3), (yarn, YARN)):
        report = rope_report(
            hooked(5e5, **changes), {"rope_parameters": {**scaling, "rope_theta": 5e5}}
        )
        assert report.measured_theta == pytest.approx(5e5, rel=1e-4)
        expected = 2 * np.pi / scaled_frequencies(5e5, scaling, 32)
        np.testing.assert_allclose(report.wavelengths, expected, rtol=1e-4)


@pytest.mark.parametrize(("architecture", "rotary_dim"), [("Llama", 8), ("GPTNeoX", 4)])
def test_a_bridge_is_measured_on_the_model_underneath(make_checkpoint, architecture, rotary_dim):
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rope = {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": rotary_dim / 8}
    folder = str(make_checkpoint(architecture, rope_parameters=rope))
    under = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(folder, hf_model=under, tokenizer=tokenizer)
    report = rope_report(bridge, under.config)
    assert report.measured_theta == pytest.approx(5e5, rel=1e-5)
    edited = torch.from_numpy(scaled_frequencies(1e4, None, rotary_dim))
    under.get_decoder().rotary_emb.inv_freq.copy_(edited)
    with pytest.raises(ValueError, match=r"config says 500000, .* base 10000;"):
        check_theta(rope_report(bridge, under.config))


def test_only_the_text_model_is_measured():
    class WithVision(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vision = native("Llama", {"rope_type": "default", "rope_theta": 100.0})
            self.text = native("Llama", {"rope_type": "default", "rope_theta": 1e6})

        def get_decoder(self):
            return self.text.model

    report = rope_report(WithVision(), {"text_config": {"rope_theta": 1e6}})
    assert report.measured_theta == pytest.approx(1e6, rel=1e-5)


def test_a_model_without_rope_has_none():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=9)
    for model in (None, GPT2LMHeadModel(config)):
        report = rope_report(model, config)
        assert (report.rope_theta, report.rope_scaling, report.measured_theta) == (None,) * 3
        assert report.max_position == 1024
        assert report.theta_bound is None
        assert len(report.wavelengths) == 0
        assert math.isnan(report.beyond_context)
        check_theta(report)
    assert inverse_frequencies(hooked(1e4, positional_embedding_type="standard")) is None


def test_wavelengths_beyond_the_context_and_the_bound():
    config = {"rope_theta": 1e4, "head_dim": 8, "max_position_embeddings": 4096}
    report = rope_report(None, config)
    np.testing.assert_allclose(report.wavelengths, 2 * np.pi * np.array([1, 10, 100, 1000]))
    assert report.beyond_context == 0.25  # 6,283 tokens
    assert report.theta_bound == pytest.approx(3.2e4, rel=0.02)  # Men et al. 2024 at 4k
    long = rope_report(None, {**config, "max_position_embeddings": 131_072})
    assert long.theta_bound == pytest.approx(9.1e6, rel=0.02)
    assert long.beyond_context == 0


@pytest.mark.fault("theta in the config and in the buffers that disagree", "refused: both numbers")
def test_disagreement_names_both_numbers():
    model = native("Mistral", {"rope_type": "default", "rope_theta": 5e5})
    told = model.config.to_dict()
    told["rope_parameters"]["rope_theta"] = 10_000.0
    with pytest.raises(ValueError, match=r"config says 10000, .* base 500000; .*correct config"):
        check_theta(rope_report(model, told))
    with pytest.raises(ValueError, match=r"names no rope_theta, .* base 500000; "):
        check_theta(rope_report(model, {"max_position_embeddings": 128}))


def test_an_intervention_is_compared_with_what_was_asked_for():
    report = report_with(theta=1e4, measured=5e5)
    check_theta(report, theta=5e5)
    with pytest.raises(ValueError, match=r"was to be set to 10000, .* base 500000"):
        check_theta(report_with(theta=5e5, measured=5e5), theta=1e4)
    check_theta(report_with(theta=1e4, measured=1.009e4))
    with pytest.raises(ValueError, match="disagrees"):
        check_theta(report_with(theta=1e4, measured=1.02e4))
    check_theta(report_with(theta=1e4, measured=None))


@pytest.mark.parametrize("scaling", [None, LLAMA3, YARN, {"rope_type": "linear", "factor": 4.0}])
@pytest.mark.fault("one rotary frequency that was edited", "refused: the pair and its wavelength")
def test_one_edited_frequency_is_caught(scaling):
    for pair in range(16):
        frequencies = scaled_frequencies(5e5, scaling, 32)
        assert measured_theta(frequencies, scaling) == pytest.approx(5e5, rel=1e-9)
        frequencies[pair] *= 1.2
        with pytest.raises(ValueError, match=r"fit no RoPE base .* pair \d+ turns once"):
            measured_theta(frequencies, scaling)


@pytest.mark.fault("a rope_scaling that the loader ignored", "refused: check rope_scaling")
def test_scaling_that_the_loader_forgot_is_caught():
    for scaling in (LLAMA3, {"rope_type": "linear", "factor": 4.0}):
        with pytest.raises(ValueError, match="loader read the config's rope_scaling"):
            rope_report(hooked(5e5), {"rope_theta": 5e5, "rope_scaling": scaling})


@pytest.mark.fault("blocks with different rotary buffers", "refused: which two")
def test_an_edited_buffer_of_a_model_is_caught():
    model = native("Llama", {"rope_type": "default", "rope_theta": 1e4})
    model.model.rotary_emb.inv_freq[2] *= 3
    with pytest.raises(ValueError, match="no buffer was edited"):
        rope_report(model, model.config)
    config = {"rope_theta": 1e4}
    one_block = hooked(1e4)
    one_block.blocks[1].attn.rotary_sin.copy_(hooked(5e5).blocks[1].attn.rotary_sin)
    one_block.blocks[1].attn.rotary_cos.copy_(hooked(5e5).blocks[1].attn.rotary_cos)
    with pytest.raises(ValueError, match=r"blocks\.1\.attn turns .* than blocks\.0\.attn"):
        rope_report(one_block, config)
    no_turn = hooked(1e4)
    no_turn.blocks[0].attn.rotary_sin.zero_()
    with pytest.raises(ValueError, match=r"blocks\.0\.attn are not turns of constant speed"):
        rope_report(no_turn, config)


def test_frequencies_without_a_base_are_refused():
    for frequencies in (np.ones(1), np.array([1.0, 0.0]), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="two or more finite positive frequencies"):
            measured_theta(frequencies, None)


@pytest.mark.fault(
    "a rope_type that is unknown or lacks a setting", "said: which, and what is known"
)
def test_unknown_scaling_is_said_and_incomplete_scaling_is_refused():
    config = {"rope_theta": 1e4, "head_dim": 8, "rope_scaling": {"type": "spiral"}}
    assert "spiral" in rope_report(None, config).note
    with pytest.raises(ValueError, match=r"type linear needs 'factor'"):
        scaled_frequencies(1e4, {"rope_type": "linear"}, 8)


YARN_128 = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
SHORT = [1.0 + 0.01 * pair for pair in range(64)]
LONGROPE = {
    "rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 4096,
    "short_factor": SHORT, "long_factor": [2 * value for value in SHORT],
}  # fmt: skip


@pytest.mark.parametrize(
    "scaling",
    [
        YARN_128,
        {**YARN_128, "beta_fast": 8.0, "beta_slow": 2.0},
        {**YARN_128, "truncate": False},
        {**YARN_128, "original_max_position_embeddings": 64},  # no pair turns 32 times: low is 0
        {**YARN_128, "original_max_position_embeddings": 16},
        {**YARN_128, "original_max_position_embeddings": 128},  # theta 4: a ramp over all pairs
        {**YARN_128, "original_max_position_embeddings": 10**9},  # every pair turns often
        {**YARN_128, "beta_fast": 1.0, "truncate": False},  # a ramp of no width
        {**LLAMA3, "original_max_position_embeddings": 8192},
        LONGROPE,
    ],
)
@pytest.mark.parametrize("theta", [4.0, 1e4, 5e5])
def test_frequencies_of_every_scaling_are_those_of_transformers(scaling, theta):
    """Pair by pair in a head of 128, where the ramps have pairs on them."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=256, num_attention_heads=2, max_position_embeddings=16_384,
        rope_parameters={**scaling, "rope_theta": theta},
    )  # fmt: skip
    expected, _ = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"), seq_len=1)
    found = scaled_frequencies(theta, scaling, 128)
    np.testing.assert_allclose(found, expected.double().numpy(), rtol=2e-5)  # float32


@pytest.mark.parametrize(("alias", "kind"), [("su", "longrope"), ("mrope", "default")])
def test_old_names_of_a_scaling(alias, kind):
    factors = {"short_factor": [2, 4, 8, 16]}
    one, other = (scaled_frequencies(1e4, {"type": name, **factors}, 8) for name in (alias, kind))
    np.testing.assert_array_equal(one, other)
    context = {"max_position_embeddings": 64, "rope_theta": 1e4}
    scaling = rope_from_config({**context, "rope_scaling": {"type": "su", **factors}}).scaling
    assert scaling == {"type": "su", **factors, "original_max_position_embeddings": 64}


@pytest.mark.parametrize("kind", ["llama3", "yarn", "longrope"])
def test_the_original_context_is_the_models_where_the_scaling_leaves_it_out(kind):
    config = {"rope_theta": 1e4, "rope_scaling": {"rope_type": kind}}
    told = rope_from_config({**config, "max_seq_len": 32})
    original = {"rope_type": kind, "original_max_position_embeddings": 32}
    assert told == (1e4, original, 32)
    assert rope_from_config(config).scaling == {"rope_type": kind}


def test_what_scales_nothing_is_no_scaling():
    for nothing in ({"rope_type": "default"}, {"type": "default"}):
        rope = {**nothing, "partial_rotary_factor": 0.5, "rope_theta": 1e4}
        assert rope_from_config({"rope_parameters": rope}).scaling is None


def test_a_config_whose_types_of_layer_are_unknown_takes_the_first():
    blocks = {"global": {"rope_theta": 1e6}, "local": {"rope_theta": 1e4}}
    told = rope_from_config({"rope_parameters": blocks})
    assert told == (1e6, {"local": {"rope_theta": 1e4}}, None)


@pytest.mark.parametrize(
    ("config", "pairs"),
    [
        ({"head_dim": 16}, 8),
        ({"hidden_size": 96, "num_attention_heads": 6}, 8),
        ({"hidden_size": 96, "num_attention_heads": 6, "head_dim": 32}, 16),
        ({"hidden_size": 100, "num_attention_heads": 6}, 8),
        ({"head_dim": 128, "qk_rope_head_dim": 16}, 8),
        ({"head_dim": 16, "partial_rotary_factor": 0.5}, 4),
        ({"head_dim": 16, "rotary_pct": 0.25}, 2),
        ({"hidden_size": 110, "num_attention_heads": 6, "rotary_pct": 0.9}, 8),
        ({"head_dim": 16, "partial_rotary_factor": 0.5, "rotary_pct": 0.25}, 4),
        ({"rotary_dim": 12, "head_dim": 16}, 6),
        ({"hidden_size": 96}, 0),
        ({"num_attention_heads": 6}, 0),
    ],
)
def test_rotated_pairs_of_every_style_of_config(config, pairs):
    report = rope_report(None, {"rope_theta": 1e4, **config})
    assert len(report.wavelengths) == pairs
    without = {key: value for key, value in config.items() if key != "rotary_dim"}
    assert len(rope_report(None, without).wavelengths) == 0


def test_the_report_carries_the_scaling_and_a_wavelength_of_the_context_is_within():
    scaling = {"rope_type": "linear", "factor": 2.0}
    report = rope_report(None, {"rope_theta": 1e4, "head_dim": 8, "rope_scaling": scaling})
    assert report.rope_scaling == scaling
    wavelength = 2 * np.pi * np.array([1.0])
    assert _share_beyond(wavelength, 6) == 1
    assert _share_beyond(np.array([64.0, 65.0]), 64) == 0.5


class Rotary(torch.nn.Module):
    """A module with a cos/sin table, as HookedTransformer's attention has one."""

    def __init__(self, phase: np.ndarray, attention_factor: float = 1.0):
        super().__init__()
        tables = (attention_factor * function(phase) for function in (np.sin, np.cos))
        self.rotary_sin, self.rotary_cos = (
            torch.from_numpy(np.concatenate([table, table], axis=1)) for table in tables
        )
        self.cfg = SimpleNamespace(rotary_adjacent_pairs=False)


def test_a_table_is_measured_whatever_its_attention_factor():
    speed = np.array([1.0, 0.1, 0.01])
    phase = np.outer(np.arange(300), speed)
    for factor in (0.5, 1.0, 1.139):
        np.testing.assert_allclose(inverse_frequencies(Rotary(phase, factor)), speed, rtol=1e-12)


def test_a_table_that_turns_unevenly_is_refused_however_little():
    phase = np.outer(np.arange(300), [1.0, 0.1])
    phase[150:] += 0.3
    with pytest.raises(ValueError, match=r"load the model again, with no rotary buffer edited$"):
        inverse_frequencies(Rotary(phase))


def turning(*frequencies: torch.Tensor) -> torch.nn.Module:
    """Return a model of two rotary modules, a and b."""
    model = torch.nn.Module()
    for name, inv_freq in zip("ab", frequencies, strict=True):
        rotary = torch.nn.Module()
        rotary.register_buffer("inv_freq", inv_freq)
        model.add_module(name, rotary)
    return model


def test_blocks_within_the_tolerance_are_one_model_and_beyond_it_none():
    def blocks(factor: float):
        return turning(*(torch.tensor([1.0, 1e-9]) * f for f in (1.0, factor)))

    assert inverse_frequencies(blocks(1.009)) is not None
    for factor in (1.02, 0.5):
        with pytest.raises(ValueError, match=r"single RoPE base; load it again, with no rotary"):
            inverse_frequencies(blocks(factor))
    slow = turning(torch.tensor([1.0, 1e-9]), torch.tensor([1.0, 2e-9]))
    with pytest.raises(ValueError, match="b turns its dimensions at other speeds than a"):
        inverse_frequencies(slow)


def test_a_dynamic_model_is_measured_as_it_was_at_the_start():
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = native("Llama", rope, max_position_embeddings=32)
    model(torch.zeros(1, 100, dtype=torch.long))
    assert rope_report(model, model.config).measured_theta == pytest.approx(1e4, rel=1e-5)


def test_sentences_name_the_pairs_wavelength_and_the_bases():
    frequencies = scaled_frequencies(1e4, None, 8)
    frequencies[1] *= 2
    with pytest.raises(ValueError, match=r"pair \d turns once in") as caught:
        measured_theta(frequencies, None)
    pair, turns, said = re.findall(
        r"pair (\d) turns once in ([\d.e+]+) tokens and that base says ([\d.e+]+);",
        str(caught.value),
    )[0]
    nearest = float(re.findall(r"nearest is ([\d.e+]+),", str(caught.value))[0])
    assert float(turns) == pytest.approx(2 * np.pi / frequencies[int(pair)], rel=1e-4)
    expected = 2 * np.pi * nearest ** (2 * int(pair) / 8)
    assert float(said) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match=r"^a RoPE base can be measured from two or more finite"):
        measured_theta(np.ones(1), None)
    with pytest.raises(ValueError, match=r"cannot be checked$"):
        scaled_frequencies(1e4, {"type": "spiral"}, 8)
    with pytest.raises(ValueError, match=r"or add rope_theta to config\.json$"):
        check_theta(report_with(None, 1e4))
    with pytest.raises(ValueError, match=r"moved rope_theta into rope_parameters\): correct"):
        check_theta(report_with(1e4, 2e4))


def test_a_small_base_is_measured_too():
    assert measured_theta(scaled_frequencies(2.0, None, 16), None) == pytest.approx(2.0)


LLAMA3_RAW = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip


@pytest.mark.fault(
    "numbers of RoPE in config.json that are none, or none that can be", "refused: which"
)
@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"rope_theta": "many"}, "rope_theta = 'many': a number above 0"),
        ({"rope_theta": 10**400}, "rope_theta = 1000"),
        ({"rope_theta": -1e4}, "rope_theta = -10000.0"),
        ({"rope_theta": math.nan}, "rope_theta = nan"),
        ({"rope_theta": True}, "rope_theta = True"),
        ({"max_position_embeddings": [4096]}, r"max_position_embeddings = \[4096\]"),
        ({"head_dim": 10**30}, "head_dim = 1000"),
        ({"head_dim": "8"}, "head_dim = '8'"),
        ({"rotary_dim": -8}, "rotary_dim = -8"),
        ({"partial_rotary_factor": 2.0}, "partial_rotary_factor = 2.0: .* up to 1 is needed"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor = 0"),
        ({"rope_scaling": {**LLAMA3_RAW, "factor": "x\n"}}, r"factor = 'x\\n'"),
        ({"rope_scaling": {**LLAMA3_RAW, "high_freq_factor": 1.0}}, "second must be the larger"),
        ({"rope_scaling": {"type": "su", "short_factor": [1.0, 2.0]}}, "2 values of short_factor"),
        ({"rope_scaling": {"type": "su", "short_factor": {}}}, r"short_factor = \{\}"),
        ({"rope_scaling": {**YARN, "beta_fast": "x"}}, "gives beta_fast = 'x'"),
        ({"rope_scaling": {**YARN, "beta_slow": -1}}, "gives beta_slow = -1"),
        (
            {"rope_scaling": {"type": "su", "short_factor": [1.0] * 9}},
            "9 values of short_factor and the model turns 4 pairs of dimensions: as many are",
        ),
        ({"rope_scaling": {**LLAMA3_RAW, "low_freq_factor": 5.0}}, "= 4: the second must be"),
    ],
)
def test_a_config_of_impossible_numbers_is_refused(config, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        rope_report(None, {"rope_theta": 1e4, "head_dim": 8, **config})
    assert "\n" not in str(caught.value)
