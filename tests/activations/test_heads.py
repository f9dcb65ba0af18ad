"""Heads by projection: against the vectors themselves, on every architecture and back end."""

import numpy as np
import pytest
import torch
from planting.architectures import CASES
from planting.checkpoints import BACK_ENDS
from planting.hooks import prompts_of
from torch.utils._python_dispatch import TorchDispatchMode

from gainlens.activations.capturing import capture
from gainlens.activations.heads import project_heads
from gainlens.interventions.ablation import ablate
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.splits import head_split, log_mean
from gainlens.models.decoders import AttentionOut
from gainlens.models.hooks import reading
from gainlens.models.sites import sites_of

LENGTHS = (12, 5, 1)


def planted(tokens=6, heads=4, d_head=3, d_model=10, bias=True, seed=0):
    """z, x, y, W_O, b_O, and each head's write as a vector [token, head, d_model]."""
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(1, tokens, heads, d_head, generator=draw)
    x, y = torch.randn(2, 1, tokens, d_model, generator=draw)
    weight = torch.randn(heads * d_head, d_model, generator=draw)
    b_o = torch.randn(d_model, generator=draw) if bias else None
    writes = torch.einsum("bthd,hdm->bthm", z, weight.unflatten(0, (heads, d_head)))
    return z, x, y, AttentionOut(weight, b_o, None), writes


def columns_of(writes, x, y):
    on_x, on_y = ((writes * stream[..., None, :]).sum(-1) for stream in (x, y))
    return torch.stack((on_x, on_y, writes.square().sum(-1)), dim=-1)


@pytest.mark.parametrize("bias", [True, False])
def test_projections_equal_those_of_the_vectors(bias):
    z, x, y, out, writes = planted(bias=bias)
    a = writes.sum(-2) + (out.bias if bias else 0)
    got = project_heads(z, x, a, y, out)
    torch.testing.assert_close(got.columns, columns_of(writes, x, y))
    assert float(got.unexplained.max()) < 1e-6


def test_through_a_norm_every_head_is_scaled_alike():
    """a = RMSNorm(u): each head adds its share of u, times the norm's weight over u's rms."""
    z, x, y, out, writes = planted()
    norm = torch.nn.RMSNorm(10, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(1 + torch.arange(10) / 5)
        u = writes.sum(-2) + out.bias
        scaled = writes * norm.weight / u.square().mean(-1, keepdim=True)[..., None].sqrt()
        a = norm(u)
        got = project_heads(z, x, a, y, AttentionOut(out.weight, out.bias, norm))
    torch.testing.assert_close(got.columns, columns_of(scaled, x, y), rtol=1e-5, atol=1e-5)
    assert float(got.unexplained.max()) < 1e-6
    forgotten = project_heads(z, x, a, y, out)
    assert float(forgotten.unexplained.max()) > 0.02


def test_slices_of_tokens_change_nothing(monkeypatch):
    z, x, y, out, writes = planted(tokens=7)
    whole = project_heads(z, x, writes.sum(-2), y, out)
    monkeypatch.setattr("gainlens.activations.heads._SLICE_ELEMENTS", 20)
    torch.testing.assert_close(project_heads(z, x, writes.sum(-2), y, out), whole)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in elements."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def test_no_vector_a_head_is_made():
    """Nothing made is larger than a stream or W_O; the vectors themselves would be 8 times that."""
    tokens, heads, d_head, d_model = 512, 8, 8, 64
    z, x, y, out, writes = planted(tokens, heads, d_head, d_model)
    a = writes.sum(-2) + out.bias
    with Largest() as made:
        project_heads(z, x, a, y, out)
    assert made.elements <= tokens * d_model
    with Largest() as vectors:
        torch.einsum("bthd,hdm->bthm", z, out.weight.unflatten(0, (heads, d_head)))
    assert vectors.elements >= tokens * heads * d_model


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_heads_and_bias_make_up_attentions_part(loaded_of, case, backend):
    """1e-5 nats; b_O is projected here apart, on the streams themselves."""
    model, prompts = loaded_of(case, backend).model, prompts_of(LENGTHS)
    got = capture(model, prompts, heads=True)
    assert got.heads.shape == (4, 4, 3, sum(LENGTHS))
    with_bias = head_split(got).sum(axis=1) + bias_part(model, got, prompts)
    np.testing.assert_allclose(with_bias, decompose(got).attention, atol=1e-5)
    assert np.abs(head_split(got)).max() > 0.01
    has_bias = case.startswith(("gpt2", "neox"))
    assert (np.abs(bias_part(model, got, prompts)).max() > 1e-3) == has_bias


def bias_part(model, got, prompts):
    """<b_O, x+y> / 2L of every block and token, nats."""
    sites = sites_of(model)
    found = [[] for _ in range(sites.num_blocks)]
    for tokens in prompts.tokens:
        readers = []
        for block in range(sites.num_blocks):
            bias = sites.attention_out(block).bias
            for name in ("hook_resid_pre", "hook_resid_post"):
                site = sites.site(f"blocks.{block}.{name}")
                readers.append((site, onto(found[block], bias)))
        with torch.no_grad(), reading(readers):
            sites.run(torch.from_numpy(tokens)[None])
    both = np.stack([np.concatenate([x + y for x, y in pairs(row)]) for row in found])
    return both / (2 * log_mean(got.column("xx"), got.column("yy")))


def pairs(row):
    return zip(row[::2], row[1::2], strict=True)


def onto(row, bias):
    zero = torch.zeros(1)
    return lambda stream: row.append((stream[0] * (zero if bias is None else bias)).sum(-1).numpy())


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_an_ablated_head_writes_nothing_and_the_others_do(loaded_of, backend):
    model = loaded_of("llama", backend).model
    with ablate(model, {"blocks.2.attn.hook_z[1]": "zero"}):
        got = capture(model, prompts_of(LENGTHS), heads=True)
    assert (got.heads[2, 1] == 0).all()
    assert (got.heads[2, [0, 2, 3], 2] > 0).all()


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_heads_of_a_replaced_attn_out_are_refused(loaded_of, backend):
    model = loaded_of("llama", backend).model
    with (
        pytest.raises(ValueError, match=r"heads of block 1 do not add up.*without heads"),
        ablate(model, {"blocks.1.hook_attn_out": "zero"}),
    ):
        capture(model, prompts_of(LENGTHS), heads=True)


def test_batching_changes_no_head(loaded_of):
    model = loaded_of("gpt2", "native").model
    alone = capture(model, prompts_of(LENGTHS), heads=True, batch_tokens=0).heads
    together = capture(model, prompts_of(LENGTHS), heads=True, batch_tokens=1000).heads
    np.testing.assert_allclose(together, alone, atol=1e-6 * np.abs(alone).max())


def test_no_heads_unless_asked_for(loaded_of):
    got = capture(loaded_of("llama", "native").model, prompts_of((5,)))
    assert got.heads is None
    with pytest.raises(ValueError, match="heads=True"):
        head_split(got)


def test_a_model_whose_projection_is_not_known_says_so(make_checkpoint, monkeypatch):
    from gainlens.models import decoders
    from gainlens.models.loading import load

    monkeypatch.setattr(decoders, "_PROJECTIONS", ("nowhere",))
    model = load(make_checkpoint(), backend="native").model
    with pytest.raises(ValueError, match="hook_z"):
        capture(model, prompts_of((5,)), heads=True)
    with pytest.raises(ValueError, match=r"block 2 of this LlamaForCausalLM.*without heads"):
        sites_of(model).attention_out(2)
