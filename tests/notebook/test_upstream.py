"""The thirty published files beside the notebook's: answers that were computed independently."""

import os
from pathlib import Path

import pytest

from gainlens.notebook.across_files import origins
from gainlens.notebook.rescored import Rescore
from gainlens.notebook.rescoring import rescore

UPSTREAM = Path(
    os.environ.get(
        "GAINLENS_UPSTREAM", Path(__file__).parents[3] / "shared" / "published" / "upstream"
    )
)
pytestmark = pytest.mark.skipif(
    not UPSTREAM.is_dir(),
    reason="the result files of buk81/uniformity-asymmetry are not here; set GAINLENS_UPSTREAM to "
    "their folder",
)
WITHOUT_NUMBERS = {
    "l_star_cross_heritage_20260106_104357.json",
    "l_star_sign_change_20260106_111315.json",
    "neutral_control_test_results.json",
}


def file_of(start: str) -> Rescore:
    (path,) = UPSTREAM.glob(f"{start}*.json")
    return rescore(path)


def test_all_but_three_files_hold_numbers():
    files = sorted(UPSTREAM.glob("*.json"))
    assert len(files) == 30
    for path in files:
        if path.name in WITHOUT_NUMBERS:
            with pytest.raises(ValueError, match="holds no gains"):
                rescore(path)
        else:
            score = rescore(path)
            assert score.measurements or score.spectra


@pytest.mark.parametrize(
    ("start", "models"),
    [("clean_residual_NO", 2), ("pythia_family_NO", 8), ("high_rho_hunt_NO", 16)],
)
def test_what_is_called_the_last_block_without_final_norm_is_the_penultimate(start, models):
    rows = file_of(start).measurements
    assert [row.state for row in rows] == [
        "penultimate block",
        "last block and final norm",
    ] * models
    assert all(row.basis == "numbers" for row in rows)
    assert all(row.block == row.num_blocks - 2 for row in rows[::2])


@pytest.mark.parametrize(
    ("start", "model", "value", "low", "high"),
    [
        ("thermodynamic", "Pythia-6.9B", 0.802, 0.776, 0.829),
        ("thermodynamic", "LLaMA-3.1-8B", 1.475, 1.405, 1.547),
        ("twin_test", "Gemma-7B-Base", 2.287, 2.136, 2.449),
        ("twin_test", "Gemma-7B-IT", 1.153, 1.145, 1.161),
    ],
)
def test_gains_of_the_last_block_with_their_intervals(start, model, value, low, high):
    (row,) = (row for row in file_of(start).measurements if row.model == model)
    assert (row.state, row.reduction, row.prompts) == ("last block", "last_token", 25)
    assert (row.value, row.low, row.high) == pytest.approx((value, low, high), abs=5e-4)


def test_instruction_tuning_halves_gemmas_gain_in_a_file_that_says_nature_dominates():
    score = file_of("twin_test")
    mistral, gemma, llama = score.differences
    assert (gemma.nats, gemma.low, gemma.high) == pytest.approx((-0.685, -0.751, -0.619), abs=5e-4)
    assert (mistral.nats, llama.nats) == pytest.approx((0.027, 0.046), abs=5e-4)
    assert mistral.says == "NEUTRAL"
    assert mistral.low > 0
    assert "NATURE_DOMINATES" in [statement.text for statement in score.statements]


def test_a_gain_of_gemma_2_was_copied_from_gemma():
    scores = [file_of("4model"), file_of("llama_anomaly")]
    sources = {row.copied.measurement.model: row.source for row in origins(scores)}
    assert sources["gemma2-9b"].measurement.model == "gemma-7b"


def test_a_frobenius_norm_that_its_rows_do_not_give():
    findings = {finding.place: finding for finding in file_of("mistral_paradox").findings}
    w_u = findings["mistral-7b: frobenius_norm of W_U"]
    assert (w_u.stated, w_u.recomputed) == pytest.approx((47.673, 48.457), abs=5e-4)
