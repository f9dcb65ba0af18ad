"""The measure command end to end: run folder, page, JSON, and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.cli.compare import run
from gainlens.cli.measure import measure_command


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("measure")
    planted_checkpoint(base / "a", 1.25)
    planted_checkpoint(base / "b", 0.6)
    (base / "prompts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return base


def flags(base, out, *models, also=()):
    return [
        *(str(base / model) for model in models), *also, "--prompts", str(base / "prompts.txt"),
        "--out", str(out), "--resamples", "200", "--backend", "native",
    ]  # fmt: skip


def test_one_model_leaves_a_whole_run_folder(base, tmp_path, capsys):
    also = ("--metric", "angle", "--heads")
    assert run(measure_command, flags(base, tmp_path / "run", "a", also=also)) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == out.splitlines()[-1]
    assert len(out.splitlines()) <= 20
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"result.json", "tokens.parquet", "blocks.csv", "metrics.csv", "heads.csv"}
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    drawn = {path.stem for path in (tmp_path / "run" / "figures").glob("*.svg")}
    assert {name for name in drawn if f'id="figure-{name}"' in page} == drawn - {"token_map"}
    document = json.loads((tmp_path / "run" / "result.json").read_bytes())
    assert "verdict" not in document
    assert str(base / "a") in document["command"].split()
    assert "--metric angle --heads" in document["command"]
    (metric,) = {row["metric"] for row in document["models"]["a"]["metrics"]}
    assert metric == "angle"


def test_two_models_show_their_paired_difference_first(base, tmp_path, capsys):
    arguments = flags(base, tmp_path / "run", "a", "b", also=("--json",))
    assert run(measure_command, arguments) == 0
    document = json.loads(capsys.readouterr().out)
    last = document["difference"][-1]
    layers = [document["models"][name]["layers"][-1]["log_gain"] for name in "ab"]
    np.testing.assert_allclose(last["difference"], layers[1] - layers[0], rtol=1e-9)
    assert document["answer"].startswith("b minus a")


def test_skip_loss_is_measured_if_it_is_asked_for(base, tmp_path):
    also = ("--metric", "skip_loss", "--metric", "loss", "--quiet")
    assert run(measure_command, flags(base, tmp_path / "run", "a", "b", also=also)) == 0
    rows = pd.read_csv(tmp_path / "run" / "metrics.csv")
    by_metric = rows.groupby("metric")["block"].nunique()
    assert by_metric.to_dict() == {"loss": 1, "skip_loss": 3}
    tokens = pd.read_parquet(tmp_path / "run" / "tokens.parquet")
    last = tokens[tokens["layer"] == 2]
    assert last["token_loss"].isna().tolist() == (last["position"] == 0).tolist()
    assert tokens[tokens["layer"] < 2]["token_loss"].isna().all()
    assert (tmp_path / "run" / "heads.parquet").is_file()


def test_quiet_prints_one_line(base, tmp_path, capsys):
    arguments = flags(base, tmp_path / "run", "a", also=("--quiet", "--tokens", "4,8"))
    assert run(measure_command, arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    document = json.loads((tmp_path / "run" / "result.json").read_bytes())
    assert [model["tokens"] for model in document["models"].values()] == [4, 8]
    assert (tmp_path / "run" / "figures" / "series.svg").is_file()


@pytest.mark.parametrize(
    ("also", "keyword"),
    [
        (("--metric", "angel"), "nearest is angle"),
        (("--tokens", "64,many"), "64,256,1024"),
        (("--tokens", "1"), "at least 2"),
        (("--seed", "1", "--seed", "2"), "twice"),
        (("--series",), "step"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(base, tmp_path, capsys, also, keyword):
    assert run(measure_command, flags(base, tmp_path / "run", "a", also=also)) == 2
    error = capsys.readouterr().err
    assert keyword in error
    assert sum(line.startswith("error: ") for line in error.splitlines()) == 1
    assert not (tmp_path / "run" / "result.json").exists()
