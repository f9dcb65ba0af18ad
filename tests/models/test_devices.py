"""A model over several GPUs gives the numbers that it gives on one device.

There are no GPUs here: `devices` emulates what matters of them, that tensors of two devices do not
meet.  accelerate's own hooks take the stream from one to the next, as in a real run.
"""

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from planting.devices import Placed, device, emulated
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.core.spec import Ablation, ComparisonSpec, ModelSpec, Rule
from gainlens.models.loading import load
from gainlens.results.values import to_json
from gainlens.runs import measuring
from gainlens.runs.pipeline import compare
from gainlens.runs.rerun import differences


def spread(loaded):
    """A loaded native model laid over devices, a block each; lm_head apart from the final norm."""
    blocks = loaded.checkpoint.num_blocks
    places = {f"model.layers.{index}": device(index) for index in range(blocks)}
    places |= {"model.embed_tokens": device(0), "model.rotary_emb": device(0)}
    places |= {"model.norm": device(blocks - 1), "lm_head": device(blocks)}
    dispatch_model(loaded.model, device_map=places, force_hooks=True)
    return loaded


def test_emulated_devices_do_not_meet():
    with emulated():
        here, there = (Placed(torch.arange(3.0), device(index)) for index in (0, 1))
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            here + there
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            here + torch.ones(3)
        assert torch.equal((here.to(there.device) + there).cpu(), 2 * torch.arange(3.0))
        assert (here + here).device == device(0)
        assert torch.zeros(2, device=there.device).device == device(1)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    models = []
    for role, gain, theta in (("short", 1.25, 1e4), ("long", 0.6, 5e5)):
        planted = planted_checkpoint(folder / role, gain, theta=theta)
        models.append(ModelSpec(key=role, hf_name=str(planted.folder), role=role))
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(TEXTS[:12]), encoding="utf-8")
    return ComparisonSpec(
        name="planted",
        models=tuple(models),
        prompts=str(prompts),
        rule=Rule(resamples=200),
        backend="native",
        device="cpu",
        sweep=1,
        sweep_how=("zero", "mean"),
        sweep_heads=True,
        theta=(1e3,),
        controls=True,
        ablate=(
            Ablation(site="blocks.-1.hook_mlp_out", how="resample"),
            Ablation(site="blocks.-2.hook_attn_out", how="mean"),
            Ablation(site="blocks.-1.hook_resid_pre", how="mean"),
        ),
    )


def test_a_comparison_over_devices_says_what_one_device_says(spec, monkeypatch):
    one = compare(spec)
    monkeypatch.setattr(measuring, "load", lambda *args, **kwargs: spread(load(*args, **kwargs)))
    with emulated():
        many = compare(spec)
    said = [
        {"reports": to_json(run.reports), "verdict": to_json(run.verdict)} for run in (one, many)
    ]
    found = differences(*said)
    assert all(each.relative is not None and each.relative <= 1e-6 for each in found), found
    for key, captured in one.captures.items():
        np.testing.assert_allclose(captured.gram, many.captures[key].gram, rtol=1e-6)
