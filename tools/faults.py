"""Write docs/faults.md, the table of faults and of what happens then, from the tests' marks.

python tools/faults.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/faults.md"
HEAD = """# Faults, and what happens then

Each row names an input that could become a plausible but wrong number, and what gainlens does
instead.  Each row is a test marked with `@pytest.mark.fault`.  `python tools/faults.py` writes this
page from the marks, and a test checks that it is up to date.  If the command meets such a fault, it
prints one line, exits with status 2 and leaves nothing behind.
"""


def marks(path: Path) -> list[tuple[str, str, str]]:
    """Return (what goes wrong, what happens, test) for every mark in a test file, in order."""
    rows: list[tuple[str, str, str]] = []
    for node in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in (part for line in node.decorator_list for part in ast.walk(line)):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("fault"):
                wrong, happens = (ast.literal_eval(argument) for argument in call.args)
                rows.append((wrong, happens, node.name))
    return rows


def page() -> str:
    """Return the whole page, one table per test file."""
    parts = [HEAD]
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        rows = "".join(
            f"| {wrong} | {happens} | `{test}` |\n" for wrong, happens, test in marks(path)
        )
        if rows:
            parts.append(
                f"\n## {path.relative_to(ROOT)}\n\n"
                f"| what goes wrong | what happens | test |\n| --- | --- | --- |\n{rows}"
            )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
