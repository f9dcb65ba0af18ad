"""The `gainlens` command: it teaches, rebuilds without torch, and says whether a rerun agrees."""

import json
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest
from planting.runs import planted_run

from gainlens.cli.commands import gainlens_command
from gainlens.cli.compare import compare_command, run
from gainlens.core.presets import PRESETS
from gainlens.results.reading import read_run
from gainlens.runs import writing as rendering
from gainlens.runs.rerun import Rerun


def test_help_leads_with_examples(capsys):
    assert run(gainlens_command, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("gainlens compare") < printed.index("Options:")
    for name in gainlens_command.commands:
        assert run(gainlens_command, [name, "--help"]) == 0
        printed = capsys.readouterr().out
        assert printed.index("Examples:") < printed.index("Usage:")


def test_without_words_it_helps(capsys):
    assert run(gainlens_command, []) == 0
    assert "Examples:" in capsys.readouterr().out


def test_the_script_is_the_compare_command():
    assert gainlens_command.commands["compare"] is compare_command


def test_help_comes_fast_and_without_heavy_libraries():
    code = (
        "import sys\n"
        "from gainlens.cli.compare import run\n"
        "from gainlens.cli.commands import gainlens_command\n"
        "run(gainlens_command, ['--help'])\n"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'matplotlib', 'pandas', 'scipy'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)\n"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    assert time.perf_counter() - started < 5  # 0.25 s on a quiet machine; this one may be busy


def test_models_lists_every_preset_and_what_is_known(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run(gainlens_command, ["models"]) == 0
    printed = capsys.readouterr().out
    for preset, models in PRESETS.items():
        assert preset in printed
        for model in models:
            assert model.hf_name in printed
    assert "held-out loss 2.22" in printed
    assert "last_gain 0.923" in printed


def test_weights_stand_side_by_side(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    twins = [model.hf_name for model in PRESETS["twins"][:2]]
    assert run(gainlens_command, ["weights", *twins]) == 0
    printed = capsys.readouterr().out
    for text in (*twins, "4,096 x 128", "50.16", "42.11", "500,000"):
        assert text in printed
    assert run(gainlens_command, ["weights", "./nowhere"]) == 2
    assert "there is no directory" in capsys.readouterr().err


def test_report_rebuilds_page_figures_and_tables_without_torch(one_figure, tmp_path):
    figures = tmp_path / "run" / "figures"
    rendering.write_run(tmp_path / "run", figures, planted_run())
    result = (tmp_path / "run" / "result.json").read_bytes()
    page = (tmp_path / "run" / "report.html").read_bytes()
    shutil.rmtree(figures)
    (tmp_path / "run" / "report.html").unlink()
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'transformer_lens'): sys.modules[name] = None\n"
        "from gainlens.cli.compare import run\n"
        "from gainlens.cli.commands import gainlens_command\n"
        "from gainlens.runs import writing\n"
        "drawings = writing.drawings\n"
        "writing.drawings = lambda *of: {'gain_curve': drawings(*of)['gain_curve']}\n"
        f"sys.exit(run(gainlens_command, ['report', {str(tmp_path / 'run')!r}, '--quiet']))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "run" / "result.json").read_bytes() == result
    assert (tmp_path / "run" / "report.html").read_bytes() == page
    assert (figures / "gain_curve.svg").exists()


def test_report_of_no_run_is_one_sentence(tmp_path, capsys):
    assert run(gainlens_command, ["report", str(tmp_path)]) == 2
    captured = capsys.readouterr().err
    assert "is no run folder" in captured
    assert captured.count("\n") == 1


def test_every_command_prints_json_and_nothing_else(compared, one_figure, tmp_path, capsys):
    def document(*words: str) -> Any:
        status = run(gainlens_command, [*words, "--json"])
        captured = capsys.readouterr()
        assert (status, captured.err) == (0, "")
        return json.loads(captured.out)

    shutil.copytree(compared, tmp_path / "run")
    folder = str(tmp_path / "run")
    twin = PRESETS["twins"][0].hf_name
    assert document("models")["twins"][0]["hf_name"] == twin
    assert document("weights", twin)[twin]["w_u"]["vocab_size"] == 4096
    written = json.loads((compared / "result.json").read_text("utf-8"))
    assert document("report", folder) == written
    assert "simultaneous" in written["models"]["short"]["layers_interval"]
    result = str(compared / "result.json")
    rescored = document("rescore", result, "--out", str(tmp_path / "one"))
    assert set(rescored) == {"rescore"}
    both = document("rescore", result, result, "--out", str(tmp_path / "two"))
    assert len(both["rescores"]) == 2


def test_a_rerun_names_what_differs(compared, one_figure, tmp_path, capsys):
    changed = tmp_path / "changed"
    shutil.copytree(compared, changed)
    result = json.loads((changed / "result.json").read_text("utf-8"))
    result["models"]["short"]["w_u"]["spectral_norm"] *= 1.5
    (changed / "result.json").write_text(json.dumps(result), encoding="utf-8")
    flags = ["rerun", str(changed), "--out", str(tmp_path / "again"), "--quiet"]
    assert run(gainlens_command, flags) == 1
    printed = capsys.readouterr().out
    assert "1 values differ, numbers by at most 3.3e-01" in printed
    assert "models.short.w_u.spectral_norm" in printed


def test_a_rerun_that_agrees_says_so(compared, capsys, monkeypatch):
    """What it compares is tested in runs/test_reproducible.py."""
    read = read_run(compared)
    monkeypatch.setattr("gainlens.runs.rerun.rerun", lambda *_: Rerun(read, read, (), (), ()))
    assert run(gainlens_command, ["rerun", str(compared), "--quiet"]) == 0
    assert "every number is the same to the bit" in capsys.readouterr().out
    assert run(gainlens_command, ["rerun", str(compared), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell, capsys):
    assert run(gainlens_command, ["completion", shell]) == 0
    assert "_GAINLENS_COMPLETE" in capsys.readouterr().out
