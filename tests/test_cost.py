"""The cost model against torch's own counter, and against what a pass really keeps."""

import pytest
import torch
from conftest import build_model
from torch.utils.flop_counter import FlopCounterMode

from gainlens.axes import GRAM_COLUMNS
from gainlens.capturing import capture
from gainlens.cost import cost
from gainlens.records import EncodedPrompts

LENGTHS = (8, 33, 100)
OTHER = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 6, "head_dim": 8}


def counted(model, tokens: int) -> int:
    """FLOPs of matrix products, by torch; eager attention makes the square of scores and masks.

    RoPE's table, position times frequency, is a product of matrices in some versions of torch.
    """
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.base_model(torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    rope = sum(
        sum(counts.values())
        for module, counts in counter.get_flop_counts().items()
        if module.endswith(".rotary_emb")
    )
    return counter.get_total_flops() - rope


@pytest.mark.parametrize("shape", [{}, OTHER], ids=["plain", "other"])
@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "GPTNeoX"])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_flops_are_those_that_torch_counts(architecture, shape, tokens):
    """Exactly, with the square of scores that torch counts for the triangle that is needed."""
    if architecture == "GPTNeoX":  # it has neither
        shape = {**shape, "head_dim": None, "num_key_value_heads": None}
    model = build_model(architecture, **shape)
    found = cost(model.config, tokens)
    masked = found.attention_flops * 2 * tokens // (tokens + 1)
    assert found.projection_flops + found.mlp_flops + masked == counted(model, tokens)


def test_logits_are_the_rest():
    model = build_model()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 20, dtype=torch.long), use_cache=False)
    logits = sum(counter.get_flop_counts()["LlamaForCausalLM.lm_head"].values())
    assert cost(model.config, 20).unembed_flops == logits


def test_weight_bytes_are_the_blocks_matrices():
    model = build_model()
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    assert cost(model.config, 5, 4).weight_bytes == sum(weight.nbytes for weight in matrices)


def test_kept_bytes_are_the_captures_own():
    model = build_model()
    prompts = EncodedPrompts("test", "", ("p",), (torch.arange(50).numpy(),), True, 0, ())
    got = capture(model, prompts)
    arrays = [value for value in vars(got).values() if value is not None]
    assert cost(model.config, 50).kept_bytes == sum(array.nbytes for array in arrays)


def test_attention_is_the_part_that_grows_with_the_square():
    short, long = (cost(build_model().config, tokens) for tokens in (1000, 4000))
    assert long.mlp_flops == 4 * short.mlp_flops
    assert long.attention_flops == pytest.approx(16 * short.attention_flops, rel=1e-3)
    assert long.capture_bytes == 4 * short.capture_bytes
    assert short.capture_flops < 0.1 * short.forward_flops
    assert len(GRAM_COLUMNS) == 9


def test_time_is_the_longer_of_arithmetic_and_traffic():
    found = cost(build_model().config, 100)
    assert found.seconds(1e9, 1e30) == pytest.approx(found.flops / 1e9)
    traffic = found.weight_bytes + found.activation_bytes + found.capture_bytes
    assert found.seconds(1e30, 1e9) == pytest.approx(traffic / 1e9)


def test_a_dictionary_and_a_config_cost_the_same():
    config = build_model().config
    assert cost(config.to_dict(), 10) == cost(config, 10)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="hidden_size"):
        cost({"model_type": "llama"}, 10)
    with pytest.raises(ValueError, match="mixture of experts"):
        cost(build_model().config.to_dict() | {"num_local_experts": 8}, 10)
    with pytest.raises(ValueError, match="0 tokens"):
        cost(build_model().config, 0)
