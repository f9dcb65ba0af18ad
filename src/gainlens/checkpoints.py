"""A hub name or a Hugging Face directory -> a model with unprocessed weights, checked at load.

TransformerLens decides a checkpoint's shape by its *path* in places (a directory called
Llama-3.1-8B gets that model's shape, whatever its config says), so its converter is given the
config alone, from a neutral place, and the weights as a Hugging Face model.
"""

import json
import tempfile
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gainlens.checks import UNIT_ROUNDOFF, check_additivity, check_logits
from gainlens.hub import read_config, read_tokenizer, read_weights, resolve
from gainlens.records import Checkpoint
from gainlens.sites import kind_of, sites_of

CHECK_PROMPT = "The quick brown fox jumps over the lazy dog."
_FAMILIES = ("llama", "gemma")
"""What TransformerLens' config converter looks for in a path."""
TRAINING_FILE = "training.json"
HOOKED_TOKENS = 2048
"""`auto` takes TransformerLens up to this prompt length: its front ends materialise attention."""
HOOKED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
"""What `auto` gives to TransformerLens; parity with native is tested on these."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed the check at load, with its tokenizer and what is known of it."""

    model: Any
    """HookedTransformer, TransformerBridge or Hugging Face causal LM, in eval mode"""
    tokenizer: Any
    checkpoint: Checkpoint


