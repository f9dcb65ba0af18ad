"""A hub name or a Hugging Face directory -> a model with unprocessed weights, checked at load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from gainlens.core.messages import check_one_of
from gainlens.core.spec import Backend, Dtype
from gainlens.models.backends import FRONT_ENDS, choose_backend
from gainlens.models.checks import check_additivity, check_logits, logits_of
from gainlens.models.digest import weights_digest
from gainlens.models.hub import read_weights
from gainlens.models.memory import enough_memory
from gainlens.models.opening import OpenedModel, open_model
from gainlens.models.placement import Placement, default_dtype, forget_folder, place, spread_options
from gainlens.models.tensors import json_object
from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import Prompt, PromptSet
from gainlens.records.inputs import Checkpoint, EncodedPrompts

CHECK_PROMPT = "The quick brown fox jumps over the lazy dog."
TRAINING_FILE = "training.json"


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed the check at load, with its tokenizer and what is known of it."""

    model: Any
    """HookedTransformer, TransformerBridge or Hugging Face causal LM, in eval mode"""
    tokenizer: Any
    checkpoint: Checkpoint
    hf_model: Any = None
    """the Hugging Face model of the very same tensors, where it takes no memory of its own: faster
    than a front end, and gives the same numbers; None where it would be a second copy"""


