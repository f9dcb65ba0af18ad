"""The terminal: the answer first and last, few lines, no interval over two lines, names apart."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from planting.runs import planted_run, without_claim

from gainlens.records.comparison import Comparison
from gainlens.report.answer import answer, doubts
from gainlens.report.terminal import print_answer, print_comparison, print_measurement

NAMES = [
    "context512-theta10k",
    "context4096-theta500k",
    "context512-theta500k",
    "context4096-theta10k",
]
WRITTEN = [Path("runs/a-folder/report.html"), Path("runs/a-folder/figures/headline.png")]


@pytest.fixture(scope="module")
def run() -> Comparison:
    """A run whose models have the twins' names, a fourth one among them."""
    run = planted_run()
    models = (*run.spec.models, run.spec.models[2])
    spec = run.spec.model_copy(
        update={
            "models": tuple(
                model.model_copy(update={"key": name})
                for model, name in zip(models, NAMES, strict=True)
            )
        }
    )
    reports = tuple(
        replace(report, checkpoint=replace(report.checkpoint, name=name))
        for report, name in zip((*run.reports, run.reports[2]), NAMES, strict=True)
    )
    return replace(run, spec=spec, reports=reports)


def printed(run, capsys, monkeypatch, width: int, **options) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    print_comparison(run, WRITTEN, **options)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("width", "most"), [(80, 25), (100, 20), (120, 20)])
def test_the_answer_stands_first_and_last_in_few_lines(run, capsys, monkeypatch, width, most):
    lines = printed(run, capsys, monkeypatch, width)
    text = " ".join(" ".join(lines).split())
    assert text.startswith(answer(run.verdict))
    assert text.endswith(answer(run.verdict))
    assert len(lines) <= most
    assert max(map(len, lines)) <= width
    assert any(str(WRITTEN[0]) in line for line in lines)


@pytest.mark.parametrize("width", [80, 100])
def test_every_model_is_one_line_with_its_whole_interval(run, capsys, monkeypatch, width):
    lines = printed(run, capsys, monkeypatch, width)
    rows = [line for line in lines if re.search(r"\d \[[\d.]+, [\d.]+\]  ", line)]
    assert len(rows) == 4
    assert len({row.split()[0] for row in rows}) == 4
    for row, report in zip(rows, run.reports, strict=True):
        assert f"{report.residual.last_gain:.3f}" in row


def test_verbose_shows_every_reason_and_every_dissent(run, capsys, monkeypatch):
    text = " ".join(" ".join(printed(run, capsys, monkeypatch, 300, verbose=True)).split())
    for line in (*run.verdict.reasons, *map(str, run.verdict.dissent)):
        assert " ".join(line.split()) in text
    assert "Spectral" in text or "W_U" in text


def test_a_pipe_without_columns_has_a_hundred(run, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_comparison(run, WRITTEN)
    lines = capsys.readouterr().out.splitlines()
    assert 80 < max(map(len, lines)) <= 100


def test_quiet_is_one_line_however_narrow(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    print_answer(run)
    assert capsys.readouterr().out == f"{answer(run.verdict)}\n"


def test_doubts_name_what_speaks_against_the_answer(run):
    lines = " ".join(doubts(run))
    assert "confounded" in lines
    assert run.test.verdict in lines
    failing = replace(run, verdict=replace(run.verdict, premise=False))
    assert "premise" in doubts(failing)[0]


def test_a_measurement_is_one_table_and_its_paths(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_measurement(without_claim(run), WRITTEN)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 12
    assert sum(bool(re.search(r"\d \[[\d.]+, [\d.]+\]  ", line)) for line in lines) == 4
    assert "last_gain" not in " ".join(lines)


def test_equal_weights_are_said_on_the_terminal_and_the_page(run):
    said = "hold the same weights."
    assert not any(said in line for line in doubts(run))
    same = replace(run.verdict.identification, same_weights=True)
    equal = replace(run, verdict=replace(run.verdict, identification=same))
    assert f"Both models {said}" in doubts(equal)
