"""Known gains and splits, from a real checkpoint through loading and capture to the verdict."""

import numpy as np
import pytest
from planting.checkpoints import BACK_ENDS
from planting.planted_blocks import TEXTS, planted_checkpoint

import gainlens
from gainlens.core.spec import ComparisonSpec, ModelSpec, Rule


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    def build(gain, **options):
        return planted_checkpoint(tmp_path_factory.mktemp("planted") / "model", gain, **options)

    return build


@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.parametrize("gain", [1.25, 0.6])
def test_planted_gain_is_found_on_every_token(make, gain, backend):
    planted = make(gain)
    loaded = gainlens.load(planted.folder, backend=backend)
    captured = gainlens.capture(loaded.model, gainlens.encode_for(loaded, TEXTS))
    tokens = gainlens.decompose(captured)
    np.testing.assert_allclose(
        np.exp(tokens.log_gain[-1]), planted.gain(captured.token_id), rtol=1e-5
    )
    np.testing.assert_allclose(tokens.mlp[-1], tokens.log_gain[-1], atol=1e-6)
    np.testing.assert_allclose(tokens.log_gain[:-1], 0, atol=1e-6)
    assert abs(np.exp(tokens.log_gain[-1]).mean() - gain) < 0.05


def test_planted_split_between_attention_and_mlp(make):
    """The first token attends only to itself: its attention write is the lift, exactly."""
    planted = make(0.7, lift=3.0)
    loaded = gainlens.load(planted.folder)
    captured = gainlens.capture(loaded.model, gainlens.encode_for(loaded, TEXTS))
    tokens = gainlens.decompose(captured, split="path")
    attention = tokens.attention[-1]
    written = np.sqrt(captured.column("aa")[-1])
    x = np.sqrt(captured.column("xx")[-1])
    np.testing.assert_allclose(captured.column("xa")[-1], 0, atol=1e-4)  # orthogonal to x
    np.testing.assert_allclose(attention, np.log1p((written / x) ** 2) / 2, rtol=1e-4)
    assert (attention > 0).all()
    assert (tokens.mlp[-1] < 0).all()
    np.testing.assert_allclose(attention + tokens.mlp[-1], tokens.log_gain[-1], atol=1e-6)


def test_the_notebook_reads_the_same_number_whatever_the_last_block_does(make):
    """DESIGN section 1: gains 1.25 and 0.60 on every token, one and the same last_gain."""
    found = {}
    for gain in (1.25, 0.6):
        loaded = gainlens.load(make(gain).folder)
        sentence = gainlens.encode_for(loaded, gainlens.load_prompts("notebook"))
        found[gain] = gainlens.notebook_residual(gainlens.capture(loaded.model, sentence))
    assert found[1.25].last_gain == pytest.approx(found[0.6].last_gain, rel=1e-5)
    assert found[1.25].true_last_gain == pytest.approx(1.25, abs=0.05)
    assert found[0.6].true_last_gain == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("short", "long", "outcome"),
    [
        (1.25, 0.6, "CONFIRMED"),
        (0.7, 0.6, "REJECTED"),
        (1.25, 1.1, "UNEXPECTED"),
        (0.6, 1.25, "INVERTED"),
        (1.25, 1.0, "UNDETERMINED"),
    ],
)
def test_planted_pairs_give_the_planted_outcome(make, tmp_path, short, long, outcome):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    pair = (make(short), make(long, theta=5e5, context=256))
    spec = ComparisonSpec(
        name="planted",
        models=tuple(
            ModelSpec(key=role, hf_name=str(planted.folder), role=role)
            for role, planted in zip(("short", "long"), pair, strict=True)
        ),
        prompts=str(prompts),
        rule=Rule(resamples=400),
    )
    comparison = gainlens.compare(spec)
    assert comparison.verdict.outcome == outcome
    assert comparison.verdict.premise is True
    assert comparison.verdict.measured == outcome
    assert all(report.scale_control < 1e-5 for report in comparison.reports)
    if outcome == "CONFIRMED":  # the notebook's measure cannot tell the two apart
        assert comparison.test.short_expands == comparison.test.long_expands
        assert comparison.verdict.dissent
        assert all("blind" in str(cell) for cell in comparison.verdict.dissent)