def load(
    source: str | Path | OpenedModel,
    *,
    name: str | None = None,
    backend: str = "auto",
    dtype: str | None = None,
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a causal language model without weight processing and check it on one short prompt.

    Args:
        source: hub name, directory in Hugging Face's layout with safetensors weights, or one of
            the package's own twins (gainlens:context512-theta10k); or a model that `open_model`
            opened, whose own revision and trust_remote_code then count.
        name: what to call it; the last part of `source` where not given.
        backend: hooked (HookedTransformer), bridge (TransformerBridge), native (Hugging Face), or
            auto (`choose_backend`).
        dtype: float32, bfloat16 or float16; None is float32 on CPU, else the checkpoint's own.
        device: torch's name of it: cpu, cuda, cuda:1; or auto, which is this process's GPU where
            there is one and the weights fit, else all GPUs, main memory and disk together.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run code that comes with the checkpoint; else such a one is refused.

    The check: every block is additive, |x+a+m-y| / (|x|+|a|+|m|+|y|) within twice the dtype's unit
    roundoff, every site fires, and the logits equal Hugging Face's.  Raises ValueError with one
    sentence where the checkpoint cannot be had, is no causal language model or fails the check.

    Examples:
        >>> loaded.checkpoint.num_blocks, loaded.checkpoint.d_model, loaded.checkpoint.context
        (8, 128, 512)
        >>> loaded.checkpoint.additivity < 1e-6
        True
    """
    check_one_of("backend", backend, get_args(Backend))
    check_one_of("dtype", dtype or "float32", get_args(Dtype))
    opened = (
        source
        if isinstance(source, OpenedModel)
        else open_model(source, revision=revision, trust_remote_code=trust_remote_code)
    )
    config, tokenizer, path = opened.config, opened.tokenizer, opened.path
    placement = place(config, dtype, device)
    backend = _backend(config, backend, placement)
    device = placement.device
    dtype = default_dtype(config, device, dtype)
    with enough_memory("loading the model", backend):
        attention = attention_of(backend, device, dtype)
        spread = spread_options() if placement.spread else None
        hf_model = read_weights(
            path, config, dtype, opened.revision, opened.trust_remote_code, attention, spread
        ).eval()
        if spread is None:
            hf_model.to(device)
        else:
            forget_folder(hf_model, spread["offload_folder"])
        tokens = _check_tokens(opened.source, tokenizer, config).to(device)
        wanted = None if backend == "native" else logits_of(hf_model, tokens)
        model = FRONT_ENDS[backend](hf_model, tokenizer, config, dtype, device)
        additivity = check_additivity(model, tokens, dtype)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        checkpoint=Checkpoint(
            name=name or Path(path).name,
            hf_name=opened.source,
            revision=getattr(config, "_commit_hash", None),
            backend=backend,
            dtype=dtype,
            architecture=config.architectures[0],
            num_blocks=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            d_model=config.hidden_size,
            d_vocab=config.vocab_size,
            context=config.max_position_embeddings,
            config=config.to_dict(),
            training=_read_training(path),
            additivity=additivity,
            logits_kl=None if wanted is None else check_logits(model, wanted, tokens, dtype),
            weights=weights_digest(path),
        ),
        hf_model=hf_model if shares_weights(model, hf_model) else None,
    )


def shares_weights(model: nn.Module, hf_model: nn.Module) -> bool:
    """Whether a model's weights are the Hugging Face model's own tensors, or views of them.

    Biases that a conversion adds, of zeros, are let pass: up to a tenth of the numbers.
    """
    own = {weight.untyped_storage().data_ptr() for weight in hf_model.parameters()}
    weights = list(model.parameters())
    foreign = (w.numel() for w in weights if w.untyped_storage().data_ptr() not in own)
    return sum(foreign) <= 0.1 * sum(weight.numel() for weight in weights)


def _backend(config: Any, backend: str, placement: Placement) -> str:
    if backend == "auto":
        return "native" if placement.spread else choose_backend(config)
    if placement.spread and backend != "native":
        raise ValueError(
            f"this model does not fit {placement.device}, and only --backend native lays one over "
            f"several devices, main memory and disk; {backend} was asked for"
        )
    return backend


def attention_of(backend: str, device: str, dtype: str) -> str | None:
    """Hugging Face's attn_implementation: flash attention for native where it is installed and can
    run; None is their own choice, SDPA, or eager where a model forbids it (Gemma 2's soft cap)."""
    from transformers.utils.import_utils import is_flash_attn_2_available

    half = dtype in ("bfloat16", "float16")
    if backend == "native" and device.startswith("cuda") and half and is_flash_attn_2_available():
        return "flash_attention_2"
    return None


def _check_tokens(source: str, tokenizer: Any, config: Any) -> Tensor:
    """The short prompt of the checks, [1, position]."""
    tokens = torch.tensor([tokenizer(CHECK_PROMPT).input_ids])
    if int(tokens.max()) >= config.vocab_size:
        raise ValueError(
            f"the tokenizer of {source} gives token id {int(tokens.max())}, and the model's "
            f"embedding has {config.vocab_size} rows: they do not belong together; take the "
            "tokenizer that was saved with the weights"
        )
    return tokens


def _read_training(source: str) -> Mapping[str, Any] | None:
    """The `compared` block of a training record beside the weights; None: training unknown."""
    path = Path(source) / TRAINING_FILE
    if not path.is_file():
        return None
    compared = json_object(path).get("compared")
    if not isinstance(compared, dict):
        raise ValueError(
            f"{path} is no training record: it needs an object under the key `compared`; repair "
            "it, or take it away, which leaves the training unknown"
        )
    return cast("dict[str, Any]", compared)


def encode_for(
    loaded: LoadedModel, texts: PromptSet | Sequence[str], *, tokens: int | None = None
) -> EncodedPrompts:
    """Texts as the token ids of one loaded model, with exactly one BOS where it has one.

    Args:
        loaded: from `load`.
        texts: from `load_prompts`, or your own strings.
        tokens: prompts of exactly so many tokens, cut or packed with their followers.

    Raises ValueError where a text does not fit the model's context, and for a bare string.

    Examples:
        >>> [len(ids) for ids in gainlens.encode_for(loaded, ["x = 1", "Hello, world."]).tokens]
        [4, 8]
    """
    if isinstance(texts, str):
        raise ValueError(f"texts is a list of strings, one a prompt; got one string, {texts!r:.40}")
    if not isinstance(texts, PromptSet):
        own = tuple(Prompt(f"text-{number}", text) for number, text in enumerate(texts))
        texts = PromptSet("given", built_in=False, prompts=own)
    return encode(
        texts,
        loaded.tokenizer,
        context=loaded.checkpoint.context,
        tokens=tokens,
        allow_extrapolation=False,
        vocab_size=loaded.checkpoint.d_vocab,
    )
