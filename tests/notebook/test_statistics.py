"""The notebook's numbers to the letter: statistics, rule, table, JSON."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gainlens.core.spec import ComparisonSpec, ModelSpec
from gainlens.core.vocabulary import GRAM_COLUMNS
from gainlens.notebook.json import notebook_json
from gainlens.notebook.published import NOTEBOOK_REFERENCES, REFERENCE_ROWS
from gainlens.notebook.rescoring import rescore, to_json
from gainlens.notebook.rule import (
    NOTEBOOK_VERDICTS,
    Side,
    hypothesis_test,
    notebook_verdict,
    side_of,
)
from gainlens.notebook.statistics import notebook_gains, notebook_residual
from gainlens.notebook.table import TABLE_HEADER, comparison_rows, row_cells
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport, NotebookResidual
from gainlens.records.inputs import Checkpoint, EncodedPrompts
from gainlens.records.interval import Interval
from gainlens.records.weights import RopeReport, UnembedReport

X = np.array([[1.0, 3.0], [4.0, 8.0], [5.0, 5.0]])
"""|resid_pre| of three blocks and two tokens: mean norms 2, 6, 5"""


def capture_of(x: np.ndarray, y: np.ndarray, normed: np.ndarray) -> Capture:
    """A one-prompt Capture of norms before [block, token], after the last block, and normed."""
    blocks, tokens = x.shape
    gram = np.zeros((len(GRAM_COLUMNS), blocks, tokens))
    gram[GRAM_COLUMNS.index("xx")] = x**2
    gram[GRAM_COLUMNS.index("yy")] = np.vstack([x[1:], y]) ** 2
    return Capture(
        prompt=np.zeros(tokens, dtype=np.int64),
        position=np.arange(tokens),
        token_id=np.zeros(tokens, dtype=np.int64),
        gram=gram,
        top_value=np.zeros((blocks, tokens, 4)),
        top_index=np.zeros((blocks, tokens, 4), dtype=np.int64),
        normed=normed,
    )


@pytest.fixture
def residual() -> NotebookResidual:
    return notebook_residual(capture_of(X, np.array([2.0, 8.0]), np.array([6.0, 9.0])))


def test_planted_norms_give_the_notebooks_statistics(residual):
    assert residual.norms == (2.0, 6.0, 5.0, 7.5)
    assert residual.gains == pytest.approx((3.0, 5 / 6, 1.5))
    assert (residual.embedding_norm, residual.final_norm) == (2.0, 7.5)
    assert (residual.initial_gain, residual.last_gain) == pytest.approx((3.0, 1.5))
    assert residual.last_expands is True
    assert residual.num_layers == 3
    assert (residual.contracting_layers, residual.expanding_layers) == (1, 2)


def test_last_gain_is_the_last_block_times_the_final_norm(residual):
    assert residual.true_last_gain == 1.0  # mean |y| is 5, as is mean |x|
    assert residual.true_last_gain * residual.final_norm_gain == pytest.approx(residual.last_gain)


def test_cumulative_energy_telescopes(residual):
    assert residual.cumulative_energy == pytest.approx(residual.final_norm / 2.0, rel=1e-14)


@pytest.mark.parametrize("planted", [1.25, 0.60])
def test_last_gain_is_blind_to_the_last_block_and_the_gain_beside_it_is_not(planted):
    """The final norm forgets scale: whatever the last block's gain, `normed` is the same."""
    found = notebook_residual(capture_of(X, planted * X[-1], np.array([4.0, 5.32])))
    assert found.last_gain == pytest.approx(0.932)
    assert found.true_last_gain == pytest.approx(planted)


def test_gain_is_one_where_the_norm_before_is_zero_and_one_counts_as_expanding():
    assert notebook_gains((0.0, 2.0, 2.0, 1.0)) == (1.0, 1.0, 0.5)
    found = notebook_residual(capture_of(0 * X, X[0], X[0]))
    assert found.gains == (1.0, 1.0, 1.0)
    assert (found.contracting_layers, found.expanding_layers) == (0, 3)
    assert found.last_expands is False  # 1 is not above 1
    assert math.isnan(found.true_last_gain)  # nothing entered: unknown, not 1


@pytest.mark.parametrize("place", ["x", "y", "normed"])
def test_non_finite_norms_are_refused(place):
    parts = {"x": X.copy(), "y": X[0].copy(), "normed": X[0].copy()}
    parts[place][..., -1] = np.inf
    with pytest.raises(ValueError, match=r"not finite on the notebook's sentence .* bfloat16"):
        notebook_residual(capture_of(**parts))


def test_more_than_one_prompt_is_our_mistake():
    capture = capture_of(X, X[0], X[0])
    capture.prompt[1] = 1
    with pytest.raises(AssertionError, match="one sentence"):
        notebook_residual(capture)


