"""Mutation testing of the numerical core: which wrong formulas would the tests let through?

    pip install -c constraints.txt -e ".[test]" mutmut==3.8.1
    nice -n 15 python scripts/mutants.py            # all modules, 15 minutes on an idle core
    nice -n 15 python scripts/mutants.py gain rope  # some of them; the others' results are kept
    python scripts/mutants.py page                  # none: the page alone, under other reasons

mutmut, because it forks each mutant from a process that has torch and the tests imported: 0.2 s a
mutant, where a fresh process a mutant takes 4 s.  It mutates the bodies of functions, not the
constants of a module.  Every module is mutated in a copy of the tree, against the tests of that
module alone, and with the run-time checks of types off: numbers must tell.  Writes
scripts/mutants.json (counts and survivors) and docs/mutants.md, where each survivor stands with the
reason that scripts/mutants.toml gives for letting it live.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, REASONS, PAGE = (
    ROOT / name for name in ("scripts/mutants.json", "scripts/mutants.toml", "docs/mutants.md")
)
TESTS = {
    "gain": ["test_gain.py"],
    "stats": ["test_stats.py"],
    "verdict": ["test_verdict.py", "test_causes.py"],
    "outcomes": ["test_verdict.py"],
    "unembed": ["test_unembed.py"],
    "rope": ["test_rope.py"],
    "rope_frequencies": ["test_rope.py"],
}
"""Module -> the test files that must kill its mutants."""
LIVE = ("survived", "suspicious", "no tests")
NOT_LOOKED_AT = "not looked at"
CONFIGURATION = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/gainlens/{module}.py"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-x", "-p", "no:cacheprovider", "-o", "addopts=-q"]
use_git_change_detection = false
timeout_multiplier = 10.0
timeout_constant = 20.0
"""


def measure(module: str) -> dict[str, Any]:
    """Counts by mutmut's status, and every mutant that no test noticed."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        folder = Path(scratch)
        for part in ("src", "tests", "scripts"):
            shutil.copytree(ROOT / part, folder / part)
        for name in ("README.md", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        configuration = CONFIGURATION.format(
            module=module, tests=[f"tests/{name}" for name in TESTS[module]]
        )
        (folder / "pyproject.toml").write_text(
            (ROOT / "pyproject.toml").read_text("utf-8") + configuration, "utf-8"
        )
        _mutmut(folder, "run", "--max-children", "1")
        lines = _mutmut(folder, "results", "--all", "true").splitlines()
        status = dict(line.strip().split(": ") for line in lines if ": " in line)
        source = (ROOT / "src/gainlens" / f"{module}.py").read_text("utf-8")
        survivors = [
            _survivor(source, name, _mutmut(folder, "show", name))
            for name in status
            if status[name] in LIVE
        ]
    counts = dict(Counter(status.values()))
    return {"counts": counts, "survivors": survivors}


def _mutmut(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(
            f"mutmut {arguments[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


def _survivor(source: str, name: str, shown: str) -> dict[str, Any]:
    """Where a mutant stands: function, line of the source, and the line before and after."""
    function = re.sub(r"__mutmut_\d+$", "", name.split(".")[-1]).removeprefix("x_")
    changed = {sign: _changed(shown, sign) for sign in "-+"}
    return {
        "function": function,
        "line": _line_of(source, function, changed["-"]),
        "was": changed["-"],
        "now": changed["+"],
    }


def _changed(shown: str, sign: str) -> str:
    lines = [line for line in shown.splitlines() if line.startswith(sign) and line[:3] != 3 * sign]
    return lines[0][1:].strip() if lines else ""


def _line_of(source: str, function: str, text: str) -> int:
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                if lines[number - 1].strip() == text:
                    return number
    return 0


def page(results: dict[str, Any], reasons: list[dict[str, str]]) -> str:
    """The table of modules, and every survivor with its reason."""
    rows, parts = [], []
    for module in TESTS:
        found = results[module]
        survivors = found["survivors"]
        total = sum(found["counts"].values())
        rows.append((module, total, total - len(survivors), len(survivors)))
        told: dict[str, list[str]] = {}
        for survivor in survivors:
            line = f"    {survivor['line']}: {survivor['was']}\n        -> {survivor['now']}"
            told.setdefault(reason_of(module, survivor, reasons), []).append(line)
        parts.append(f"\n## {module}\n")
        parts += [
            f"\n{why} ({len(lines)}):\n\n" + "\n".join(lines) + "\n"
            for why, lines in sorted(told.items())
        ]
    rows.append(("together", *(sum(row[i] for row in rows) for i in (1, 2, 3))))
    table = "\n".join(
        f"| {module} | {total:,} | {killed:,} | {alive} | {killed / total:.1%} |"
        for module, total, killed, alive in rows
    )
    head = (
        "# Mutants of the numerical core\n\nWritten by `python scripts/mutants.py`; its head says "
        "how.  A mutant that runs into the timeout counts as killed.\n\n"
        "| module | mutants | killed | survived | killed |\n| --- | --- | --- | --- | --- |\n"
    )
    return f"{head}{table}\n" + "".join(parts)


def reason_of(module: str, survivor: dict[str, Any], reasons: list[dict[str, str]]) -> str:
    """The first reason whose patterns fit the survivor's old and new line."""
    for reason in reasons:
        if reason.get("module", module) == module and all(
            re.search(reason[side], survivor[side]) for side in ("was", "now") if side in reason
        ):
            return reason["why"]
    return NOT_LOOKED_AT


def main(modules: list[str]) -> None:
    unknown = set(modules) - {*TESTS, "page"}
    if unknown:
        raise SystemExit(
            f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(TESTS)}"
        )
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    for module in [name for name in modules if name != "page"] if modules else TESTS:
        print(module, flush=True)
        results[module] = measure(module)
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if set(TESTS) <= set(results):
        reasons = tomllib.loads(REASONS.read_text("utf-8"))["reason"]
        PAGE.write_text(page(results, reasons), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
