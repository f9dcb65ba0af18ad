"""Change the code in small ways and list the changes that no test notices (mutation testing).

    pip install -c constraints.txt -e ".[test]" mutmut==3.8.1
    nice -n 15 python tools/mutants.py metrics/splits claims/intervals weights/unembed

Each argument is a module of src/gainlens without its ending.  The tests of its room
(tests/<room>/) must notice the mutants.  mutmut forks every mutant from a process that has torch
imported already, which takes 0.2 s per mutant instead of 4 s.  Run-time type checks are off, so
that only numbers can tell.  Prints the counts and every mutant that survived.  Read each of them:
either write the test that notices it, or be sure that it changes nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SURVIVED = ("survived", "suspicious", "no tests")
CONFIGURATION = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/gainlens/{module}.py"]
pytest_add_cli_args_test_selection = ["tests/{room}"]
pytest_add_cli_args = ["-x", "-p", "no:cacheprovider", "-o", "addopts=-q --import-mode=importlib"]
use_git_change_detection = false
timeout_multiplier = 10.0
timeout_constant = 20.0
"""


def report_mutants(module: str) -> None:
    """Mutate one module in a copy of the tree and print what its tests did not notice."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copy = Path(scratch)
        for part in ("src", "tests", "scripts", "tools"):
            shutil.copytree(ROOT / part, copy / part)
        for name in ("README.md", "constraints.txt"):
            shutil.copy(ROOT / name, copy)
        settings = CONFIGURATION.format(module=module, room=module.split("/")[0])
        pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
        (copy / "pyproject.toml").write_text(pyproject + settings, "utf-8")
        run_mutmut(copy, "run", "--max-children", "1")
        lines = run_mutmut(copy, "results", "--all", "true").splitlines()
        status = dict(line.strip().split(": ") for line in lines if ": " in line)
        print(module, dict(Counter(status.values())))
        for mutant, outcome in status.items():
            if outcome in SURVIVED:
                print(run_mutmut(copy, "show", mutant))


def run_mutmut(folder: Path, *arguments: str) -> str:
    """Return what `mutmut ARGUMENTS` prints in a folder; exit with its output if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"mutmut {arguments[0]} failed:\n{done.stdout}{done.stderr}"[-6000:])
    return done.stdout


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        if not (ROOT / "src/gainlens" / f"{wanted}.py").is_file():
            raise SystemExit(f"src/gainlens/{wanted}.py does not exist; give ROOM/MODULE")
        report_mutants(wanted)
