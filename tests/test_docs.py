"""The documentation tells the truth: its examples run, and nothing public goes without a word."""

import ast
import doctest
import inspect
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from planting.runs import planted_run, write_files
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

import gainlens
from gainlens import figures
from gainlens.cli.commands import gainlens_command
from gainlens.core.glossary import DEFINITIONS, GLOSSARY
from gainlens.records import comparison as records

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in (ROOT / "README.md", *DOCS.rglob("*.md"))
    if "```python" in path.read_text("utf-8")
)
PUBLIC = {f"gainlens.{name}": getattr(gainlens, name) for name in gainlens.__all__} | {
    f"gainlens.figures.{name}": getattr(figures, name) for name in figures.__all__
}
FUNCTIONS = {name: public for name, public in PUBLIC.items() if inspect.isfunction(public)}
COMMON = {"ax", "reports"}
"""Parameters that the package's docstring explains for all figures."""
UNITS = ("nats", "ratio", "norm", "cos", "share", "singular", "gain", "tokens", "weight", "theta")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A working directory in which runs/twins is a finished run."""
    folder = tmp_path_factory.mktemp("docs")
    run, planted = folder / "runs" / "twins", planted_run()
    write_files(run, planted)
    return folder


@pytest.fixture(scope="module")
def one_load() -> Any:
    """Each twin is loaded once: no example leaves anything behind on it."""
    return cache(gainlens.load)


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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_names_every_parameter(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters:
        if not (name.startswith("gainlens.figures.") and parameter in COMMON):
            assert re.search(rf"\b{parameter}\b", text), f"{parameter} goes without a word"


def test_the_figures_common_parameters_are_said_once():
    for parameter in COMMON:
        assert re.search(rf"`{parameter}=?`", figures.__doc__ or "")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_of_arrays_gives_their_unit(name):
    function = FUNCTIONS[name]
    returned = str(inspect.signature(function).return_annotation)
    if "Float64" in returned or returned.endswith(("PromptGains", "Decomposition", "Capture")):
        assert any(unit in (function.__doc__ or "") for unit in UNITS)


def raises_value_error(function: Any) -> bool:
    """Whether its module's own code, from this function on, raises ValueError somewhere."""
    module = inspect.getmodule(inspect.unwrap(function))
    assert module is not None
    tree = ast.parse(inspect.getsource(module))
    bodies = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    seen, todo = set(), [function.__name__]
    while todo:
        name = todo.pop()
        if name in seen or name not in bodies:
            continue
        seen.add(name)
        for node in ast.walk(bodies[name]):
            if isinstance(node, ast.Raise) and "ValueError" in ast.unparse(node):
                return True
            if isinstance(node, ast.Name):
                todo.append(node.id)
    return False


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_says_when_value_error_is_raised(name):
    if raises_value_error(FUNCTIONS[name]):
        assert "ValueError" in (FUNCTIONS[name].__doc__ or "")


def test_the_search_for_raises_finds_direct_and_passed_on_ones_and_no_others():
    assert raises_value_error(gainlens.decompose)
    assert raises_value_error(gainlens.load_prompts)  # through _read_file
    assert not raises_value_error(gainlens.cosines)


def record_fields() -> list[tuple[str, str, bool]]:
    """Fields of the records that hold numbers: class, field, and whether a docstring follows."""
    found = []
    for node in ast.parse(inspect.getsource(records)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and re.search(
                r"float|Float64|Int64|Bool\[|Interval", ast.unparse(field.annotation)
            ):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                found.append((node.name, ast.unparse(field.target), said))
    return found


@pytest.mark.parametrize(("record", "field", "said"), record_fields())
def test_a_number_in_a_record_is_defined(record, field, said):
    assert said or field in DEFINITIONS, f"{record}.{field} has neither docstring nor definition"


def test_every_public_name_has_its_place_in_the_api():
    text = "\n".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    placed = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    assert sorted(name for name in placed if name != "gainlens.records") == sorted(PUBLIC)


def test_every_term_of_the_glossary_is_explained_in_the_method():
    method = [path.read_text("utf-8") for path in (DOCS / "method").glob("*.md")]
    asked = re.findall(r"^\{\{ terms: (.+) \}\}$", "\n".join(method), flags=re.MULTILINE)
    explained = {name for names in asked for name in names.split()}
    assert explained <= set(DEFINITIONS)
    assert not set(GLOSSARY) - explained - PLACES


PLACES = {"layer", "rank"}
"""Axes: what they count is said with what stands along them."""