def test_equals_hugging_face_hidden_states():
    """Norms from what hooks see in each block, against output_hidden_states of the same model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.norm.weight.uniform_(0.5, 3.0)
    seen: list[torch.Tensor] = []
    for block in model.model.layers:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        states = model(torch.arange(11)[None], output_hidden_states=True).hidden_states
    norms = [state[0].double().norm(dim=-1).numpy() for state in [*seen, states[-1]]]
    found = notebook_residual(capture_of(np.stack(norms[:3]), norms[3], norms[4]))
    expected = [float(state.float().norm(dim=-1).mean()) for state in states]
    np.testing.assert_allclose(found.norms, expected, rtol=1e-6)  # float32 norms
    assert found.true_last_gain != pytest.approx(found.last_gain, rel=0.05)


@pytest.mark.parametrize(
    ("short", "long", "verdict"),
    [
        (1.37, 0.48, "CONFIRMED"),
        (0.9, 0.8, "REJECTED - Family Trait"),
        (1.1, 1.2, "UNEXPECTED"),
        (0.92, 1.53, "INVERTED"),
        (1.0, 0.5, "INVERTED"),  # exactly 1 is neither above nor below
        (1.5, 1.0, "INVERTED"),
        (1.0, 1.0, "INVERTED"),
        (1.0, 1.5, "INVERTED"),
        (0.5, 1.0, "INVERTED"),
    ],
)
def test_the_four_verdicts_and_gains_of_exactly_one(short, long, verdict):
    assert verdict in NOTEBOOK_VERDICTS
    assert notebook_verdict(short, long) == verdict
    test = hypothesis_test(Side(short, 1e4, 40.0), Side(long, 5e5, 90.0))
    assert (test.short_expands, test.long_expands) == (short > 1, long > 1)
    assert test.verdict == verdict


def test_ratios_are_long_over_short():
    test = hypothesis_test(Side(0.5, 1e4, 40.0), Side(1.5, 5e5, 90.0))
    assert (test.theta_ratio, test.gain_ratio, test.wu_ratio) == (50.0, 3.0, 2.25)


@pytest.mark.parametrize(
    ("short", "long", "unknown"),
    [
        (Side(0.5, None, 40.0), Side(1.5, 5e5, 90.0), {"theta_ratio"}),
        (Side(0.5, 1e4, 40.0), Side(1.5, None, None), {"theta_ratio", "wu_ratio"}),
        (Side(0.0, 1e4, 0.0), Side(1.5, 5e5, 90.0), {"gain_ratio", "wu_ratio"}),
    ],
)
def test_a_ratio_without_its_numbers_is_nan_and_not_zero(short, long, unknown):
    test = hypothesis_test(short, long)
    names = {"theta_ratio", "gain_ratio", "wu_ratio"}
    assert {name for name in names if math.isnan(getattr(test, name))} == unknown


def report_of(key: str, role: str, residual: NotebookResidual, theta: float | None) -> ModelReport:
    checkpoint = Checkpoint(
        name=key, hf_name=f"org/{key}", revision=None, backend="hooked", dtype="float32",
        architecture="LlamaForCausalLM", num_blocks=3, num_heads=4, d_model=16, d_vocab=64,
        context=512, config={}, training=None, additivity=0.0, logits_kl=0.0,
    )  # fmt: skip
    unembed = UnembedReport(
        shape=(64, 16), vocab_size=64, hidden_dim=16, frobenius_norm=8.0, spectral_norm=4.0,
        mean_row_norm=0.9, sigma_per_sqrt_vocab=0.5, edge_ratio=1.3, stable_rank=4.0,
        effective_rank=9.0, mean_row_cosine=0.5, spectrum=np.ones(16),
        centred_spectrum=np.ones(16), folded_spectrum=np.ones(16), subspace_rank=4, tied=False,
    )  # fmt: skip
    rope = RopeReport(
        rope_theta=theta, rope_scaling={"rope_type": "llama3", "factor": 8.0}, max_position=512,
        measured_theta=theta, wavelengths=np.ones(2), beyond_context=0.0, theta_bound=None,
    )  # fmt: skip
    return ModelReport(
        role=role, checkpoint=checkpoint, residual=residual, unembed=unembed, rope=rope,
        blocks=(), cells=(), last_block=np.zeros(1), behaviour=None, equivalent=None, massive=(),
        prompts=EncodedPrompts("notebook", "", (), (), True, 0, ()),
        scale_control=0.0, halves_control=Interval(0.0, -0.1, 0.1, 32, 0.95, "planted"),
    )  # fmt: skip


@pytest.fixture
def reports(residual) -> list[ModelReport]:
    shrinking = notebook_residual(capture_of(X, X[-1], np.array([4.0, 5.0])))
    return [
        report_of("extra", "control", residual, None),
        report_of("new", "long", residual, 5e5),
        report_of("old", "short", shrinking, 1e4),
    ]


SPEC = ComparisonSpec(
    name="test",
    models=(
        ModelSpec(key="old", hf_name="org/old", role="short"),
        ModelSpec(key="new", hf_name="org/new", role="long", label="New", context_length=128_000),
        ModelSpec(key="extra", hf_name="org/extra", role="control"),
    ),
)


def test_comparison_table_rows_in_the_notebooks_order_and_format(reports):
    rows = comparison_rows(SPEC, reports)
    assert [row_cells(row) for row in rows[:4]] == [
        ("old", "512", "10,000", "0.9000x", "4.00", "CONTRACTS"),
        ("New", "128,000", "500,000", "1.5000x", "4.00", "EXPANDS"),
        ("extra", "512", "-", "1.5000x", "4.00", "EXPANDS"),
        ("Mistral (ref)", "8,192", "10,000", "1.3700x", "16.14", "EXPANDS"),
    ]
    assert [row.label for row in rows[3:]] == [row.label for row in REFERENCE_ROWS]
    assert "published run" in rows[-1].source
    assert all(len(row_cells(row)) == len(TABLE_HEADER) for row in rows)


PUBLISHED_KEYS = {
    "": {"experiment", "date", "hypothesis", "models", "hypothesis_test", "references"},
    "model": {"model", "hf_name", "num_layers", "residual", "w_u", "rope"},
    "residual": {
        "norms", "gains", "embedding_norm", "final_norm", "initial_gain", "last_gain",
        "last_expands", "cumulative_energy", "num_layers", "contracting_layers",
        "expanding_layers",
    },
    "w_u": {
        "shape", "vocab_size", "hidden_dim", "frobenius_norm", "spectral_norm", "mean_row_norm",
    },
    "rope": {"rope_theta", "rope_scaling", "max_position"},
    "test": {
        "llama2_expands", "llama31_expands", "theta_ratio", "gain_ratio", "wu_ratio", "verdict",
    },
}  # fmt: skip
"""The published file's keys, level by level."""


