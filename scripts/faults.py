"""Writes docs/faults.md, the table of faults and what happens then, from the tests' marks:

python scripts/faults.py
"""

import ast
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/faults.md"
HEAD = """# Faults, and what happens then

What could turn a broken input into a plausible number, and what gainlens does instead.  Every row
is a test that is marked with it (`@pytest.mark.fault`), and this page is made from the marks by
`python scripts/faults.py`; a test checks that it is up to date.  Where the command meets such a
fault it prints the sentence on one line, exits with status 2 and leaves nothing behind.
"""
FUZZED = """`python scripts/fuzz.py` fed the readers {total:,} inputs; each was taken, or refused in
one sentence of gainlens' own.  (Taken and refused are counted in steps of 500.)

| reader | inputs | taken | refused |
| --- | --- | --- | --- |
"""


def marks(path: Path) -> list[tuple[str, str, str]]:
    """(what goes wrong, what happens, test) of every mark in a test file, in its order."""
    found: list[tuple[str, str, str]] = []
    for node in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in (each for line in node.decorator_list for each in ast.walk(line)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in (
                "fault",
                "pytest.mark.fault",
            ):
                wrong, happens = (ast.literal_eval(argument) for argument in call.args)
                found.append((wrong, happens, node.name))
    return found


def page() -> str:
    """The whole page: a table a test file, and what fuzzing has fed the readers."""
    parts = [HEAD]
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        rows = "".join(
            f"| {wrong} | {happens} | `{test}` |\n" for wrong, happens, test in marks(path)
        )
        if rows:
            parts.append(
                f"\n## tests/{path.name}\n\n"
                f"| what goes wrong | what happens | test |\n| --- | --- | --- |\n{rows}"
            )
    return "".join([*parts, _fuzzed()])


def _fuzzed() -> str:
    counts = json.loads((ROOT / "scripts/fuzz.json").read_text("utf-8"))
    rows = "".join(
        f"| {name} | {found['inputs']:,} | {found['taken']:,} | {found['refused']:,} |\n"
        for name, found in counts.items()
    )
    total = sum(found["inputs"] for found in counts.values())
    return f"\n## Made-up input\n\n{FUZZED.format(total=total)}{rows}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
