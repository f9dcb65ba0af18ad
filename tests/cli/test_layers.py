"""The layers command end to end."""

import csv
import json

import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.cli.compare import run
from gainlens.cli.layers import layers_command


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("layers")
    planted_checkpoint(base / "a", 1.25, lift=2.0)
    (base / "prompts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (base / "few.txt").write_text("\n".join(TEXTS[:3]), encoding="utf-8")
    return base


def flags(base, out, *also, prompts="prompts.txt"):
    return [
        str(base / "a"), "--prompts", str(base / prompts), "--out", str(out),
        "--resamples", "200", "--backend", "native", *also,
    ]  # fmt: skip


def test_a_run_leaves_table_figure_page_and_json(base, tmp_path, capsys):
    assert run(layers_command, flags(base, tmp_path / "run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 20
    assert lines[0] == lines[-1]
    document = json.loads((tmp_path / "run" / "result.json").read_bytes())
    assert document["removal"]["order"] is None
    assert [0, 1] in document["removal"]["groups"]
    with (tmp_path / "run" / "layers.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, in_json in zip(rows, document["layers"], strict=True):
        assert float(row["skip_loss"]) == pytest.approx(in_json["skip_loss"], abs=1e-12)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert page.index('id="table-layers"') < page.index('id="table-models"')
    assert (tmp_path / "run" / "figures" / "importance.svg").is_file()
    assert (tmp_path / "run" / "agreement.csv").is_file()


def test_quiet_and_json_print_one_thing(base, tmp_path, capsys):
    few = flags(base, tmp_path / "run", "--quiet", "--batch-tokens", "8", prompts="few.txt")
    assert run(layers_command, few) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "loss: 3" in line
    assert run(layers_command, [*few[:-3], "--json", "--tokens", "4"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["models"]["a"]["prompts"]["tokens"] == [4, 4, 4]
    assert document["removal"]["withheld"]


@pytest.mark.parametrize("also", [("--tokens", "1"), ("--batch-tokens", "0"), ("--seed", "-1")])
def test_mistakes_are_one_line(base, tmp_path, capsys, also):
    assert run(layers_command, flags(base, tmp_path / "run", *also)) == 2
    error = capsys.readouterr().err
    assert sum(line.startswith("error: ") for line in error.splitlines()) == 1
    assert not (tmp_path / "run" / "result.json").exists()
