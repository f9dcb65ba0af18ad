"""Load a hub name, a directory or a GGUF file with unprocessed weights, and check it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from torch import Tensor, nn

from gainlens.core.messages import check_one_of
from gainlens.core.spec import Backend, Dtype
from gainlens.models.backends import FRONT_ENDS, choose_backend
from gainlens.models.checks import (
    check_causal,
    check_outputs,
    check_tokens,
    no_traceback,
    plain_outputs,
)
from gainlens.models.config import context_of, sizes_of
from gainlens.models.digest import weights_digest
from gainlens.models.encoding import encode_for
from gainlens.models.hub import not_built
from gainlens.models.loaded import LoadedModel, ModelSites
from gainlens.models.memory import enough_memory
from gainlens.models.opening import OpenedModel, open_model
from gainlens.models.placement import Placement, default_dtype, forget_folder, place, spread_options
from gainlens.models.probing import additive_sites
from gainlens.models.refusals import Refusal, advised, unbridged
from gainlens.models.tensors import json_object
from gainlens.records.inputs import Checkpoint

__all__ = ["LoadedModel", "encode_for", "load"]

TRAINING_FILE = "training.json"


def load(
    source: str | Path | OpenedModel,
    *,
    name: str | None = None,
    backend: str = "auto",
    dtype: str | None = None,
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    longest_prompt: int = 0,
) -> LoadedModel:
    """Load a causal language model without weight processing and check it on one short prompt.

    Args:
        source: hub name; directory in Hugging Face's layout with safetensors weights; GGUF file;
            directory of a PEFT adapter, which is merged into its base; one of the package's own
            twins (gainlens:context512-theta10k); or a model that `open_model` opened, whose own
            revision and trust_remote_code then count.  Of a multimodal checkpoint the text decoder
            is loaded.
        name: what to call it; the last part of `source` if not given.
        backend: hooked (HookedTransformer), bridge (TransformerBridge), native (Hugging Face), or
            auto (`choose_backend`; native if the back end that it chooses cannot hold the model).
        dtype: float32, bfloat16 or float16; None is float32 on CPU, else the checkpoint's own.
        device: a device of torch (cpu, cuda, cuda:1), or auto: this process's GPU if there is one
            and the weights fit, else all GPUs, main memory and disk together.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run code that comes with the checkpoint; without it, such a checkpoint
            is refused.
        longest_prompt: tokens, for `auto`: TransformerLens' back ends do not hold long prompts.

    The checks: every block is additive, |x+a+m-y| / (|x|+|a|+|m|+|y|) within twice the dtype's unit
    roundoff; every site fires; no state depends on a later token; and the logits equal Hugging
    Face's.  Raises ValueError with one sentence if the checkpoint cannot be had, is no causal
    language model or fails a check.

    Examples:
        >>> loaded.checkpoint.num_blocks, loaded.checkpoint.d_model, loaded.checkpoint.context
        (8, 128, 512)
        >>> loaded.checkpoint.additivity < 1e-6
        True
    """
    check_one_of("backend", backend, get_args(Backend))
    check_one_of("dtype", dtype or "float32", get_args(Dtype))
    if not isinstance(source, OpenedModel):
        source = open_model(source, revision=revision, trust_remote_code=trust_remote_code)
    try:
        placement = place(source.config, dtype, device)
    except ValueError:
        raise
    except Exception as error:  # a config from which transformers builds no model
        raise not_built(source.source, source.whole_config, error) from error
    dtype = default_dtype(source.config, placement.device, dtype)
    chosen = _backend(source.config, backend, placement, longest_prompt)
    name = name or source.name
    try:
        return _load(source, name, chosen, dtype, placement)
    except ValueError:
        if backend != "auto" or chosen == "native":
            raise
        return _load(source, name, "native", dtype, placement)


def _load(
    opened: OpenedModel, name: str, backend: str, dtype: str, placement: Placement
) -> LoadedModel:
    with enough_memory("loading the model", backend):
        hf_model = _on_device(opened, backend, dtype, placement)
        tokens = check_tokens(opened.source, opened.tokenizer, sizes_of(opened.config).d_vocab)
        tokens = tokens[:, : context_of(opened.config)].to(placement.device)
        check = partial(_checked, hf_model, opened, tokens, dtype)
        try:
            found = check(backend)
        except Refusal as refusal:
            raise advised(refusal, _instead(backend, check)) from refusal
    return LoadedModel(
        model=found.model,
        tokenizer=opened.tokenizer,
        checkpoint=_checkpoint(opened, name, backend, dtype, found.additivity, found.logits_kl),
        sites=found.sites,
        hf_model=_twin(found.model, hf_model, tokens, dtype),
    )


class _Checked(NamedTuple):
    """Hold a model on a back end, and what the checks found."""

    model: Any
    sites: ModelSites
    additivity: float
    logits_kl: float | None


def _checked(
    hf_model: Any, opened: OpenedModel, tokens: Tensor, dtype: str, backend: str
) -> _Checked:
    """Put a Hugging Face model on a back end and check it; raise Refusal if a check fails."""
    with no_traceback(hf_model), unbridged(hf_model):
        if backend == "native":
            sites, additivity = additive_sites(hf_model, tokens, dtype)
            check_causal(sites, tokens, dtype)
            return _Checked(hf_model, sites, additivity, None)
        plain = plain_outputs(hf_model, tokens)
    with no_traceback(hf_model):
        device = str(tokens.device)
        model = FRONT_ENDS[backend](hf_model, opened.tokenizer, opened.config, dtype, device)
        sites, additivity = additive_sites(model, tokens, dtype)
        check_causal(sites, tokens, dtype)
        return _Checked(model, sites, additivity, check_outputs(sites, plain, tokens, dtype))


def _instead(refusing: str, check: Callable[[str], object]) -> str | None:
    """Return a back end that measures what another one refuses; None if none does."""
    for backend in ("native", "bridge"):
        if backend != refusing:
            try:
                check(backend)
            except ValueError:
                continue
            return backend
    return None


def _on_device(opened: OpenedModel, backend: str, dtype: str, placement: Placement) -> Any:
    """Read the weights and put them where they are to be."""
    attention = attention_of(backend, placement.device, dtype)
    spread = spread_options() if placement.spread else None
    hf_model = opened.weights(dtype, attention, spread).eval()
    if spread is None:
        hf_model.to(placement.device)
    else:
        forget_folder(hf_model, spread["offload_folder"])
    return hf_model


def _checkpoint(
    opened: OpenedModel, name: str, backend: str, dtype: str, additivity: float, kl: float | None
) -> Checkpoint:
    config, sizes = opened.config, sizes_of(opened.config)
    context = context_of(config)
    assert context is not None, "read_config refuses a config without one"
    return Checkpoint(
        name=name,
        hf_name=opened.source,
        revision=getattr(config, "_commit_hash", None),
        backend=backend,
        dtype=dtype,
        architecture=config.architectures[0],
        num_blocks=sizes.num_blocks,
        num_heads=sizes.num_heads,
        d_model=sizes.d_model,
        d_vocab=sizes.d_vocab,
        context=context,
        config=config.to_dict(),
        training=_read_training(opened.path),
        additivity=additivity,
        logits_kl=kl,
        weights=weights_digest(opened.path, opened.adapter),
        quantisation=opened.quantisation,
        base=opened.path if opened.adapter else None,
        left_out=opened.left_out,
    )


def _twin(model: Any, hf_model: Any, tokens: Tensor, dtype: str) -> Any:
    """Return the Hugging Face model if it has the model's tensors and its blocks come apart too."""
    if not shares_weights(model, hf_model):
        return None
    try:
        if model is not hf_model:
            additive_sites(hf_model, tokens, dtype)
    except ValueError:
        return None
    return hf_model


