"""The command end to end: what it writes, what it prints, and what it says to a mistake."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import gainlens
from gainlens.cli import compare as cli
from gainlens.cli.compare import compare_command, run
from gainlens.cli.flags import key_of

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare.py"
NATIVE = ("--backend", "native")


@pytest.fixture(scope="module")
def pair(planted_pair):
    return planted_pair


@pytest.fixture(scope="module")
def result(compared):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((compared / "result.json").read_text("utf-8"), parse_constant=refuse)


def test_result_follows_the_contract(result):
    """What the notebook wrote of it is for notebook/test_statistics.py."""
    test = result["hypothesis_test"]
    assert test["llama2_expands"] == test["short_expands"]
    assert test["theta_ratio"] == 50.0
    for model in result["models"].values():
        assert len(model["residual"]["norms"]) == model["num_layers"] + 1
        assert model["rope"]["measured_theta"] == pytest.approx(model["rope"]["rope_theta"])
    assert {"verdict", "gainlens", "environment", "spec"} <= set(result)
    assert {
        "outcome", "robust", "dissent", "identification", "attribution", "reasons", "premise",
    } <= set(result["verdict"])  # fmt: skip
    assert result["verdict"]["outcome"] == "CONFIRMED"
    assert result["verdict"]["identification"]["status"] == "CONFOUNDED"
    assert result["verdict"]["identification"]["differing"] == ["training unknown"]
    assert result["gainlens"]["schema"] == 1
    short = result["models"]["short"]
    assert short["role"] == "short"
    assert short["behaviour"] == "EXPANDS"
    for block in short["layers"]:
        assert {
            "layer", "log_gain", "attention", "mlp", "remainder", "gain", "low", "high",
        } <= set(block)  # fmt: skip
        parts = block["attention"] + block["mlp"] + block["remainder"]
        assert parts == pytest.approx(block["log_gain"], abs=1e-12)
        assert math.exp(block["log_gain"]) == pytest.approx(block["gain"])
    assert short["prompts"]["sha256"] == result["models"]["long"]["prompts"]["sha256"]


def test_tokens_parquet_has_a_row_a_token_and_block(compared, result):
    table = pq.read_table(compared / "tokens.parquet")
    rows = sum(
        sum(model["prompts"]["tokens"]) * model["num_layers"] for model in result["models"].values()
    )
    assert table.num_rows == rows
    assert {"model", "prompt", "position", "layer", "class", "xx", "yy", "log_gain"} <= set(
        table.column_names
    )
    frame = table.to_pandas()
    last = frame[(frame.model == "short") & (frame.layer == 2) & (frame["class"] == "ordinary")]
    per_prompt = last.groupby("prompt", observed=True).log_gain.mean()
    assert per_prompt.mean() == pytest.approx(result["models"]["short"]["layers"][2]["log_gain"])


def test_the_run_folder_has_page_and_tables_and_reads_back(compared):
    names = {path.name for path in compared.iterdir()}
    assert {"report.html", "models.csv", "layers.csv", "cells.csv", "heads.parquet"} <= names
    assert "CONFIRMED" in (compared / "report.html").read_text("utf-8")
    assert gainlens.read_run(compared).verdict.outcome == "CONFIRMED"


@pytest.fixture(scope="module")
def intervened(pair, tmp_path_factory):
    """A sweep of two blocks, two thetas, and an ablation that is known to turn the outcome."""
    out = tmp_path_factory.mktemp("run") / "out"
    flags = ["--sweep", "2", "--sweep-how", "zero", "--sweep-how", "mean"]
    flags += ["--theta", "1000", "--theta", "1e6", "--ablate", "blocks.-1.hook_mlp_out=zero"]
    flags += [*pair["models"], *pair["prompts"], "--out", str(out), "--quiet"]
    assert run(compare_command, flags) == 0
    return out


def test_the_default_run_ablates_the_last_block_and_swaps_the_thetas(result):
    for model in result["models"].values():
        done = model["interventions"]
        assert [(one["site"], one["how"]) for one in done["sweep"]] == [
            ("blocks.-1.hook_attn_out", "zero"),
            ("blocks.-1.hook_mlp_out", "zero"),
        ]
        assert [one["theta"] for one in done["theta_dose"]] == [1e4, 5e5]
        assert done["ablated"] is None
    assert not {"ablation", "theta_dose"} & set(result)  # the contract: where asked for


def test_what_was_asked_for_stands_in_the_result_with_before_and_after(intervened):
    result = json.loads((intervened / "result.json").read_text("utf-8"))
    ablation = result["ablation"]
    assert (ablation["site"], ablation["how"]) == ("blocks.-1.hook_mlp_out", "zero")
    for key, model in ablation["models"].items():
        assert model["baseline"]["layers"] == result["models"][key]["layers"]
        before, after = (side["layers"][-1] for side in (model["baseline"], model))
        assert after["mlp"] == 0.0
        assert after["log_gain"] != pytest.approx(before["log_gain"], abs=0.01)
        assert after["attention"] + after["remainder"] == pytest.approx(after["log_gain"])
    # the planted MLP erases in the long model: without it both expand
    assert result["verdict"]["outcome"] == "CONFIRMED"
    assert ablation["outcome"] == result["verdict"]["ablated_outcome"] != "CONFIRMED"
    doses = [(dose["model"], dose["theta"]) for dose in result["theta_dose"]]
    assert doses == [
        *(("short", theta) for theta in (1e3, 1e4, 1e6)),
        *(("long", theta) for theta in (1e3, 5e5, 1e6)),
    ]
    sites = {f"blocks.-{back}.hook_{name}_out" for back in (1, 2) for name in ("attn", "mlp")}
    for model in result["models"].values():
        found = {(one["site"], one["how"]) for one in model["interventions"]["sweep"]}
        assert found == {(site, how) for site in sites for how in ("zero", "mean")}


def test_an_intervened_run_has_its_figures_and_tables_and_reads_back(intervened):
    names = {path.name for path in (intervened / "figures").iterdir()}
    drawn = {
        "headline", "splits", "notebook", "gain_curve", "verdict_forest", "massive_lifecycle",
        "gain_by_position", "unembed_spectrum", "rope_wavelengths", "ablation_zero",
        "ablation_mean", "theta_dose",
    }  # fmt: skip
    assert names == {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    assert {"sweep.csv", "theta_dose.csv"} <= {path.name for path in intervened.iterdir()}
    again = gainlens.read_run(intervened)
    assert gainlens.judge(again.reports, again.spec.rule).reasons == again.verdict.reasons


def test_json_mode_prints_the_result_alone_and_without_interventions_none_is_made(
    pair, one_figure, tmp_path, capsys
):
    flags = [*pair["models"], *pair["prompts"], "--no-interventions", "--json", *NATIVE]
    assert run(compare_command, [*flags, "--out", str(tmp_path / "o")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "o" / "result.json").read_text("utf-8"))
    assert result["verdict"]["outcome"] == "CONFIRMED"
    for model in result["models"].values():
        done = model["interventions"]
        assert done == {"sweep": [], "theta_dose": [], "notes": [], "ablated": None, "controls": []}
    assert not (tmp_path / "o" / "theta_dose.csv").exists()


def test_the_terminal_report_names_verdict_parts_and_dissent(pair, one_figure, tmp_path, capsys):
    flags = [*pair["models"], *pair["prompts"], "--no-interventions", *NATIVE]
    flags += ["--out", str(tmp_path / "o")]
    assert run(compare_command, flags) == 0
    printed = capsys.readouterr().out
    for word in ("YES: ", "CONFIRMED", "Doubts", "confounded", str(tmp_path / "o")):
        assert word in printed
    assert "\x1b" not in printed  # no control codes in a pipe
    seconds = json.loads((tmp_path / "o" / "result.json").read_text("utf-8"))["seconds"]
    assert f"Measured in {seconds:.1f} s" in printed


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--short", "./nowhere"], "--short needs --long"),
        (["--preset", "twins", "--short", "a", "--long", "b"], "exclude one another"),
        (["--preset", "nonesuch"], "'twins'"),
        (["--nonesuch"], "--nonesuch"),
        (["--estimand", "ordinary/mode"], "geomean"),
        (["--tokens", "one"], "--tokens"),
        (["--confidence", "2"], "--confidence"),
        (["--prompts", "./no-such-file.txt"], "no-such-file.txt"),
        (["--rescore", "./no-such.json"], "no-such.json"),
        (["--theta", "0.5"], "error: a RoPE base is a number above 1, such as 500000; got 0.5"),
        (["--sweep", "0"], "--sweep"),
        (["--ablate", "blocks.0.hook_mlp_out"], "SITE=HOW"),
        (["--ablate", "a=zero", "--ablate", "a=mean"], "a is ablated twice"),
        (["--no-interventions", "--sweep-heads"], "--sweep-heads exclude one another"),
    ],
)
@pytest.mark.fault(
    "flags that do not go together, or are none", "one line, status 2, nothing written"
)
def test_a_mistake_is_one_line_and_status_two(flags, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(compare_command, flags) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("a model directory that is empty", "one line, status 2, nothing written")
def test_a_model_that_is_none_leaves_nothing_behind(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    models = ["--short", "./empty", "--long", pair["models"][3]]
    assert run(compare_command, [*models, "--out", "run"]) == 2
    assert "no config.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_site_that_is_none_is_refused_with_the_nearest(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        *pair["models"],
        *pair["prompts"],
        "--ablate",
        "blocks.1.hook_mlp_uot=zero",
    ]
    assert run(compare_command, flags) == 2
    captured = capsys.readouterr()
    assert "blocks.1.hook_mlp_out" in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/result.json"))


@pytest.mark.fault("an empty prompt file", "one line, status 2")
def test_an_empty_prompt_file_is_refused(pair, tmp_path, capsys):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert run(compare_command, [*pair["models"], "--prompts", str(empty)]) == 2
    assert "empty.txt" in capsys.readouterr().err


@pytest.mark.fault("Ctrl-C", "status 130")
def test_interruption_is_status_130(monkeypatch, capsys, pair):
    def interrupt(flags, quiet):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_compare", interrupt)
    assert run(compare_command, pair["models"]) == 130


@pytest.mark.fault("--out that cannot be written", "refused before any work")
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(pair, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(compare_command, [*pair["models"], "--out", str(blocked / "run")]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "taken", "key"),
    [
        ("meta-llama/Llama-3.1-8B", [], "Llama-3.1-8B"),
        ("./models/../../etc", [], "etc"),
        ("..", [], "model"),
        ("a b/c$d", [], "c-d"),
        ("x/model", ["model"], "model-2"),
        ("x/model", ["model", "model-2"], "model-3"),
    ],
)
@pytest.mark.fault("a model's name that is a path, or taken", "a key that is a safe file name")
def test_keys_are_safe_and_distinct(source, taken, key):
    assert key_of(source, taken) == key


def test_rescoring_our_own_result(compared, tmp_path, capsys):
    flags = ["--rescore", str(compared / "result.json"), "--out", str(tmp_path / "rescored")]
    assert run(compare_command, flags) == 0
    assert "telescopes" in capsys.readouterr().out
    assert "rescore" in json.loads((tmp_path / "rescored" / "result.json").read_text("utf-8"))


def test_the_script_says_what_it_can_do():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True
    )
    assert "Examples" in done.stdout
    assert "--rescore" in done.stdout
