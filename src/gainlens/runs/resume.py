"""Keep finished models, so that an interrupted comparison continues where it was.

Each finished model is kept in DIR/.partial/<fingerprint>: its report as JSON, its capture as the
tables of a run folder.  The fingerprint covers everything that the numbers depend on; a model with
another fingerprint is ignored.  Every model of a comparison goes through these files, so that an
interruption cannot change a number.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

from gainlens.core.spec import ComparisonSpec, ModelSpec
from gainlens.models.config import parallel_blocks
from gainlens.models.hub import read_config
from gainlens.models.processes import world
from gainlens.models.sources import resolve
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport
from gainlens.records.inputs import EncodedPrompts
from gainlens.results.lazy import Held
from gainlens.results.parquet import HEADS, TOKENS, TokenTable, write_heads
from gainlens.results.parquet_reading import Shape, TableFile, read_capture
from gainlens.results.values import from_json, to_json
from gainlens.runs.environment import environment
from gainlens.runs.measured import Measured

PARTIAL: Final = ".partial"
_REPORT, _SUMS, _NEW = "report.json", "sums.json", "new"
_INPUTS: Final = {".json", ".safetensors", ".model", ".txt", ".py", ".jinja", ".tiktoken"}
"""Files of a model directory that its numbers depend on."""


class Partials:
    """Keep the finished models of one comparison in its run folder.

    A context manager.  On success it deletes everything it kept.  On a user's mistake it deletes
    what this run added.  On an interruption or a fault of the disk or the network it keeps
    everything.
    """

    def __init__(self, folder: Path, spec: ComparisonSpec, tell: Callable[[str], None]) -> None:
        """tell: called with a sentence for the user."""
        self._folder = folder / PARTIAL
        self._spec = spec
        self._tell = tell
        self._expected: dict[str, str] = {}
        """fingerprints before the measurement, by model key"""
        self._added: list[Path] = []
        self._readers: dict[str, Callable[[], Capture]] = {}

    def __enter__(self) -> "Partials":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif isinstance(error, ValueError) and not _is_fault(error):
            for place in self._added:
                shutil.rmtree(place)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()
        elif self._folder.is_dir() and isinstance(error, KeyboardInterrupt):
            self._tell("finished models are kept: the same command goes on from there")

    def fingerprint(self, model: ModelSpec, prompts: EncodedPrompts) -> str:
        """Return the hash of everything that one model's measurement depends on.

        The whole spec and the files of every model count, because what is measured on one model
        (under another model's theta, for example) can depend on the others.
        """
        spec = self._spec
        return _sha256(
            json.dumps(
                {
                    "model": model.key,
                    "spec": spec.model_dump(exclude={"name"}),
                    "prompts": to_json(prompts),
                    "models": [weights_stamp(each.hf_name, spec) for each in spec.models],
                    "code": _code_stamp(),
                    "environment": environment(),
                    "processes": world().size,
                },
                sort_keys=True,
            ).encode()
        )

    @property
    def captures(self) -> Mapping[str, Capture]:
        """Return the captures by model key, read on first access, even if their files are gone."""
        return Held(self._readers)

    def take(self, model: ModelSpec, prompts: EncodedPrompts) -> ModelReport | None:
        """Return a model's report if this very comparison kept it and it is undamaged."""
        fingerprint = self.fingerprint(model, prompts)
        self._expected[model.key] = fingerprint
        place, name = self._folder / fingerprint, model.label or model.key
        if not place.is_dir():
            return None
        try:
            found = self._read(place, model.key)
        except (ValueError, OSError):
            self._tell(f"damaged: what was kept of {name}; it is measured again")
            shutil.rmtree(place)
            return None
        self._tell(f"resumed: {name}, measured before the interruption")
        return found

    def add(self, model: ModelSpec, prompts: EncodedPrompts, measured: Measured) -> ModelReport:
        """Keep a model that was measured because `take` had nothing; return its report as kept.

        Raises ValueError if a checkpoint's files changed meanwhile, or if nothing can be written.
        """
        fingerprint = self.fingerprint(model, prompts)
        if fingerprint != self._expected[model.key]:
            raise ValueError(
                "a checkpoint's files, or gainlens' own, changed during the measurement, so the "
                f"numbers of {model.hf_name} may be of neither state: wait until they are written, "
                "and compare again"
            )
        place = self._folder / fingerprint
        self._write(place, measured)
        return self._read(place, model.key)

    def _write(self, place: Path, measured: Measured) -> None:
        new = self._folder / _NEW
        shutil.rmtree(new, ignore_errors=True)
        report = to_json(measured.report, finite=False)
        try:
            new.mkdir(parents=True)
            with TokenTable(new / TOKENS) as tokens:
                tokens.add(measured.report, measured.decomposition)
            write_heads(new / HEADS, [(measured.report, measured.decomposition.capture.sink)])
            (new / _REPORT).write_text(json.dumps(report), encoding="utf-8")
            (new / _SUMS).write_text(json.dumps(_sums(new)), encoding="utf-8")
            new.rename(place)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            what = str(error.strerror or error).partition("\n")[0]
            raise ValueError(
                f"cannot write {error.filename or new}: {what}; make room there or give --out "
                "another folder"
            ) from error
        self._added.append(place)

    def _read(self, place: Path, key: str) -> ModelReport:
        """Read a kept model; raise ValueError or OSError if anything differs from before."""
        if json.loads((place / _SUMS).read_bytes()) != _sums(place):
            raise ValueError("damaged")
        document = json.loads((place / _REPORT).read_bytes())
        report = from_json(ModelReport, document, "report")
        shape = Shape(
            blocks=report.checkpoint.num_blocks,
            lengths=tuple(len(tokens) for tokens in report.prompts.tokens),
            prefix=report.prompts.prefix,
            parallel=parallel_blocks(report.checkpoint.config),
        )
        tables = TableFile(place / TOKENS), TableFile(place / HEADS)
        self._readers[key] = partial(read_capture, *tables, key, shape)
        return report


def weights_stamp(hf_name: str, spec: ComparisonSpec) -> Any:
    """Return what changes if a checkpoint does: a commit, or all files' sizes and times.

    ctime is the kernel's own time, so a copy with the old times or a touch does not hide a change.
    """
    source = resolve(hf_name)
    if not Path(source).is_dir():
        config = read_config(source, spec.revision, spec.trust_remote_code)
        return getattr(config, "_commit_hash", None) or str(uuid4())  # unknown: never the same
    stats = {
        path.name: path.stat()
        for path in sorted(Path(source).iterdir())
        if path.suffix in _INPUTS and path.is_file()
    }
    return {
        name: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats.items()
    }


def _code_stamp() -> str:
    """Return the hash of gainlens' code: a version does not tell two checkouts apart."""
    package = Path(__file__).parents[1]
    return _sha256(b"".join(path.read_bytes() for path in sorted(package.rglob("*.py"))))


def _sums(folder: Path) -> dict[str, str]:
    sums: dict[str, str] = {}
    for name in (_REPORT, TOKENS, HEADS):
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_fault(error: BaseException) -> bool:
    """Return whether the disk or the network caused the error."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError):
            return True
        link = link.__cause__
    return False
