"""What the package may not do: unpickle, evaluate, start a shell, or give a token away."""

import ast
import runpy
from pathlib import Path

import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.cli.compare import compare_command, run

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "gainlens").rglob("*.py"))
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "shelve",
    "marshal",
    "subprocess",
    "pty",
    "ctypes",
}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp",
    "os.spawnv", "torch.load", "numpy.load", "np.load", "joblib.load", "yaml.load",
    "pd.read_pickle", "pandas.read_pickle", "input",
}  # fmt: skip
SECRET = "hf_QuiteSecretTokenOfNobody0123456789"


def offences(source: str) -> list[str]:
    """Forbidden imports, calls and arguments of a module."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] * (called in FORBIDDEN_CALLS)
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                if keyword.arg in ("shell", "allow_pickle") and value != "False":
                    found.append(f"{keyword.arg}={value}")
            continue
        else:
            continue
        found += [name for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
    return found


@pytest.mark.fault("code in data: pickle, eval, exec, a shell", "nowhere in the package")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_source_unpickles_evaluates_or_starts_a_shell(path):
    assert offences(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from subprocess import run",
        "eval('1')",
        "import torch\ntorch.load('x')",
        "np.load(p, allow_pickle=True)",
        "run('ls', shell=True)",
        "os.system('ls')",
    ],
)
def test_what_is_forbidden_is_found(source):
    assert offences(source)


def test_weights_are_asked_for_as_safetensors_wherever_they_are_read():
    """use_safetensors=True stands beside every from_pretrained of a model."""
    calls = [
        node
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(".from_pretrained")
        and not ast.unparse(node.func).startswith(("AutoConfig", "AutoTokenizer"))
    ]
    assert calls
    for call in calls:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("use_safetensors") == "True", ast.unparse(call)


@pytest.mark.fault("a token for the hub in the environment", "in no output, page or result")
def test_a_token_is_in_nothing_that_is_printed_or_written(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", SECRET)
    short = planted_checkpoint(tmp_path / "short", 1.25)
    long = planted_checkpoint(tmp_path / "long", 0.6, theta=5e5, context=256)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    out = tmp_path / "out"
    models = ["--short", str(short.folder), "--long", str(long.folder)]
    flags = ["--prompts", str(prompts), "--no-interventions", "--out", str(out)]
    assert run(compare_command, [*models, *flags]) == 0
    refused = ["--short", "nobody/nothing-of-the-kind", "--long", str(long.folder)]
    assert run(compare_command, [*refused, *flags]) == 2
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {"result.json", "report.html"} <= {path.name for path in written}
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_every_dependency_has_a_licence_that_lets_it_be_used():
    rows = runpy.run_path(str(ROOT / "scripts" / "supply.py"))["dependencies"]()
    names = {name for name, *_ in rows}
    assert {"torch", "transformers", "transformer-lens", "numpy"} <= names
    for name, _, licence, _ in rows:
        assert licence.startswith(("MIT", "BSD", "Apache", "MPL", "PSF", "ISC", "HPND")), name


def test_the_listing_names_what_the_constraints_pin():
    page = (ROOT / "docs" / "supply.md").read_text("utf-8")
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-"): line.split("==")[1] for line in pins
              if "==" in line}  # fmt: skip
    listed = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(listed) > 20
    for name, version, *_ in listed:
        if name != "| setuptools":  # comes with Python's own venv
            assert pinned[name.removeprefix("| ")] == version
