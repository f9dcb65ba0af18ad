"""Capture against Hugging Face's hidden states, TransformerLens' own cache, and itself."""

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS, TRANSFORMER_LENS
from planting.hooks import hooks_of, prompts_of

from gainlens.activations.capturing import capture
from gainlens.models.hooks import reading
from gainlens.models.loading import load
from gainlens.models.sites import sites_of


@pytest.fixture(scope="module")
def folder(make_checkpoint):
    return make_checkpoint()


@pytest.fixture(scope="module")
def loaded(folder):
    return {backend: load(folder, backend=backend) for backend in BACK_ENDS}


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_norms_equal_hugging_face_hidden_states(loaded, backend):
    """rtol 1e-5: float32 forward passes through differently ordered attention."""
    prompts = prompts_of()
    got = capture(loaded[backend].model, prompts)
    for index, tokens in enumerate(prompts.tokens):
        hf = loaded["native"].model(torch.from_numpy(tokens)[None], output_hidden_states=True)
        want = torch.stack([state[0].norm(dim=-1) for state in hf.hidden_states]).detach().numpy()
        mine = got.prompt == index
        np.testing.assert_allclose(np.sqrt(got.column("xx")[:, mine]), want[:-1], rtol=1e-5)
        np.testing.assert_allclose(got.normed[mine], want[-1], rtol=1e-5)


