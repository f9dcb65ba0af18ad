"""Load the texts of a run, from a built-in set or a user's file, with a hash."""

import hashlib
import importlib
import itertools
import json
import platform
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO, Final, cast

NOTEBOOK_SENTENCE: Final = "The quick brown fox jumps over the lazy dog."
BUILT_IN: Final = ("notebook", "mixed", "english", "code", "long")
_OF_MIXED: Final = {
    "english": ("prose", "list", "dialogue", "maths", "letter"),
    "code": ("code",),
}
"""Sets that consist of some kinds of prompts of mixed."""
MAX_LINE_BYTES: Final = 32 * 2**20
"""Longest line that is read: a longer one means a file without line breaks."""

LONG_CHARACTERS: Final = 32_000
"""Least length of a `long` prompt: thousands of tokens under any tokenizer."""
LONG_MINIMUM: Final = 8


@dataclass(frozen=True)
class Prompt:
    """Hold one text under a name that is unique in its set."""

    id: str
    text: str
    group: str = ""
    """kind or file: prompts of one group may resemble one another; "" for none"""


@dataclass(frozen=True)
class PromptSet:
    """Hold the texts that every model of a comparison gets."""

    name: str
    """of a built-in set, or the file as given"""
    built_in: bool
    prompts: tuple[Prompt, ...]
    note: str = ""
    """what a reader must know to get the same texts again; empty if the name is enough"""

    @property
    def sha256(self) -> str:
        """Return the hex digest of the canonical JSON of [id, text] pairs."""
        pairs = [[prompt.id, prompt.text] for prompt in self.prompts]
        canonical = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def load_prompts(source: str, long_prompts: int | None = None) -> PromptSet:
    """Return a built-in set by name, or the prompts of a text or JSONL file.

    Args:
        source: notebook (its one sentence), mixed (72 English texts and pieces of code, 24 texts in
            other languages), english (52 of mixed), code (20 of mixed) or long; or a path.  A text
            file holds one prompt per line, blank lines skipped; a file named `.jsonl` or `.ndjson`
            holds {"text": ..., "id": ...} (id optional) or a JSON string per line.  A file that
            has the name of a built-in set is given as `./mixed`.
        long_prompts: take so many texts of `long`, at even distances in its list, so that code and
            prose keep their shares; None: all.

    Raises ValueError if there is no such file, or if it holds anything else.

    Examples:
        >>> gainlens.load_prompts("notebook").prompts[0].text
        'The quick brown fox jumps over the lazy dog.'
    """
    if source == "notebook":
        return PromptSet(source, True, (Prompt("notebook", NOTEBOOK_SENTENCE),))
    if source == "mixed":
        return PromptSet(source, True, _mixed_prompts())
    if kinds := _OF_MIXED.get(source):
        some = tuple(prompt for prompt in _mixed_prompts() if prompt.group in kinds)
        return PromptSet(source, True, some)
    if source == "long":
        note = (
            f"texts of the standard library of Python {platform.python_version()}; "
            "other versions have other texts, and sha256 tells them apart"
        )
        return PromptSet(source, True, _spread(_long_prompts(), long_prompts), note)
    return PromptSet(source, False, _read_file(source))


def _mixed_prompts() -> tuple[Prompt, ...]:
    packaged = resources.files("gainlens").joinpath("data/prompts_mixed.jsonl")
    with packaged.open("rb") as handle:
        return tuple(_read_jsonl(cast(BinaryIO, handle), "mixed"))


def _read_file(source: str) -> tuple[Prompt, ...]:
    path = Path(source)
    if path.suffix.lower() == ".json":
        raise ValueError(
            f"prompt file {source!r} is named .json: prompts are read from text, one per line, "
            "or from JSONL, one object per line; write it as JSONL and name it .jsonl"
        )
    read = _read_jsonl if path.suffix.lower() in (".jsonl", ".ndjson") else _read_text
    try:
        with path.open("rb") as handle:
            prompts = tuple(read(handle, source))
    except FileNotFoundError:
        raise ValueError(
            f"prompts {source!r}: there is no such file, and the built-in sets are "
            f"{', '.join(BUILT_IN)}; give one of these names or the path of a text or JSONL file"
        ) from None
    except IsADirectoryError:
        raise ValueError(f"prompts {source!r} is a directory: give a text or JSONL file") from None
    except OSError as error:
        raise ValueError(f"prompt file {source!r} cannot be read: {error.strerror}") from None
    if not prompts:
        raise ValueError(f"prompt file {source!r} holds no prompt: write one prompt per line")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise ValueError(
                f"prompt file {source!r} has two prompts with the id {prompt.id!r}: "
                "give each its own, or leave ids out"
            )
        seen.add(prompt.id)
    return prompts