def json_of(reports: list[ModelReport]) -> dict:
    """As written to a file and read again; strict about NaN."""
    test = hypothesis_test(side_of(reports[2]), side_of(reports[1]))
    tree = notebook_json("title", "2026-01-05", reports, test)
    return json.loads(json.dumps(tree, allow_nan=False))


def test_json_has_the_notebooks_keys_and_nesting(reports):
    tree = json_of(reports)
    assert set(tree) == PUBLISHED_KEYS[""]
    model = tree["models"]["new"]
    assert set(model) == PUBLISHED_KEYS["model"]
    added = {"true_last_gain", "final_norm_gain"}
    assert set(model["residual"]) == PUBLISHED_KEYS["residual"] | added
    assert set(model["w_u"]) == PUBLISHED_KEYS["w_u"]
    assert set(model["rope"]) == PUBLISHED_KEYS["rope"]
    assert set(tree["hypothesis_test"]) == PUBLISHED_KEYS["test"] | {
        "short_expands",
        "long_expands",
    }
    assert tree["hypothesis_test"]["llama2_expands"] is False
    assert tree["hypothesis_test"]["llama31_expands"] is True
    assert tree["hypothesis_test"]["verdict"] == "INVERTED"
    assert tree["references"] == NOTEBOOK_REFERENCES
    assert model["residual"]["norms"] == [2.0, 6.0, 5.0, 7.5]
    assert model["w_u"]["shape"] == [64, 16]
    assert model["rope"]["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}


def test_json_writes_unknown_as_null_with_its_reason(reports):
    nothing_enters = notebook_residual(capture_of(0 * X, X[0], X[0]))
    reports[1] = report_of("new", "long", nothing_enters, None)
    tree = json_of(reports)
    assert tree["hypothesis_test"]["theta_ratio"] is None
    assert "no RoPE theta" in tree["hypothesis_test"]["theta_ratio_reason"]
    rope = tree["models"]["new"]["rope"]
    assert rope["rope_theta"] is None
    assert "no rotary" in rope["rope_theta_reason"]
    residual = tree["models"]["new"]["residual"]
    assert residual["true_last_gain"] is None
    assert "nothing enters" in residual["true_last_gain_reason"]
    assert residual["final_norm_gain"] == 1.0


def test_json_shares_nothing_with_the_spec(reports):
    test = hypothesis_test(side_of(reports[2]), side_of(reports[1]))
    notebook_json("t", "d", reports, test)["references"]["mistral-7b"]["last_gain"] = 0.0
    assert NOTEBOOK_REFERENCES["mistral-7b"]["last_gain"] == 1.37


def test_our_own_json_re_scores_with_the_last_block_known(reports):
    """Round trip: what is written is read back without a contradiction, and is no longer blind."""
    tree = json_of(reports) | {"gainlens": {"version": "0", "schema": 1}}
    for report in reports:
        tree["models"][report.checkpoint.name]["role"] = report.role
    score = rescore(tree)
    assert score.ours
    assert score.pair is not None
    assert (score.pair.short, score.pair.long) == ("old", "new")
    assert score.pair.verdict == score.pair.stated_verdict == "INVERTED"
    assert not score.pair.findings
    assert not any(model.findings for model in score.models.values())
    assert score.models["old"].residual.true_last_gain == 1.0
    assert "block_of_last_gain" not in score.limits
    json.dumps(to_json(score), allow_nan=False)
