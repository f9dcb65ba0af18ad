"""Read foreign JSON: bounded in size, depth and number of values, with one sentence per fault.

What is not a finite number is read as unknown (None): python's json writes NaN and Infinity.  The
field types bound every number that is computed with, so that nothing overflows afterwards.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gainlens.core.messages import shown

LARGEST_FILE: Final = 32 * 2**20
"""Bytes.  The notebook's file has 7 kB; ours, with four models and their spectra, about 1 MB."""
DEEPEST: Final = 40
"""Objects and lists within one another; the deepest known file has 9."""
MOST_VALUES: Final = 2_000_000
SMALLEST: Final = 1e-30
LARGEST: Final = 1e30
"""Norms outside are no activations; within, every ratio and product of ratios is finite."""
LONGEST_LABEL: Final = 200
_LONGEST_TEXT: Final = 2_000
_LONGEST_PLACE: Final = 12
_NEEDED: Final = "give a result.json, the notebook's JSON or a result file of its neighbours"


def _zero_or_normal(value: float) -> float:
    if value != 0 and value < SMALLEST:
        raise ValueError(f"should be 0 or at least {SMALLEST:g}")
    return value


def check_label(value: str) -> str:
    """Return a name that can be printed; raise ValueError for any other."""
    if not value.isprintable() or not 0 < len(value) <= LONGEST_LABEL:
        raise ValueError(f"should be 1 to {LONGEST_LABEL} printable characters")
    return value


Norm = Annotated[
    float, Field(allow_inf_nan=False, ge=0, le=LARGEST), AfterValidator(_zero_or_normal)
]
Positive = Annotated[float, Field(allow_inf_nan=False, ge=SMALLEST, le=LARGEST)]
Stated = Annotated[float, Field(allow_inf_nan=False, ge=0, le=LARGEST**2)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Series = Annotated[list[Positive | None], Field(max_length=10_000, fail_fast=True)]
"""One number per block or prompt."""
Norms = Annotated[list[Positive | None], Field(min_length=2, max_length=10_000, fail_fast=True)]
Label = Annotated[str, AfterValidator(check_label)]
Text = Annotated[str, AfterValidator(lambda value: shown(value, _LONGEST_TEXT))]


class Part(BaseModel):
    """Part of a foreign file.  A string or a boolean is never read as a number."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


PartT = TypeVar("PartT", bound=Part)


def read_document(source: Mapping[str, Any] | Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a JSON document and its content, with None for what is not finite.

    Raises ValueError, with one sentence, if there is no file or if it is too large, not UTF-8, not
    JSON, nested too deeply, no object, or holds a key twice in one object.
    """
    if isinstance(source, Mapping):
        name, tree = "the mapping", source
    else:
        name = f"'{shown(str(source), 200)}'"
        tree = _parsed(name, _bytes_of(name, source))
    cleaned = _Cleaner(name).cleaned(tree, 0)
    if not isinstance(cleaned, dict):
        raise ValueError(f"{name} cannot be re-scored: the document is {_kind(cleaned)}; {_NEEDED}")
    return name, cleaned


def _bytes_of(name: str, path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist or is no regular file"
            raise ValueError(f"{name} {what}: {_NEEDED}")
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as problem:
        raise ValueError(f"{name} cannot be read: {problem.strerror}") from None
    if len(raw) > LARGEST_FILE:
        raise ValueError(f"{name} is larger than {LARGEST_FILE // 2**20} MiB: {_NEEDED}")
    return raw


def _parsed(name: str, raw: bytes) -> object:
    if not raw.strip():
        raise ValueError(f"{name} is empty: {_NEEDED}")
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as problem:
        raise ValueError(f"{name} is not UTF-8 (byte {problem.start}): save it as UTF-8") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be a result file") from None
    except ValueError as problem:  # not JSON, a repeated key, a number of thousands of digits
        raise ValueError(f"{name} is not JSON: {shown(str(problem), 160)}") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; json alone would silently keep the last value of a repeated key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {json.dumps(shown(twice))} stands twice in one object")
    return content


class _Cleaner:
    """Copies a tree with None for what is not finite; refuses one that is too deep or too large."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values = 0

    def cleaned(self, value: object, depth: int) -> object:
        self._values += 1
        if self._values > MOST_VALUES:
            raise ValueError(f"{self._name} holds more than {MOST_VALUES:,} values: {_NEEDED}")
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if not isinstance(value, Mapping | list):
            return value
        if depth > DEEPEST:
            raise ValueError(f"{self._name} is nested too deeply to be a result file")
        if isinstance(value, list):
            return [self.cleaned(item, depth + 1) for item in value]
        return {str(key): self.cleaned(item, depth + 1) for key, item in value.items()}


_KINDS: Final[dict[type, str]] = {
    dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number",
    float: "a number", type(None): "null",
}  # fmt: skip


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "of another type")


def validated(name: str, keys: tuple[str | int, ...], kind: type[PartT], value: object) -> PartT:
    """Return one part of a document; raise ValueError with the place of its first fault."""
    try:
        return kind.model_validate(value)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
    what = "is missing"
    if error["type"] != "missing":
        message = error["msg"].removeprefix("Value error, ").replace(" instance of ", " a ")
        what = f"is {_kind(error['input'])}: {message[0].lower()}{message[1:]}"
    raise ValueError(f"{name} cannot be re-scored: {place((*keys, *error['loc']))} {what}")


def place(keys: tuple[str | int, ...]) -> str:
    """Return a place in the document as Python writes it: models["llama2-7b"].norms[3]."""
    text = ""
    for key in keys[:_LONGEST_PLACE]:
        if isinstance(key, str) and key.isidentifier() and key.isascii() and len(key) < 60:
            text += f".{key}"
        else:
            text += f"[{key if isinstance(key, int) else json.dumps(shown(key))}]"
    cut = "…" if len(keys) > _LONGEST_PLACE else ""
    return (text.lstrip(".") or "the document") + cut