def _lines(handle: BinaryIO, source: str) -> Iterator[tuple[int, str]]:
    """Yield numbered lines without their line break, read one by one so that /dev/zero ends too."""
    offset = 0
    for number in itertools.count(1):
        raw = handle.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return
        if len(raw) > MAX_LINE_BYTES:
            raise ValueError(
                f"prompt file {source!r} line {number} is longer than {MAX_LINE_BYTES >> 20} MiB: "
                "break it into lines, one prompt per line"
            )
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"prompt file {source!r} is not UTF-8: byte 0x{raw[error.start]:02x} at offset "
                f"{offset + error.start}, line {number}; save it as UTF-8"
            ) from None
        if "\0" in line:
            raise ValueError(
                f"prompt file {source!r} line {number} holds a NUL character, so it is binary or "
                "UTF-16; save it as UTF-8 text"
            )
        offset += len(raw)
        yield number, line.removeprefix("\ufeff" if number == 1 else "").rstrip("\r\n")


def _read_text(handle: BinaryIO, source: str) -> Iterator[Prompt]:
    for number, line in _lines(handle, source):
        if line.strip():
            yield Prompt(f"line-{number}", line)


def _read_jsonl(handle: BinaryIO, source: str) -> Iterator[Prompt]:
    for number, line in _lines(handle, source):
        if line.strip():
            yield _json_prompt(line, number, f"prompt file {source!r} line {number}")


def _json_prompt(line: str, number: int, where: str) -> Prompt:
    shape = 'each line must be {"text": "..."} or a JSON string'
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: a line of 100,000 brackets
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(f"{where} is not JSON ({reason}): {shape}") from None
    record = cast(Mapping[str, object], value) if isinstance(value, dict) else {"text": value}
    text, name = record.get("text"), record.get("id", f"line-{number}")
    if not isinstance(text, str):
        raise ValueError(f'{where} has no "text" that is a string: {shape}')
    if not isinstance(name, str | int):
        raise ValueError(f'{where} has an "id" that is neither a string nor a number')
    if not text.strip() or "\0" in text:
        raise ValueError(f'{where} has a "text" that is empty or holds a NUL character')
    try:
        f"{name}{text}".encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair, which is not text
        raise ValueError(f"{where} holds half of a surrogate pair: write the whole pair") from None
    group = record.get("kind", record.get("group", ""))
    if not isinstance(group, str):
        raise ValueError(f'{where} has a "kind" or "group" that is not a string')
    return Prompt(str(name), text, group)


def _spread(prompts: tuple[Prompt, ...], number: int | None) -> tuple[Prompt, ...]:
    """Return so many of the prompts at even distances, or all of them if there are fewer."""
    if number is None or number >= len(prompts):
        return prompts
    return tuple(prompts[place * len(prompts) // number] for place in range(number))


def _long_prompts() -> tuple[Prompt, ...]:
    """Return sources of large standard-library modules, then the language reference of `help()`."""
    library = Path(sysconfig.get_path("stdlib"))
    prompts: list[Prompt] = []
    listed = resources.files("gainlens").joinpath("data/long_modules.txt").read_text("utf-8")
    for module in (line for line in listed.splitlines() if not line.startswith("#")):
        stem = library.joinpath(*module.split("."))
        for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                if len(text) >= LONG_CHARACTERS:
                    prompts.append(Prompt(f"long-{module}", text, module))
    prompts += _help_topics()
    if len(prompts) < LONG_MINIMUM:
        raise ValueError(
            f"prompts 'long' need the standard library's sources, and {library} has "
            f"{len(prompts)} of them: take --prompts mixed or a file of long texts"
        )
    return tuple(prompts)


def _help_topics() -> Iterator[Prompt]:
    """Yield prose among the code: neighbouring help topics, joined until they are long enough."""
    try:
        topics: Mapping[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:  # some distributions package it apart
        return
    part: list[str] = []
    number = itertools.count(1)
    for name in sorted(topics):
        part.append(topics[name])
        if sum(map(len, part)) >= LONG_CHARACTERS:
            yield Prompt(
                f"long-pydoc_data.topics-{next(number):02}", "\n\n".join(part), "pydoc_data.topics"
            )
            part = []
