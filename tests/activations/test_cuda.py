"""A whole comparison on a GPU, with everything that can be asked for, says what the CPU says."""

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.core.spec import Ablation, ComparisonSpec, ModelSpec, Rule
from gainlens.runs.pipeline import compare

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    models = []
    for role, gain, theta in (("short", 1.25, 1e4), ("long", 0.6, 5e5)):
        planted = planted_checkpoint(folder / role, gain, theta=theta)
        models.append(ModelSpec(key=role, hf_name=str(planted.folder), role=role))
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    return ComparisonSpec(
        name="planted",
        models=tuple(models),
        prompts=str(prompts),
        rule=Rule(resamples=200),
        dtype="float32",
        sweep=2,
        sweep_how=("zero", "mean"),
        theta=(1e3,),
        controls=True,
        ablate=(
            Ablation(site="blocks.-1.hook_mlp_out", how="resample"),
            Ablation(site="blocks.-1.hook_attn_out", how="mean"),
        ),
    )


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_cuda_says_what_the_cpu_says(spec, backend):
    cpu, cuda = (
        compare(spec.model_copy(update={"backend": backend, "device": device}))
        for device in ("cpu", "cuda")
    )
    assert cuda.verdict.outcome == cpu.verdict.outcome == "CONFIRMED"
    for one, other in zip(cpu.reports, cuda.reports, strict=True):
        key = one.checkpoint.name
        np.testing.assert_allclose(one.last_block, other.last_block, atol=1e-5)
        np.testing.assert_allclose(cpu.captures[key].normed, cuda.captures[key].normed, rtol=1e-4)
        assert one.unembed.spectral_norm == pytest.approx(other.unembed.spectral_norm, rel=1e-5)
        for before, after in zip(one.interventions.sweep, other.interventions.sweep, strict=True):
            np.testing.assert_allclose(before.last_block, after.last_block, atol=1e-4)
        doses = zip(one.interventions.theta_dose, other.interventions.theta_dose, strict=True)
        for before, after in doses:
            np.testing.assert_allclose(before.last_block, after.last_block, atol=1e-5)
        ablated = [each.interventions.ablated for each in (one, other)]
        estimates = [each.change.after.log_gain.estimate for each in ablated]
        assert estimates[0] == pytest.approx(estimates[1], abs=1e-4)
