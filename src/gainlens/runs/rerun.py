"""Run a finished comparison again and list every number that differs."""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gainlens.core.spec import ComparisonSpec
from gainlens.prompts.texts import load_prompts
from gainlens.records.comparison import Comparison
from gainlens.report.progress import ProgressWatch
from gainlens.results.reading import read_run
from gainlens.results.result_json import result_json
from gainlens.results.run_folder import RESULT, current, run_folder
from gainlens.runs.pipeline import compare
from gainlens.runs.resume import Partials
from gainlens.runs.writing import write_run

TIMING: Final = ("date", "seconds")
"""Keys of result.json that no rerun repeats."""


@dataclass(frozen=True)
class Difference:
    """Name one value of result.json that differs."""

    place: str
    """as in models["short"].layers[3].gain"""
    before: Any
    after: Any
    relative: float | None
    """|after - before| / max(|before|, |after|); None if they are not both numbers"""


@dataclass(frozen=True)
class Rerun:
    """Hold a run and its repetition."""

    before: Comparison
    after: Comparison
    written: tuple[Path, ...]
    differences: tuple[Difference, ...]
    """empty if result.json is the same to the bit, date and timing aside"""
    caveats: tuple[str, ...]
    """what was not the same to begin with: versions, hardware, weights"""

    @property
    def same(self) -> bool:
        """Return whether every number is equal to the bit."""
        return not self.differences

    @property
    def largest(self) -> float:
        """Return the largest relative difference of a number; 0 if none differs."""
        return max((each.relative or 0.0 for each in self.differences), default=0.0)


def rerun(
    folder: str | Path,
    out: str | Path,
    watch: ProgressWatch | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Rerun:
    """Compare again under the spec of a run folder, into another folder, and say what differs.

    watch, tell: as for `compare` and `Partials`.
    Raises ValueError, in one sentence, if the folder holds no run, if `out` is the same folder, if
    the prompts changed since the run, and for what `compare` refuses.
    """
    folder, out = Path(folder), Path(out)
    before = read_run(folder)
    document = json.loads(current(folder, RESULT).read_bytes())
    if out.resolve() == folder.resolve():
        raise ValueError(
            f"a rerun into {out} would replace the run that it is compared with: give --out "
            "another folder"
        )
    _check_prompts(before)
    with run_folder(out), Partials(out, before.spec, tell) as keep:
        after = replace(compare(before.spec, watch, keep), command=before.command)
        written = write_run(out, out / "figures", after)
    found = json.loads(json.dumps(result_json(after)))
    return Rerun(
        before=before,
        after=after,
        written=tuple(written),
        differences=differences(document, found),
        caveats=tuple(_caveats(document, found)),
    )


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return where two result.json differ, apart from date and timing."""
    old, new = ({k: v for k, v in each.items() if k not in TIMING} for each in (before, after))
    return tuple(_differences(old, new, ""))


def _differences(before: Any, after: Any, place: str) -> Generator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            there = f"{place}.{key}" if key.isidentifier() else f"{place}[{json.dumps(key)}]"
            yield from _differences(before.get(key), after.get(key), there.lstrip("."))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(old, new, f"{place}[{index}]")
    elif type(before) is not type(after) or before != after:
        yield Difference(place, before, after, _relative(before, after))


def _relative(before: Any, after: Any) -> float | None:
    if not all(isinstance(each, int | float) for each in (before, after)):
        return None
    size = max(abs(before), abs(after))
    return abs(after - before) / size if size else 0.0


def _check_prompts(run: Comparison) -> None:
    """Raise ValueError if the prompts changed since the run."""
    spec: ComparisonSpec = run.spec
    now = load_prompts(spec.prompts, spec.long_prompts).sha256
    then = run.reports[0].prompts.sha256
    if now != then:
        raise ValueError(
            f"the prompts {spec.prompts!r} are no longer those of the run (sha256 {now[:12]}, then "
            f"{then[:12]}): give them back their texts, or compare anew"
        )


def _caveats(before: Mapping[str, Any], after: Mapping[str, Any]) -> Generator[str]:
    old = before["environment"] | {"gainlens": before["gainlens"]["version"]}
    new = after["environment"] | {"gainlens": after["gainlens"]["version"]}
    for name in sorted(old | new):
        if old.get(name) != new.get(name):
            yield f"{name} was {old.get(name)}, is {new.get(name)}"
    for key, model in before["models"].items():
        then, now = model["checkpoint"], after["models"][key]["checkpoint"]
        for what, name in (("commit", "revision"), ("weights", "weights")):
            if then.get(name) != now.get(name):
                yield f"{what} of {key}: was {then.get(name)}, is {now.get(name)}"
