"""Writes docs/supply.md, the licences of all that `pip install -c constraints.txt .` brings:

python scripts/supply.py
"""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).parents[1] / "docs/supply.md"
HEAD = """# What gainlens brings with it

Everything that `pip install -c constraints.txt .` installs, from the metadata of the installed
packages (`python scripts/supply.py`).  Known faults of these versions are asked for with
`pip-audit -r constraints.txt`, which needs the network; this page was written without it.

| package | version | licence | needed by |
| --- | --- | --- | --- |
"""
KNOWN = {
    "Apache": "Apache-2.0",
    "MIT-CMU": "MIT-CMU",
    "MIT": "MIT",
    "BSD": "BSD",
    "Mozilla": "MPL-2.0",
    "MPL": "MPL-2.0",
    "Python Software Foundation": "PSF-2.0",
    "PSF": "PSF-2.0",
    "ISC": "ISC",
}
"""A word of a licence's name -> the licence."""


def dependencies() -> list[tuple[str, str, str, str]]:
    """(name, version, licence, needed by) of gainlens' dependencies and theirs, by name."""
    found: dict[str, tuple[str, str, str, str]] = {}
    open_ends = [("gainlens", name) for name in _requirements("gainlens")]
    while open_ends:
        by, name = open_ends.pop(0)
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        found[name] = (name, package.version.split("+")[0], _licence(name), by)
        open_ends += [(name, each) for each in _requirements(name)]
    return sorted(found.values())


def _requirements(name: str) -> Iterator[str]:
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield re.sub(r"[-_.]+", "-", requirement.name).lower()


def _licence(name: str) -> str:
    """An SPDX expression where the metadata have one, else the licence that their words name."""
    metadata = distribution(name).metadata
    expression = metadata.get("License-Expression")
    if expression:
        return expression
    classified = [line for line in metadata.get_all("Classifier") or [] if "License ::" in line]
    told = " ".join([*classified, (metadata.get("License") or "").split("\n")[0]])
    return next((licence for word, licence in KNOWN.items() if word in told), "not stated")


if __name__ == "__main__":
    rows = "".join(f"| {' | '.join(row)} |\n" for row in dependencies())
    PAGE.write_text(HEAD + rows, "utf-8")
