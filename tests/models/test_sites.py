"""Sites: the same names on every kind of model, hooks that apply in order and leave with their
context."""

import pytest
import torch
from planting.architectures import CASES
from planting.checkpoints import BACK_ENDS, TRANSFORMER_LENS
from torch import nn

from gainlens.models.decoders import decoder_of, learned_positions, projected
from gainlens.models.hooks import reading, scoped, writing
from gainlens.models.sites import kind_of, sites_of

TOKENS = torch.tensor([[256, 5, 17, 80, 3, 9, 200, 31, 64, 90]])


def seen_at(model, name, run=None):
    sites, found = sites_of(model), []
    with torch.no_grad(), reading([(sites.site(name), found.append)]):
        (run or sites.run)(TOKENS)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_z_is_apart_by_head_and_the_same_on_every_back_end(loaded_of, case, backend):
    want = seen_at(loaded_of(case, "native").model, "blocks.2.attn.hook_z")
    got = seen_at(loaded_of(case, backend).model, "blocks.2.attn.hook_z")
    assert got.shape == (1, 10, 4, 16 if case == "qwen3" else 8)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_logits_and_a_pass_without_them_agree(loaded_of, case, backend):
    """`run` stops before the vocabulary; what enters the unembedding is the same."""
    model = loaded_of(case, backend).model
    sites = sites_of(model)
    with torch.no_grad():
        logits = sites.logits(TOKENS)
        want = loaded_of(case, "native").model(TOKENS).logits
    torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-4)
    with_logits = seen_at(model, "ln_final", sites.logits)
    torch.testing.assert_close(seen_at(model, "ln_final"), with_logits)
    vocabulary = []

    def fired(module, args, output):
        vocabulary.append(output)

    with torch.no_grad(), scoped([lambda: sites.unembed.register_forward_hook(fired)]):
        sites.run(TOKENS)
        assert not vocabulary
        sites.logits(TOKENS)
        assert vocabulary


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_writers_apply_in_order_and_later_readers_see_the_result(loaded_of, backend):
    model = loaded_of("llama", backend).model
    sites = sites_of(model)
    site, found = sites.site("blocks.1.hook_mlp_out"), []
    with (
        torch.no_grad(),
        writing([(site, lambda m: m * 0 + 2), (site, lambda m: m * 5)]),
        reading([(site, found.append)]),
    ):
        sites.run(TOKENS)
    assert (found[0] == 10).all()
    assert (seen_at(model, "blocks.1.hook_mlp_out") != 10).any()


@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.parametrize("name", ["hook_embed", "blocks.0.hook_resid_pre", "ln_final"])
def test_what_is_written_reaches_the_logits(loaded_of, backend, name):
    sites = sites_of(loaded_of("llama", backend).model)
    with torch.no_grad():
        plain = sites.logits(TOKENS)
        with writing([(sites.site(name), torch.zeros_like)]):
            zeroed = sites.logits(TOKENS)
    assert (zeroed == 0).all()
    assert (plain != 0).any()


def test_hooks_registered_before_an_error_are_removed():
    removed = []

    class Handle:
        def remove(self):
            removed.append(self)

    def fail():
        raise RuntimeError("third of three")

    with pytest.raises(RuntimeError, match="third of three"), scoped([Handle, Handle, fail]):
        raise AssertionError("the body must not run")
    assert len(removed) == 2


def test_what_is_no_model_is_named():
    with pytest.raises(ValueError, match=r"a Linear is none of HookedTransformer"):
        kind_of(nn.Linear(2, 2))


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_a_block_beyond_the_last_is_told_how_many_there_are(loaded_of, backend):
    with pytest.raises(ValueError, match=r"its blocks are 0 to 3"):
        sites_of(loaded_of("llama", backend).model).site("blocks.4.hook_mlp_out")


def test_native_says_which_back_end_has_a_site_that_it_has_not(loaded_of):
    with pytest.raises(ValueError, match=r"--backend hooked or bridge"):
        sites_of(loaded_of("llama", "native").model).site("blocks.1.attn.hook_pattern")
    assert (
        "blocks.1.attn.hook_pattern" in sites_of(loaded_of("llama", TRANSFORMER_LENS).model).sites
    )


def test_only_learned_positions_are_counted(loaded_of):
    assert learned_positions(loaded_of("gpt2", "native").model) == 128
    assert learned_positions(loaded_of("llama", "native").model) is None


def test_a_part_that_is_not_found_is_named(loaded_of):
    from transformers import OPTConfig, OPTForCausalLM

    shape = {"word_embed_proj_dim": 32, "hidden_size": 32, "ffn_dim": 48, "vocab_size": 300}
    model = OPTForCausalLM(OPTConfig(**shape, num_hidden_layers=1, num_attention_heads=4))
    with pytest.raises(ValueError, match=r"where OPTForCausalLM keeps its mlp"):
        decoder_of(model)


def test_w_o_is_turned_the_same_way_for_gpt2_as_for_llama(loaded_of):
    """z W_O + b_O is what the projection itself computes."""
    for case in ("llama", "gpt2", "neox-parallel", "phi3"):
        model = loaded_of(case, "native").model
        out = sites_of(model).attention_out(1)
        projection = decoder_of(model).blocks[1].projection
        z = torch.randn(3, out.weight.shape[0])
        got = z @ out.weight + (0 if out.bias is None else out.bias)
        torch.testing.assert_close(got, projection(z), rtol=1e-5, atol=1e-5)


def test_an_offloaded_projection_says_so():
    with pytest.raises(ValueError, match=r"is offloaded.*without heads"):
        projected(nn.Linear(4, 4, device="meta"), None)
