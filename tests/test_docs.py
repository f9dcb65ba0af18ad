"""Check that the documentation's examples run and that its written regions are up to date."""

import doctest
import inspect
import json
import re
import runpy
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from planting.planted_blocks import planted_checkpoint
from planting.runs import planted_run, write_files
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

import gainlens
from gainlens import figures
from gainlens.cli.commands import gainlens_command
from gainlens.cli.compare import run as command
from gainlens.cli.measure import measure_command

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in (ROOT / "README.md", *DOCS.rglob("*.md"))
    if "```python" in path.read_text("utf-8")
)
PUBLIC = {
    f"gainlens.{name}": getattr(gainlens, name) for name in gainlens.__all__ if name != "figures"
} | {f"gainlens.figures.{name}": getattr(figures, name) for name in figures.__all__}

STEPS = (1000, 2000, 4000, 8000, 16000)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A working directory with a finished run, runs/twins, and five checkpoints, run/step*."""
    folder = tmp_path_factory.mktemp("docs")
    for place, step in enumerate(STEPS):
        planted_checkpoint(folder / "run" / f"step{step}", 0.8 + 0.1 * place)
    run, planted = folder / "runs" / "twins", planted_run()
    write_files(run, planted)
    return folder


@pytest.fixture(scope="module")
def one_load() -> Any:
    """Each twin is loaded once: no example leaves anything behind on it."""
    return cache(gainlens.load)


@pytest.fixture(autouse=True)
def registry_as_before():
    """Forget the metrics that an example registers: their functions lose their globals."""
    from gainlens.metrics.registry import METRICS

    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


@pytest.fixture
def examples(run_folder, one_load, monkeypatch):
    """Runs a page's Python from top to bottom in one namespace, which it returns."""
    monkeypatch.chdir(run_folder)
    monkeypatch.setattr(gainlens, "load", one_load, raising=False)

    def run(page: Path) -> dict[str, Any]:
        document = Document.parse(str(page), PythonCodeBlockParser())
        found = list(document.examples())
        for example in found:
            example.evaluate()
        assert len(found) == page.read_text("utf-8").count("```python"), "a block was not seen"
        return document.namespace

    return run


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_python_runs(page, examples):
    examples(page)


def shell_commands() -> list[str]:
    """Every call of gainlens in a shell block, `$n` of a loop filled in."""
    blocks = [
        block
        for page in sorted(DOCS.rglob("*.md"))
        for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    ]
    lines = [line.strip().replace("$n", "64") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("gainlens ")]


@pytest.mark.parametrize("line", shell_commands())
def test_a_command_is_one_that_there_is(line):
    """Parsed, not run; a flag or word that does not exist is an error of click's."""
    name, *rest = shlex.split(line)[1:]
    context = gainlens_command.make_context("gainlens", [name])
    found, command, _ = gainlens_command.resolve_command(context, [name])
    assert command is not None
    command.make_context(found, rest, parent=context)


@pytest.mark.slow
def test_the_command_of_a_series_runs(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder)
    (line,) = [line for line in shell_commands() if "--series run/" in line]
    assert command(measure_command, [*shlex.split(line)[2:], "--quiet", "--out", "series"]) == 0
    document = json.loads((run_folder / "series" / "result.json").read_bytes())
    assert [model["step"] for model in document["models"].values()] == list(STEPS)


@pytest.mark.slow
def test_the_docstrings_examples_run(examples):
    """In the namespace that the API's first page sets up, as it says."""
    namespace = examples(DOCS / "api" / "index.md")
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    shown = []
    for name, public in PUBLIC.items():
        for test in finder.find(public, name, module=False, globs=dict(namespace)):
            if runner.run(test).attempted:
                shown.append(name)
    assert runner.failures == 0
    assert len(shown) >= 20, f"only {shown} have an example"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_has_a_docstring_of_its_own(name):
    public = PUBLIC[name]
    text = vars(public).get("__doc__") if inspect.isclass(public) else public.__doc__
    assert text
    assert not text.startswith(f"{public.__name__}("), "dataclass wrote this one"


def test_every_public_name_has_its_place_in_the_api():
    text = "\n".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    placed = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    assert sorted(name for name in placed if not name.startswith("gainlens.records")) == sorted(
        PUBLIC
    )


def test_the_written_out_regions_are_up_to_date():
    tool = runpy.run_path(str(ROOT / "tools" / "docs.py"))
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text("utf-8")
        assert tool["written"](text) == text, f"{page.name}: run python tools/docs.py"
