"""Settings of a job that was begun against those that it is asked to go on with."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every leaf of nested settings: training.rate -> 0.003."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = _plain(value)
    return leaves


def _plain(value: Any) -> Any:
    """Make tuples lists, as JSON does, so that what was stored compares with what is asked for."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def check_same(name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError, showing the first difference, if a job was begun with other settings."""
    before, now = flat(stored), flat(wanted)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"job {name} was begun with {key} = {before.get(key)} and is asked to go on with "
                f"{now.get(key)}: give the old setting back, or start in another folder."
            )


def digest(settings: Mapping[str, Any]) -> str:
    """Return a sha256 that is the same for settings as they are and as JSON gave them back."""
    text = json.dumps(_plain(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_digest(name: str, stored: str, wanted: Mapping[str, Any]) -> None:
    """Raise ValueError if a job of the table was trained with other settings than the design's."""
    if stored != digest(wanted):
        raise ValueError(
            f"job {name} of the table was trained with other settings than the design has now "
            f"({stored} and {digest(wanted)}): give the old settings back, or name the design anew."
        )
