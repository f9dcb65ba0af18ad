"""docs/models.md says of each class what happens to it; a few are tried again."""

import runpy
from pathlib import Path

import pytest
from planting.checkpoints import HOOKED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows():
    lines = (ROOT / "docs/models.md").read_text("utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {name: found for name, *found in cells[2:]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "OPTForCausalLM", "MambaForCausalLM"])
def test_the_page_says_what_happens(rows, name):
    got = runpy.run_path(str(ROOT / "tools/models.py"))["row"](name)
    count = 3 if HOOKED else 1  # the page is of TransformerLens 3
    assert [kind_of(cell) for cell in got[:count]] == [kind_of(cell) for cell in rows[name][:count]]


def kind_of(cell: str) -> str:
    """Return the kind of a cell: what it measures to 1e-5, or the first words of a refusal."""
    what, _, error = cell.partition(", ")
    if what != "measured":
        return cell[:30]
    return "measured" if float(error) < 1e-5 else cell


def test_no_class_ends_in_a_traceback(rows):
    assert len(rows) > 60
    assert not [name for name, cells in rows.items() if any("TRACEBACK" in each for each in cells)]