def test_columns_equal_transformer_lens_own_cache(loaded):
    model = loaded[TRANSFORMER_LENS].model
    prompts = prompts_of((20,))
    got = capture(model, prompts)
    _, cache = model.run_with_cache(torch.from_numpy(prompts.tokens[0])[None])
    for block in range(4):
        x, a, m, y = (
            cache[name, block][0].double()
            for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        want = {
            "xx": (x * x).sum(-1), "aa": (a * a).sum(-1), "mm": (m * m).sum(-1),
            "xa": (x * a).sum(-1), "xm": (x * m).sum(-1), "am": (a * m).sum(-1),
            "yy": (y * y).sum(-1), "xa_sq": ((x + a) ** 2).sum(-1), "xm_sq": ((x + m) ** 2).sum(-1),
        }  # fmt: skip
        scale = float(y.square().sum(-1).max())
        for name, value in want.items():
            np.testing.assert_allclose(
                got.column(name)[block], value.numpy(), rtol=1e-5, atol=1e-6 * scale
            )
        top = y.abs().topk(4)
        np.testing.assert_array_equal(got.top_index[block], top.indices.numpy())
        np.testing.assert_allclose(np.abs(got.top_value[block]), top.values.numpy(), rtol=1e-5)


def test_the_three_back_ends_agree(loaded):
    first, *others = (capture(loaded[backend].model, prompts_of()) for backend in BACK_ENDS)
    scale = first.column("yy").max()
    for other in others:
        np.testing.assert_allclose(other.gram, first.gram, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_batching_changes_nothing(loaded, backend):
    model = loaded[backend].model
    alone = capture(model, prompts_of(), batch_tokens=0)
    together = capture(model, prompts_of(), batch_tokens=10_000)
    scale = alone.column("yy").max()
    np.testing.assert_allclose(together.gram, alone.gram, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_array_equal(together.token_id, alone.token_id)
    np.testing.assert_allclose(together.normed, alone.normed, rtol=1e-6)


def test_attention_on_position_zero_equals_the_pattern(loaded):
    model = loaded[TRANSFORMER_LENS].model
    prompts = prompts_of((9, 14))
    got = capture(model, prompts, patterns=True).sink
    assert got is not None
    for index, tokens in enumerate(prompts.tokens):
        _, cache = model.run_with_cache(torch.from_numpy(tokens)[None])
        for block in range(4):
            want = cache["pattern", block][0, :, 1:, 0].mean(-1)
            np.testing.assert_allclose(got[block, :, index], want.numpy(), rtol=1e-5)


def test_native_has_no_patterns_and_says_none(loaded):
    assert capture(loaded["native"].model, prompts_of((5,)), patterns=True).sink is None


def test_shares_of_a_whole_basis_are_one_and_of_disjoint_halves_sum_to_one(loaded):
    basis = torch.linalg.qr(torch.randn(32, 32)).Q
    got = capture(
        loaded[TRANSFORMER_LENS].model, prompts_of(), subspaces=(basis[:, :20], basis[:, 20:])
    )
    assert got.visible is not None
    assert got.null is not None
    np.testing.assert_allclose(got.visible + got.null, 1, atol=1e-5)
    assert (got.visible < 1).all()


@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.fault(
    "an error in the middle of a forward pass", "goes on to the user; no hook stays on the model"
)
def test_no_hook_survives_an_error_in_mid_forward(loaded, backend):
    model = loaded[backend].model
    before = hooks_of(model)
    sites = sites_of(model)

    def burst(tensor):
        raise RuntimeError("in mid-forward")

    with (
        pytest.raises(RuntimeError, match="in mid-forward"),
        reading([(sites.site("blocks.1.hook_mlp_out"), burst)]),
    ):
        sites.run(torch.tensor([[1, 2, 3]]))
    assert hooks_of(model) == before
    capture(model, prompts_of((5,)))
    assert hooks_of(model) == before


def test_a_users_own_hook_is_seen_and_left_alone(loaded):
    model = loaded[TRANSFORMER_LENS].model
    plain = capture(model, prompts_of((6,)))
    model.add_hook("blocks.2.hook_mlp_out", lambda mlp_out, hook: mlp_out * 0)
    try:
        zeroed = capture(model, prompts_of((6,)))
        assert len(model.hook_dict["blocks.2.hook_mlp_out"].fwd_hooks) == 1
    finally:
        model.reset_hooks()
    assert (zeroed.column("mm")[2] == 0).all()
    assert (plain.column("mm")[2] > 0).all()


@pytest.mark.fault("a hook that does not fire", "refused: the missing sites, and other back ends")
def test_a_site_that_does_not_fire_is_named(loaded, monkeypatch):
    model = loaded["native"].model
    block = model.model.layers[1]
    original = type(block).forward

    def forward(self, hidden_states, **kwargs):
        return hidden_states if self is block else original(self, hidden_states, **kwargs)

    monkeypatch.setattr(type(block), "forward", forward)
    with pytest.raises(RuntimeError, match=r"blocks\.1\.hook_attn_out"):
        capture(model, prompts_of((5,)))


@pytest.mark.fault("a site that is not there", "refused: the nearest that is")
def test_an_unknown_site_names_the_nearest(loaded):
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_mlp_out"):
        sites_of(loaded[TRANSFORMER_LENS].model).site("blocks.1.hook_mpl_out")


@pytest.mark.fault(
    "an activation that overflows in float16",
    "refused: the first site, position and prompt; proposes bfloat16",
)
def test_float16_overflow_names_the_first_site_and_proposes_bfloat16(make_checkpoint):
    loaded = load(make_checkpoint(), dtype="float16")
    with torch.no_grad():
        loaded.model.blocks[1].mlp.W_out.mul_(1e5)
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_mlp_out .* bfloat16"):
        capture(loaded.model, prompts_of((6,)))


def test_memory_does_not_grow_with_blocks(loaded):
    """While one block is open, no activation of another is alive."""
    import gc

    alive = []
    sites = sites_of(loaded["native"].model)

    def count(tensor):
        gc.collect()
        shape = (1, 400, 32)
        alive.append(
            sum(1 for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == shape)
        )

    readers = [(sites.site(f"blocks.{i}.hook_resid_post"), count) for i in range(4)]
    with reading(readers):
        capture(loaded["native"].model, prompts_of((400,)))
    assert max(alive) <= min(alive) + 1
