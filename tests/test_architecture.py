"""Check the house: folders, the import contract, the ban on torch, and the shipped metadata."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gainlens"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TORCH_FREE = next(
    contract["source_modules"]
    for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
    if contract["type"] == "forbidden"
)

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "transformer_lens"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
"""


def test_what_comes_after_capture_runs_where_torch_cannot_be_imported():
    imports = "\n".join(f"import {module}" for module in TORCH_FREE)
    subprocess.run([sys.executable, "-c", f"{BLOCK}{imports}"], check=True)


def test_blocking_torch_is_a_real_block():
    code = f"{BLOCK}import gainlens.activations.gram"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "torch" in done.stderr


def test_the_import_contract_covers_every_folder_in_ten_rows():
    layers = next(
        contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )  # fmt: skip
    rows = [row.split(" | ") for row in layers["layers"]]
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert len(rows) <= 10
    assert layers["exhaustive"]
    assert {name for row in rows for name in row} == folders
    assert not [path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]


def test_tests_mirror_the_package_and_import_no_other_test():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        room = path.parent.name
        assert room in folders | {"tests", "scripts", "tools"}, f"{path} belongs to no folder"
        imported = re.findall(r"^ *(?:from|import) +(\S+)", path.read_text("utf-8"), re.MULTILINE)
        assert not [name for name in imported if name.split(".")[-1].startswith("test_")], path


OPENERS = ("What ", "Whether ", "Where ", "Whoever ", "Of ", "Those ", "Both ", "TODO")
"""Words that open a clause; a docstring opens with a verb."""


def test_docstrings_open_with_a_verb():
    wrong = [
        f"{path.relative_to(ROOT)}: {(ast.get_docstring(node) or '')[:60]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and (ast.get_docstring(node) or "").startswith(OPENERS)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_cites_a_file_that_the_repository_does_not_hold():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        assert not re.search(r"DESIGN|HOUSE\.md|REVIEW\.md", path.read_text("utf-8")), path


def test_an_unknown_public_name_is_an_attribute_error():
    import gainlens

    with pytest.raises(AttributeError, match="nonesuch"):
        gainlens.nonesuch  # noqa: B018


def test_the_constraints_pin_what_pyproject_asks_for():
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    wanted = PYPROJECT["project"]["dependencies"]
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted += [*extras["test"], *extras["gguf"], *extras["peft"]]
    names = {requirement.split(">")[0].split("[")[0].strip() for requirement in wanted}
    assert names - {"gainlens"} <= pinned


def test_shapes_and_dtypes_are_checked_while_tests_run():
    """By jaxtyping and beartype, from pyproject's addopts; in use nothing is checked."""
    import numpy as np
    from beartype.roar import BeartypeException
    from jaxtyping import TypeCheckError

    from gainlens.metrics.splits import log_mean

    with pytest.raises((BeartypeException, TypeCheckError)):
        log_mean(np.ones(3, dtype=np.float32), np.ones(3, dtype=np.float32))
    with pytest.raises((BeartypeException, TypeCheckError)):
        log_mean(np.ones(3), np.ones(4))
