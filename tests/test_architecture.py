"""torch ends at one door, and the shipped metadata tells the truth."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


def test_public_names_resolve_and_no_module_bears_one():
    import gainlens

    modules = {path.stem for path in (ROOT / "src" / "gainlens").glob("*.py")}
    for name in gainlens.__all__:
        assert getattr(gainlens, name).__name__ == name
        assert name not in modules


def test_an_unknown_public_name_is_an_attribute_error():
    import gainlens

    with pytest.raises(AttributeError, match="nonesuch"):
        gainlens.nonesuch  # noqa: B018


def test_the_readme_has_the_two_set_up_commands():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "scripts/compare.py" in commands[0]
    assert "pytest" in commands[1]


def test_the_constraints_pin_what_pyproject_asks_for():
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    wanted = PYPROJECT["project"]["dependencies"]
    wanted += PYPROJECT["project"]["optional-dependencies"]["test"]
    names = {requirement.split(">")[0].split("[")[0].strip() for requirement in wanted}
    assert names <= pinned


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
