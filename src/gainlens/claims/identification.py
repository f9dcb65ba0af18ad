"""Tell whether two models differ in nothing but theta and context."""

import re
from collections.abc import Mapping
from typing import Any, Final

from gainlens.records.inputs import Checkpoint
from gainlens.records.verdict import Identification

_INERT: Final = re.compile(
    r"_.*|.*_version|unsloth.*|auto_map|name_or_path|dtype|torch_dtype|architectures|use_cache"
    r"|return_dict|output_(attentions|hidden_states|router_logits)|is_decoder|is_encoder_decoder"
    r"|add_cross_attention|.*_token_ids?|tokenizer_class|id2label|label2id|problem_type|task_.*"
    r"|.*(dropout|_drop|_pdrop|layerdrop)|initializer_.*|pretraining_tp|original_max_position_embeddings"
)
"""Config fields that change nothing of what a model that is being measured computes: names,
bookkeeping of tools, names of tokens, dropout, and how weights were initialised."""
_ROPE: Final = ("rope_theta", "rope_scaling", "rope_parameters", "max_position_embeddings")
_VALUE_WIDTH: Final = 60


def identify(short: Checkpoint, long: Checkpoint) -> Identification:
    """Return whether the two differ in nothing but theta and context, and what else differs.

    Compared are the configs, RoPE scaling included, the dtype that was measured in, and the records
    of training (data, tokens, steps, seed).  Unknown training is a difference, unless both hold the
    same weights: they have one training then.
    """
    fields = _fields(short.config), _fields(long.config)
    differing = _differences(*fields, prefix="")
    if short.dtype != long.dtype:
        differing.append(f"measured in {short.dtype} vs {long.dtype}")
    same_weights = short.weights is not None and short.weights == long.weights
    if not same_weights:
        differing += _trainings(short, long)
    return Identification(
        controlled=not differing,
        differing=tuple(differing),
        by_design=() if differing or same_weights else _by_design(short.context, long.context),
        same_weights=same_weights,
    )


def _trainings(short: Checkpoint, long: Checkpoint) -> list[str]:
    """Return in what two records of training differ."""
    unknown = [checkpoint.name for checkpoint in (short, long) if checkpoint.training is None]
    if unknown:
        return ["training unknown" if len(unknown) == 2 else f"training unknown of {unknown[0]}"]
    return _differences(short.training or {}, long.training or {}, prefix="training ")


def _by_design(short: int, long: int) -> tuple[str, ...]:
    """Name what must change together with the training context at equally many tokens."""
    if short == long:
        return ()
    more, ratio = ("short", long / short) if long > short else ("long", short / long)
    return (f"the {more} model saw {ratio:.3g} times as many sequences and first positions",)


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without bookkeeping, theta and context, with one form for every quantity.

    RoPE's scaling has an old and a new form; the size of a head and the number of key-value heads
    have defaults that follow from other fields.
    """
    kept = {
        name: value
        for name, value in config.items()
        if name not in _ROPE and not _INERT.fullmatch(name)
    }
    heads, width = kept.get("num_attention_heads"), kept.get("hidden_size")
    if isinstance(heads, int) and heads > 0 and isinstance(width, int):
        kept["head_dim"] = kept.get("head_dim") or width // heads
        kept["num_key_value_heads"] = kept.get("num_key_value_heads") or heads
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
