"""TODO: results.plain."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gainlens.core.vocabulary import contract_key


def plain(value: Any, *, finite: bool = True) -> Any:
    """A record as JSON values: arrays as lists, NaN and infinity as null.

    finite: False keeps NaN and infinity as they are, which Python's json writes and reads though
    they are not JSON.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            contract_key(field.name): plain(getattr(value, field.name), finite=finite)
            for field in fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), finite=finite)
    if isinstance(value, list | tuple):
        return [plain(item, finite=finite) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) or not finite else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    return value
