"""Reading result files from elsewhere: the notebook's JSON and our own, which is a superset of it.

Such a file is somebody else's word.  Whatever is in it, reading ends in a ResultFile or in one
ValueError that names the place in the document.  Numbers that rescoring.py computes with are
bounded here, so that nothing downstream overflows.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gainlens.core.messages import shown

SCHEMA: Final = 1
"""Newest schema of our own files that this module reads."""
LARGEST_FILE: Final = 32 * 2**20
"""Bytes.  The notebook's file has 7 kB; ours, with four models and their spectra, about 1 MB."""
_SMALLEST, _LARGEST = 1e-30, 1e30
"""Norms outside are no activations; within, every ratio and product of ratios is finite."""
_LONGEST_LABEL: Final = 200
_LONGEST_PLACE: Final = 12


def _bounded(value: float) -> float:
    if value != 0 and value < _SMALLEST:
        raise ValueError(f"should be 0 or at least {_SMALLEST:g}")
    return value


def _label(value: str) -> str:
    if not value.isprintable() or not 0 < len(value) <= _LONGEST_LABEL:
        raise ValueError(f"should be 1 to {_LONGEST_LABEL} printable characters")
    return value


Norm = Annotated[float, Field(allow_inf_nan=False, ge=0, le=_LARGEST), AfterValidator(_bounded)]
Positive = Annotated[float, Field(allow_inf_nan=False, ge=_SMALLEST, le=_LARGEST)]
Stated = Annotated[float, Field(allow_inf_nan=False, ge=0, le=_LARGEST**2)]
Steps = Annotated[list[Stated], Field(fail_fast=True)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Shape = Annotated[list[Count], Field(min_length=2, max_length=2, fail_fast=True)]
Label = Annotated[str, AfterValidator(_label)]


class _Part(BaseModel):
    """Strict about what it reads ("3" and true are no numbers), open to what it does not."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


PartT = TypeVar("PartT", bound=_Part)


class FileResidual(_Part):
    """The notebook's residual half; norms are L2, the last entry after the final norm."""

    norms: Annotated[list[Norm], Field(min_length=2, fail_fast=True)]
    gains: Steps | None = None
    last_gain: Stated | None = None
    cumulative_energy: Stated | None = None
    true_last_gain: Stated | None = None
    """of our own files: mean |y| over mean |x| at the last block"""
    final_norm_gain: Stated | None = None


class FileUnembed(_Part):
    """W_U as the notebook measures it, L2 norms."""

    vocab_size: Count
    hidden_dim: Count
    frobenius_norm: Positive
    spectral_norm: Positive
    mean_row_norm: Norm | None = None
    shape: Shape | None = None


class FileRope(_Part):
    """RoPE from the config."""

    rope_theta: Positive | None = None
    rope_scaling: dict[str, object] | None = None
    max_position: Count | None = None


class FileModel(_Part):
    """One model of a file."""

    residual: FileResidual
    num_layers: Count | None = None
    role: Label | None = None
    hf_name: Label | None = None
    w_u: FileUnembed | None = None
    rope: FileRope | None = None


class FileTest(_Part):
    """The verdict that the file states."""

    verdict: Label | None = None
    theta_ratio: Stated | None = None
    gain_ratio: Stated | None = None
    wu_ratio: Stated | None = None


class _Stamp(_Part):
    schema_number: Annotated[int, Field(ge=1, le=10**6)] = Field(alias="schema")


class _Document(_Part):
    models: dict[str, object]
    hypothesis_test: FileTest | None = None
    gainlens: _Stamp | None = None


class ResultFile(BaseModel):
    """A file that was understood."""

    model_config = ConfigDict(frozen=True)

    name: str
    """path as given, or `the mapping`"""
    ours: bool
    """written by gainlens (it carries a schema), not by the notebook"""
    models: dict[str, FileModel]
    test: FileTest


def read_result(source: Mapping[str, Any] | Path) -> ResultFile:
    """The notebook's JSON or our own result.json, checked.

    Raises ValueError, with one sentence that names the place in the document, for whatever cannot
    be read: no file, too large, not UTF-8, not JSON, a repeated key, NaN or infinity anywhere, a
    missing key, a wrong type, a newer schema.
    """
    if isinstance(source, Mapping):
        name, document = "the mapping", dict(source)
    else:
        name = f"'{shown(str(source), 200)}'"
        document = _parse(name, _read(name, source))
    _refuse_non_finite(name, document)
    head = _validated(name, (), _Document, document)
    if head.gainlens is not None and head.gainlens.schema_number != SCHEMA:
        raise ValueError(
            f"{name} has schema {head.gainlens.schema_number}, this gainlens reads schema "
            f"{SCHEMA}: re-score it with the gainlens that wrote it, or a newer one"
        )
    if not head.models:
        raise ValueError(f"{name} cannot be re-scored: models is empty; it needs at least one")
    models: dict[str, FileModel] = {}
    for key, value in head.models.items():  # one at a time: the first mistake is enough
        try:
            _label(key)
        except ValueError as problem:
            raise ValueError(
                f"{name} cannot be re-scored: the key {_place(('models', key))} {problem}"
            ) from None
        models[key] = _validated(name, ("models", key), FileModel, value)
        _check_lengths(name, key, models[key].residual)
    return ResultFile(
        name=name.strip("'"),
        ours=head.gainlens is not None,
        models=models,
        test=head.hypothesis_test or FileTest(),
    )


def _check_lengths(name: str, key: str, residual: FileResidual) -> None:
    if residual.gains is not None and len(residual.gains) != len(residual.norms) - 1:
        raise ValueError(
            f"{name} cannot be re-scored: {_place(('models', key, 'residual', 'gains'))} has "
            f"{len(residual.gains)} entries for {len(residual.norms)} norms; it needs one fewer "
            "than there are norms"
        )


def _read(name: str, path: Path) -> bytes:
    """The file's bytes; only a regular file, at most LARGEST_FILE."""
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist or is no regular file"
            raise ValueError(
                f"{name} {what}: give the path of a result.json or the notebook's JSON"
            )
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as problem:
        raise ValueError(f"{name} cannot be read: {problem.strerror}") from None
    if len(raw) > LARGEST_FILE:
        raise ValueError(
            f"{name} is larger than {LARGEST_FILE // 2**20} MiB, so it is no result file: "
            "give a result.json or the notebook's JSON"
        )
    return raw


def _parse(name: str, raw: bytes) -> object:
    if not raw.strip():
        raise ValueError(f"{name} is empty: give a result.json or the notebook's JSON")
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as problem:
        raise ValueError(f"{name} is not UTF-8 (byte {problem.start}): save it as UTF-8") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be a result file") from None
    except ValueError as problem:  # not JSON, a repeated key, a number of thousands of digits
        raise ValueError(f"{name} is not JSON: {shown(str(problem), 160)}") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; of a repeated key json would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {json.dumps(shown(twice))} stands twice in one object")
    return found


def _refuse_non_finite(name: str, document: object) -> None:
    """NaN or infinity anywhere (json reads them, and 1e999), without recursion or copies."""
    seen: set[int] = set()
    stack: list[tuple[object, Any]] = [(document, None)]  # a value, and its (key, parent) chain
    while stack:
        value, chain = stack.pop()
        if isinstance(value, float) and not math.isfinite(value):
            keys: list[Any] = []
            while chain is not None:
                key, chain = chain
                keys.append(key)
            raise ValueError(
                f"{name} cannot be re-scored: {_place(tuple(reversed(keys)))} is {value}, "
                "which is neither JSON nor a number: write null where a number is not known"
            )
        if isinstance(value, dict | list) and id(value) not in seen:  # a mapping may hold itself
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in cast("Any", items):
                if isinstance(item, float | dict | list):
                    stack.append((item, (key, chain)))


_JSON_TYPES: Final = {
    dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number",
    float: "a number", type(None): "null",
}  # fmt: skip


def _validated(name: str, place: tuple[Any, ...], kind: type[PartT], value: object) -> PartT:
    try:
        return kind.model_validate(value)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
    what = "is missing"
    if error["type"] != "missing":
        message = error["msg"].removeprefix("Value error, ").replace(" instance of ", " a ")
        given = _JSON_TYPES.get(type(error["input"]), "of another type")
        what = f"is {given}: {message[0].lower()}{message[1:]}"
    raise ValueError(
        f"{name} cannot be re-scored: {_place((*place, *error['loc']))} {what}; needed is the "
        f"notebook's JSON or a result.json of gainlens, schema {SCHEMA}"
    )


def _place(keys: tuple[Any, ...]) -> str:
    """A place in the document as one would write it: models["llama2-7b"].residual.norms[3]."""
    text = ""
    for key in keys[:_LONGEST_PLACE]:
        if isinstance(key, str) and key.isidentifier() and key.isascii() and len(key) < 60:
            text += f".{key}"
        else:
            text += f"[{key if isinstance(key, int) else json.dumps(shown(str(key)))}]"
    cut = "…" if len(keys) > _LONGEST_PLACE else ""
    return (text.lstrip(".") or "the document") + cut
