"""Find the entries of a foreign document by their keys, and read them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

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


class Shape(Part):
    """One object of a foreign document, known by the keys that it has and those that it lacks."""

    NAME: ClassVar[str]
    KEYS: ClassVar[set[str]]
    WITHOUT: ClassVar[set[str]] = set()

    def records(self, where: Where) -> Iterator[Record]:
        """Yield what the object's numbers are."""
        raise NotImplementedError


def read_entries(
    name: str, root: dict[str, Any], shapes: Sequence[type[Shape]]
) -> tuple[list[str], list[Record]]:
    """Return the names of the shapes found in a document, and the records of all entries in order.

    Raises ValueError, with the place, for an entry that has a shape's keys and not its values.
    """
    names: dict[str, None] = {}
    records: list[Record] = []
    for keys, tree, shape in _entries(root, (), shapes):
        where = Where(keys, _model_name(name, keys, tree, root), root)
        records += validated(name, keys, shape, tree).records(where)
        names[shape.NAME] = None
    return list(names), records


def _entries(
    tree: object, keys: tuple[str | int, ...], shapes: Sequence[type[Shape]]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any], type[Shape]]]:
    """Yield every object with its shape.  What lies within such an object belongs to it."""
    if isinstance(tree, dict):
        for shape in shapes:
            if tree.keys() >= shape.KEYS and not shape.WITHOUT & tree.keys():
                yield keys, tree, shape
                return
    if isinstance(tree, dict | list):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _entries(item, (*keys, key), shapes)


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
