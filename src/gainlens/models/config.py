"""Read a Hugging Face config: sizes, context and RoPE.  Every other module asks here.

A config is a config object, its to_dict(), or the JSON of config.json; old and new names are read.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

_CODED_THETA: Final = 10_000.0
"""GPT-J and CodeGen write it into their code; their config holds rotary_dim and no base."""
_LARGEST_SIZE: Final = 1e6
"""Dimensions of a head or a stream, beyond which a config is broken."""
_CONTEXT: Final = (
    "max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length",
    "n_ctx",
)  # fmt: skip
_KEEPS_ORIGINAL: Final = ("llama3", "yarn", "longrope", "su")
"""Kinds of scaling for which transformers fills in original_max_position_embeddings."""


class RopeConfig(NamedTuple):
    """RoPE as a config states it."""

    theta: float | None
    """base; None if the model has no RoPE"""
    scaling: dict[str, Any] | None
    """rope_scaling as in old configs; None if frequencies are not scaled"""
    max_position: int | None
    """longest prompt that the model was made for, tokens"""


_PARALLEL = ("gptj", "phi", "codegen", "cohere", "cohere2")
"""Model types whose attention and MLP always read the same input."""


def parallel_blocks(config: Mapping[str, Any]) -> bool:
    """Return True if a block's attention and MLP both read its input, by the Hugging Face config.

    Such blocks are GPT-NeoX's unless it says otherwise, Falcon's if it says so, and GPT-J's, Phi's,
    CodeGen's and Cohere's.
    """
    kind = config.get("model_type")
    if kind == "gpt_neox":
        return bool(config.get("use_parallel_residual", True))
    if kind == "falcon":
        return bool(config.get("parallel_attn") or config.get("new_decoder_architecture"))
    return kind in _PARALLEL


_SIZES: Final = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
)  # fmt: skip


def check_sizes(fields: Mapping[str, Any]) -> None:
    """Raise ValueError, naming it, if a raw config gives a size that is no whole number above 0."""
    text = text_fields(fields)
    for name in _SIZES:
        if text.get(name) is not None and positive(name, text[name]) % 1:
            raise ValueError(f"the config gives {name} = {text[name]}: a whole number is needed")


class Sizes(NamedTuple):
    """Sizes of a decoder."""

    num_blocks: int
    num_heads: int
    d_model: int
    d_vocab: int


def text_fields(config: Any) -> Mapping[str, Any]:
    """Return the fields of the text model of a config object or dictionary."""
    if not isinstance(config, Mapping):
        decoder = getattr(config, "get_text_config", None)
        config = (config if decoder is None else decoder()).to_dict()
    fields = cast(Mapping[str, Any], config)
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := fields.get(name), Mapping):
            return cast(Mapping[str, Any], inner)
    return fields


def sizes_of(config: Any) -> Sizes:
    """Return the sizes of a config object's text model; raise ValueError if it lacks one."""
    text = config.get_text_config()
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
    missing = [name for name in names if not isinstance(getattr(text, name, None), int)]
    if missing:
        raise ValueError(
            f"the config of this {text.model_type} model gives no {missing[0]}: gainlens measures "
            "decoders whose blocks all hold one attention and one MLP"
        )
    return Sizes(*(getattr(text, name) for name in names))


def context_of(config: Any) -> int | None:
    """Return the longest prompt that the model was made for, tokens; None if it is not stated.

    Under YaRN, as published, max_position_embeddings may stay the context before the extension:
    then it is factor x original_max_position_embeddings.
    """
    fields = text_fields(config)
    context = next((_context(name, fields[name]) for name in _CONTEXT if fields.get(name)), None)
    scaling = _parameters(fields)
    above, factor = fields.get("original_max_position_embeddings"), scaling.get("factor")
    original = above or scaling.get("original_max_position_embeddings")
    if rope_type(scaling) == "yarn" and original and factor:
        extended = round(positive("factor", factor) * _context("original", original))
        return max(context or 0, extended)
    return context


def _context(name: str, value: object) -> int:
    return int(positive(name, value))


