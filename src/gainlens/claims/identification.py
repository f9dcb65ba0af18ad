"""Whether two models differ in nothing but theta and context."""

from collections.abc import Mapping
from typing import Any, Final

from gainlens.records.inputs import Checkpoint
from gainlens.records.verdict import Identification

BOOKKEEPING: Final = frozenset(
    {
        "_name_or_path",
        "name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "architectures",
        "use_cache",
        "_commit_hash",
        "_attn_implementation",
        "original_max_position_embeddings",
    }
)
"""Config fields that name or store a model and change nothing of what it computes."""
_ROPE: Final = ("rope_theta", "rope_scaling", "rope_parameters", "max_position_embeddings")
_VALUE_WIDTH: Final = 60


def identify(short: Checkpoint, long: Checkpoint) -> Identification:
    """CONTROLLED when the two differ in nothing but theta and context.

    Compared are the configs, RoPE scaling included, the dtype that was measured in, and the records
    of training (data, tokens, steps, seed); `training unknown` is a difference.
    """
    fields = _fields(short.config), _fields(long.config)
    differing = _differences(*fields, prefix="")
    if short.dtype != long.dtype:
        differing.append(f"measured in {short.dtype} vs {long.dtype}")
    trainings = short.training, long.training
    if trainings[0] is None or trainings[1] is None:
        unknown = [c.name for c in (short, long) if c.training is None]
        differing.append(
            "training unknown" if len(unknown) == 2 else f"training unknown of {unknown[0]}"
        )
    else:
        differing += _differences(trainings[0], trainings[1], prefix="training ")
    return Identification(controlled=not differing, differing=tuple(differing))


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without bookkeeping, theta and context; RoPE's scaling in one form, old or new."""
    kept = {name: value for name, value in config.items() if name not in (*BOOKKEEPING, *_ROPE)}
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    left = {
        "rope_type" if name == "type" else name: value
        for name, value in scaling.items()
        if name not in ("rope_theta", "original_max_position_embeddings")
    }
    kept["rope_scaling"] = None if left in ({}, {"rope_type": "default"}) else left
    return kept


def _differences(short: Mapping[str, Any], long: Mapping[str, Any], *, prefix: str) -> list[str]:
    names = dict.fromkeys((*short, *long))
    return [
        f"{prefix}{name} {_shown(short.get(name))} vs {_shown(long.get(name))}"
        for name in names
        if short.get(name) != long.get(name)
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = (
        str(value)
        if not isinstance(value, Mapping)
        else " ".join(
            f"{key}={part}"
            for key, part in value.items()  # pyright: ignore[reportUnknownVariableType]
        )
    )
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 3]}..."