def load(
    source: str | Path,
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
            the package's own twins (gainlens:context512-theta10k).
        name: what to call it; the last part of `source` where not given.
        backend: hooked (HookedTransformer), bridge (TransformerBridge), native (Hugging Face), or
            auto (`choose_backend`).
        dtype: float32, bfloat16 or float16; None is float32 on CPU, else the checkpoint's own.
        revision: branch, tag or commit of a hub model.

    The check: every block is additive, |x+a+m-y| / (|x|+|a|+|m|+|y|) within twice the dtype's unit
    roundoff, every site fires, and the logits equal Hugging Face's.  Raises ValueError with one
    sentence where the checkpoint cannot be had, is no causal language model or fails the check.
    """
    given, source = str(source), resolve(str(source))
    config = read_config(source, revision, trust_remote_code)
    backend = choose_backend(config) if backend == "auto" else backend
    dtype = dtype or _default_dtype(config, device)
    hf_model = read_weights(source, config, dtype, revision, trust_remote_code)
    tokenizer = read_tokenizer(source, revision, trust_remote_code)
    hf_model = hf_model.to(device).eval()
    model = _FRONT_ENDS[backend](hf_model, tokenizer, config, dtype, device)
    tokens = torch.tensor([tokenizer(CHECK_PROMPT).input_ids], device=device)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        checkpoint=Checkpoint(
            name=name or Path(source).name,
            hf_name=given,
            revision=getattr(config, "_commit_hash", None),
            backend=backend,
            dtype=dtype,
            architecture=config.architectures[0],
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            d_model=config.hidden_size,
            d_vocab=config.vocab_size,
            context=config.max_position_embeddings,
            config=config.to_dict(),
            training=_read_training(source),
            additivity=check_additivity(model, tokens, dtype),
            logits_kl=None if backend == "native" else check_logits(model, hf_model, tokens, dtype),
        ),
    )


def has_hooked_transformer() -> bool:
    """HookedTransformer was removed in TransformerLens 4.0."""
    return int(version("transformer-lens").split(".")[0]) < 4


def choose_backend(config: Any, longest_prompt: int = 0) -> str:
    """What `auto` means: hooked where it knows the model and can hold the prompt, else native.

    On TransformerLens 4 bridge stands in for hooked.  Both materialise attention: beyond 2,048
    tokens native measures what they cannot.
    """
    known = config.architectures[0] in HOOKED_ARCHITECTURES
    if longest_prompt > HOOKED_TOKENS or not known:
        return "native"
    return "hooked" if has_hooked_transformer() else "bridge"


def unembedding(model: nn.Module) -> tuple[Tensor, Tensor | None, bool]:
    """W_U [d_vocab, d_model] as lm_head holds it, the final norm's weight, and whether tied."""
    if kind_of(model) == "hooked":
        hooked: Any = model
        ln_weight = getattr(hooked.ln_final, "w", None)
        tied = hooked.W_E.shape == hooked.W_U.T.shape and torch.equal(hooked.W_E, hooked.W_U.T)
        return hooked.W_U.T, ln_weight, tied
    hf: Any = getattr(model, "original_model", model)
    head = hf.get_output_embeddings().weight
    tied = bool(torch.equal(head, hf.get_input_embeddings().weight))
    norm = sites_of(model).final_norm
    ln_weight = getattr(norm, "weight", None)
    if (
        ln_weight is not None
        and "Gemma" in type(getattr(norm, "original_component", norm)).__name__
    ):
        ln_weight = 1 + ln_weight  # Gemma's RMSNorm multiplies by 1 + weight
    return head, ln_weight, tied


def _default_dtype(config: Any, device: str) -> str:
    if device == "cpu":
        return "float32"
    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return own if own in UNIT_ROUNDOFF else "float32"


def _read_training(source: str) -> Mapping[str, Any] | None:
    """The `compared` block of a training record beside the weights; None: training unknown."""
    path = Path(source) / TRAINING_FILE
    return json.loads(path.read_text("utf-8"))["compared"] if path.is_file() else None


def _native(hf_model: Any, tokenizer: Any, config: Any, dtype: str, device: str) -> Any:
    return hf_model


def _hooked(hf_model: Any, tokenizer: Any, config: Any, dtype: str, device: str) -> Any:
    """A HookedTransformer with every processing flag off, through TransformerLens' own pieces."""
    if not has_hooked_transformer():
        raise ValueError(
            f"TransformerLens {version('transformer-lens')} has no HookedTransformer (removed in "
            "4.0): use --backend bridge or native, or install transformer-lens>=3.9,<4"
        )
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens import loading_from_pretrained as loading

    with _neutral_folder() as folder:
        config.save_pretrained(folder)
        try:
            shape = loading.convert_hf_model_config(folder)
        except NotImplementedError as error:
            raise ValueError(
                f"TransformerLens' HookedTransformer does not know {config.architectures[0]}; "
                "try --backend native or --backend bridge"
            ) from error
        shape |= {
            "n_ctx": config.max_position_embeddings,
            "dtype": getattr(torch, dtype),
            "device": device,
            "init_weights": False,
            "model_name": Path(config.name_or_path).name,
            "tokenizer_name": None,
        }
        cfg = HookedTransformerConfig.from_dict(shape)
        weights = loading.get_pretrained_state_dict(folder, cfg, hf_model=hf_model)
    with warnings.catch_warnings():
        # TransformerLens 3.9 announces HookedTransformer's removal in 4.0; pyproject knows.
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, tokenizer, default_padding_side="right")
    # What load_and_process_state_dict does with every flag off, but in one pass and strictly: it
    # loads key by key, 0.5 s a twin.
    model.load_state_dict(loading.fill_missing_keys(model, weights))
    return model.to(device).eval()


@contextmanager
def _neutral_folder() -> Generator[str]:
    """A temporary folder by whose path TransformerLens guesses nothing."""
    with tempfile.TemporaryDirectory(prefix="config-") as folder:
        near = [family for family in _FAMILIES if family in folder.lower()]
        if near:
            raise ValueError(
                f"the temporary folder {folder} has {near[0]!r} in its path, by which "
                "TransformerLens would guess a model's shape: set TMPDIR to another place"
            )
        yield folder


def _bridge(hf_model: Any, tokenizer: Any, config: Any, dtype: str, device: str) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        config.name_or_path, hf_model=hf_model, tokenizer=tokenizer, dtype=getattr(torch, dtype)
    )


_FRONT_ENDS = {"hooked": _hooked, "bridge": _bridge, "native": _native}