def rope_from_config(config: Any) -> RopeConfig:
    """Return theta, scaling and context of a config, old or new style.

    Old style has `rope_theta` and `rope_scaling` (GPT-NeoX: `rotary_emb_base`), new style
    `rope_parameters`.  If layers of different types have their own (Gemma 3), theta and scaling are
    those of `full_attention`, and the other types stay in scaling under their names.  A raw
    config.json may leave theta to its class; a config object, or its to_dict(), has it.
    """
    fields = text_fields(config)
    context = context_of(config)
    parameters = _parameters(fields)
    theta = parameters.pop("rope_theta", None)
    if theta is None:
        return RopeConfig(_CODED_THETA if fields.get("rotary_dim") else None, None, context)
    kind = rope_type(parameters)
    if kind != "proportional":
        parameters.pop("partial_rotary_factor", None)
    if kind in _KEEPS_ORIGINAL:  # as transformers does; Phi-3 keeps it above
        above = fields.get("original_max_position_embeddings")
        original = above or parameters.get("original_max_position_embeddings") or context
        if original:
            parameters["original_max_position_embeddings"] = original
    plain = kind == "default" and not parameters.keys() - {"rope_type", "type"}
    return RopeConfig(positive("rope_theta", theta), None if plain else parameters, context)


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return one flat dictionary, new style, of the layers with full attention."""
    parameters: dict[str, Any] = dict(fields.get("rope_parameters") or {})
    by_type = {key: value for key, value in parameters.items() if isinstance(value, Mapping)}
    if by_type:
        chosen = "full_attention" if "full_attention" in by_type else next(iter(by_type))
        full = dict(cast(Mapping[str, Any], by_type.pop(chosen)))
        return full | {key: dict(value) for key, value in by_type.items()}
    if not parameters:
        theta = fields.get("rope_theta") or fields.get("rotary_emb_base")
        parameters = {"rope_theta": theta, **(fields.get("rope_scaling") or {})}
    return parameters


def rotary_dim_of(config: Any) -> int | None:
    """Return the number of rotated dimensions per head; None if the config does not say."""
    fields = text_fields(config)
    if fields.get("rotary_dim"):
        return _size(fields, "rotary_dim")
    head = next(
        (_size(fields, key) for key in ("qk_rope_head_dim", "head_dim") if fields.get(key)), 0
    )
    if not head and fields.get("hidden_size") and fields.get("num_attention_heads"):
        head = _size(fields, "hidden_size") // _size(fields, "num_attention_heads")
    parameters = _parameters(fields)
    if rope_type(parameters) == "proportional":  # its share of the pairs stands still instead
        return head or None
    share = parameters.get("partial_rotary_factor")
    share = share or fields.get("partial_rotary_factor") or fields.get("rotary_pct") or 1.0
    return int(head * positive("partial_rotary_factor", share, 1.0)) if head else None


def rotated_share(config: Any) -> float:
    """Return the share of a head's dimensions that RoPE turns; 1 if the config does not say."""
    return float(_parameters(text_fields(config)).get("partial_rotary_factor") or 1.0)


def _size(fields: Mapping[str, Any], name: str) -> int:
    return int(positive(name, fields[name], _LARGEST_SIZE))


def rope_type(scaling: Mapping[str, Any] | None) -> str:
    """Return the kind of scaling, under its new name or its old one; `default` is no scaling."""
    scaling = scaling or {}
    return scaling.get("rope_type") or scaling.get("type") or "default"


def positive(name: str, value: object, most: float = 1e30) -> float:
    """Return a number of a config; raise ValueError, naming it, unless it is above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(
            f"the config gives {name} = {repr(value)[:60]}: a number above 0 and up to {most:g} is "
            "needed; correct config.json"
        )
    return float(value)


def setting(scaling: Mapping[str, Any], name: str) -> float:
    """Return a positive number of rope_scaling; raise KeyError if it is missing."""
    return positive(name, scaling[name])


def hooked_fields(cfg: Any) -> Mapping[str, Any]:
    """Return what a HookedTransformer's config states, under Hugging Face's names."""
    rope: dict[str, Any] = {}
    if cfg.positional_embedding_type == "rotary":
        rope = {
            "rope_theta": float(cfg.rotary_base),
            "partial_rotary_factor": cfg.rotary_dim / cfg.d_head,
            "rope_scaling": _hooked_scaling(cfg),
        }
    return {
        "architectures": [cfg.original_architecture or "HookedTransformer"],
        "hidden_size": cfg.d_model,
        "num_hidden_layers": cfg.n_layers,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_key_value_heads or cfg.n_heads,
        "head_dim": cfg.d_head,
        "intermediate_size": cfg.d_mlp,
        "vocab_size": cfg.d_vocab,
        "max_position_embeddings": cfg.n_ctx,
        **rope,
    }


def _hooked_scaling(cfg: Any) -> dict[str, Any] | None:
    if getattr(cfg, "use_NTK_by_parts_rope", False):
        return {
            "rope_type": "llama3",
            "factor": cfg.NTK_by_parts_factor,
            "low_freq_factor": cfg.NTK_by_parts_low_freq_factor,
            "high_freq_factor": cfg.NTK_by_parts_high_freq_factor,
            "original_max_position_embeddings": cfg.NTK_original_ctx_len,
        }
    if getattr(cfg, "use_yarn_rope", False):
        return {
            "rope_type": "yarn",
            "factor": cfg.yarn_factor,
            "beta_fast": cfg.yarn_beta_fast,
            "beta_slow": cfg.yarn_beta_slow,
            "truncate": cfg.yarn_truncate,
            "original_max_position_embeddings": cfg.yarn_original_max_position_embeddings,
        }
    if cfg.rotary_scaling_factor != 1.0:
        return {"rope_type": "linear", "factor": cfg.rotary_scaling_factor}
    return None
