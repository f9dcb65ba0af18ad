"""Find the entries of a foreign document by their keys, and hand them to their readers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gainlens.core.messages import shown
from gainlens.notebook.documents import Part, check_label, validated
from gainlens.notebook.record import Record


@dataclass(frozen=True)
class Where:
    """The place of an entry: its keys, its model's name and the whole document."""

    keys: tuple[str | int, ...]
    model: str
    root: dict[str, Any]

    @property
    def key(self) -> str:
        """Innermost key that is a word, safe to print."""
        return shown(next((key for key in reversed(self.keys) if isinstance(key, str)), ""))


EntryT = TypeVar("EntryT", bound=Part)
Read = Callable[[Any, Where], Iterator[Record]]


@dataclass(frozen=True)
class Shape:
    """The keys that an entry has, those that it lacks, its class and its reader."""

    name: str
    keys: frozenset[str]
    without: frozenset[str]
    entry: type[Part]
    read: Read


SHAPES: Final[list[Shape]] = []


def shape(
    entry: type[EntryT], *keys: str, without: Sequence[str] = ()
) -> Callable[[Callable[[EntryT, Where], Iterator[Record]]], Read]:
    """Register a reader for entries that have these keys and lack those of `without`."""

    def register(read: Callable[[EntryT, Where], Iterator[Record]]) -> Read:
        name = read.__name__.replace("_", " ")
        SHAPES.append(Shape(name, frozenset(keys), frozenset(without), entry, read))
        return read

    return register


def read_entries(name: str, root: dict[str, Any]) -> tuple[list[str], list[Record]]:
    """Return the names of the shapes found in a document, and the records of all entries in order.

    Raises ValueError, with the place, for an entry that has a shape's keys and not its values.
    """
    shapes: dict[str, None] = {}
    records: list[Record] = []
    for keys, tree, found in _entries(root, ()):
        entry = validated(name, keys, found.entry, tree)
        where = Where(keys, _model_name(name, keys, tree, root), root)
        records += found.read(entry, where)
        shapes[found.name] = None
    return list(shapes), records


def _entries(
    tree: object, keys: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any], Shape]]:
    """Yield every object that has a shape.  What lies within such an object belongs to it."""
    if isinstance(tree, dict):
        for candidate in SHAPES:
            if candidate.keys <= tree.keys() and not candidate.without & tree.keys():
                yield keys, tree, candidate
                return
    if isinstance(tree, dict | list):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _entries(item, (*keys, key))


_MATRICES: Final = ("unembedding", "embedding", "restriction_maps")


def _model_name(
    name: str, keys: tuple[str | int, ...], tree: dict[str, Any], root: dict[str, Any]
) -> str:
    words = [key for key in keys if isinstance(key, str) and key not in _MATRICES]
    candidates = (tree.get("Model"), tree.get("model"), root.get("model"), *words[-1:])
    label = next((text for text in candidates if isinstance(text, str)), "the model")
    try:
        return check_label(label)
    except ValueError as problem:
        raise ValueError(f"{name} cannot be re-scored: a model's name {problem}") from None