def shares_weights(model: nn.Module, hf_model: nn.Module) -> bool:
    """Return whether a model's weights are the Hugging Face model's own tensors, or views of them.

    Biases of zeros that a conversion adds do not count, up to a tenth of the numbers.
    """
    storages = {weight.untyped_storage().data_ptr() for weight in hf_model.parameters()}
    weights = list(model.parameters())
    foreign = (w.numel() for w in weights if w.untyped_storage().data_ptr() not in storages)
    return sum(foreign) <= 0.1 * sum(weight.numel() for weight in weights)


def _backend(config: Any, backend: str, placement: Placement, longest_prompt: int) -> str:
    if backend == "auto":
        return "native" if placement.spread else choose_backend(config, longest_prompt)
    if placement.spread and backend != "native":
        raise ValueError(
            f"this model does not fit {placement.device}, and only --backend native lays one over "
            f"several devices, main memory and disk; {backend} was asked for"
        )
    return backend


def attention_of(backend: str, device: str, dtype: str) -> str | None:
    """Return Hugging Face's attn_implementation: flash attention for native if it can run.

    None is their own choice: SDPA, or eager if a model forbids SDPA (Gemma 2's soft cap).
    """
    from transformers.utils.import_utils import is_flash_attn_2_available

    half = dtype in ("bfloat16", "float16")
    if backend == "native" and device.startswith("cuda") and half and is_flash_attn_2_available():
        return "flash_attention_2"
    return None


def _read_training(path: str) -> Mapping[str, Any] | None:
    """Return the `compared` block of a training record beside the weights; None if unknown."""
    record = Path(path) / TRAINING_FILE
    if not record.is_file():
        return None
    compared = json_object(record).get("compared")
    if not isinstance(compared, dict):
        raise ValueError(
            f"{record} is no training record: it needs an object under the key `compared`; repair "
            "it, or take it away, which leaves the training unknown"
        )
    return cast("dict[str, Any]", compared)
