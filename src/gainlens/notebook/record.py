"""Define the base of every record of a re-scored file, and turn records into plain values."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Hold one frozen record."""

    model_config = ConfigDict(frozen=True)
    WHY_UNKNOWN: ClassVar[dict[str, str]] = {}


class Finding(Record):
    """Hold a contradiction: a stated number or word that the rest of the file does not give."""

    place: str
    stated: float | str
    recomputed: float | str | None
    """None if the file has nothing to compute it from"""


def plain(value: Any) -> Any:
    """Return plain values for JSON; an unknown field is null with `<field>_reason` beside it."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, BaseModel):
        return value
    kind = type(value)
    names = [*kind.model_fields, *kind.model_computed_fields]
    tree = {name: plain(getattr(value, name)) for name in names}
    reasons: dict[str, str] = getattr(kind, "WHY_UNKNOWN", {})
    unknown = {name for name in names if tree[name] is None}
    return tree | {f"{name}_reason": why for name, why in reasons.items() if name in unknown}
