"""A Hugging Face model -> TransformerLens' front ends, with its own weights as they stand.

TransformerLens decides a checkpoint's shape by its *path* in places (a directory called
Llama-3.1-8B gets that model's shape, whatever its config says), so its converter is given the
config alone, from a neutral place, and the weights as a Hugging Face model.
"""

import copy
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gainlens.core.messages import shown
from gainlens.models.config import rope_from_config, rope_type, rotated_share, sizes_of
from gainlens.models.memory import first_line, ran_out
from gainlens.models.refusals import Refusal

HOOKED_TOKENS = 2048
"""`auto` takes TransformerLens up to this prompt length: its front ends materialise attention."""
HOOKED_ARCHITECTURES = (
    "GPT2LMHeadModel", "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM",
    "Phi3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
)  # fmt: skip
"""What `auto` gives to TransformerLens; parity with native is tested on these."""
_FAMILIES = ("llama", "gemma")
"""What TransformerLens' config converter looks for in a path."""


def has_hooked_transformer() -> bool:
    """HookedTransformer was removed in TransformerLens 4.0."""
    return int(version("transformer-lens").split(".")[0]) < 4


def choose_backend(config: Any, longest_prompt: int = 0) -> str:
    """Return the back end that `auto` means: hooked if it can hold the prompt, else native.

    On TransformerLens 4 bridge stands in for hooked.  Both materialise attention: beyond 2,048
    tokens native measures what they cannot, and so it does beyond the model's own context, where
    HookedTransformer ends.
    """
    known = config.architectures[0] in HOOKED_ARCHITECTURES
    if not known or misfit(config) is not None:
        return "native"
    if longest_prompt > min(HOOKED_TOKENS, config.max_position_embeddings):
        return "native"
    return "hooked" if has_hooked_transformer() else "bridge"


def misfit(config: Any) -> str | None:
    """Return what TransformerLens' conversion would drop of a config, or None.

    The check of logits at load runs on a short prompt, and would not see a window or a scaling
    that begins further on.
    """
    rope = rope_from_config(config)
    scaling, theta, rotated = rope_type(rope.scaling), rope.theta or 10_000.0, rotated_share(config)
    family = config.architectures[0].removesuffix("ForCausalLM")
    biased = bool(getattr(config, "attention_bias", False))
    d_head = config.hidden_size // config.num_attention_heads
    own_d_head = getattr(config, "head_dim", None) or d_head
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    wrong = {
        f"RoPE scaling of type {scaling}": scaling not in ("default", "llama3")
        or (scaling == "llama3" and family != "Llama"),
        f"a RoPE theta of {theta:g}": family == "GPTNeoX" and theta != 10_000,
        f"RoPE on {rotated:g} of each head": family != "GPTNeoX" and rotated != 1,
        "biases in attention": biased and family in ("Llama", "Qwen3"),
        "attention without biases": not biased and family == "GPTNeoX",
        "biases in the MLP": family == "Llama" and getattr(config, "mlp_bias", False),
        f"heads of {own_d_head} dimensions": family in ("Llama", "Phi3") and own_d_head != d_head,
        "a sliding window": windows and family in ("Qwen2", "Qwen3"),
        f"an MLP of {getattr(config, 'n_inner', None)} neurons": family == "GPT2LMHeadModel"
        and (config.n_inner or 4 * config.n_embd) != 4 * config.n_embd,
    }
    return next((what for what, is_so in wrong.items() if is_so), None)


def hooked(hf_model: Any, tokenizer: Any, config: Any, dtype: str, device: str) -> Any:
    """A HookedTransformer with every processing flag off, through TransformerLens' own pieces.

    It shares the Hugging Face model's tensors: TransformerLens' layout is a view of theirs, so
    there is one copy of the weights.
    """
    if not has_hooked_transformer():
        raise ValueError(
            f"TransformerLens {version('transformer-lens')} has no HookedTransformer (removed in "
            "4.0): use --backend bridge or native, or install transformer-lens>=3.9,<4"
        )
    sizes_of(config)
    try:
        if (what := misfit(config)) is None:
            return _converted(hf_model, tokenizer, config, dtype, device)
    except NotImplementedError as error:
        raise _cannot(config, "TransformerLens does not know it") from error
    except Exception as error:  # whatever a conversion stumbles over becomes one sentence
        if ran_out(error):
            raise
        raise _cannot(config, f"{type(error).__name__}: {first_line(error)}") from error
    raise _cannot(config, f"{what} would be left out")


def _converted(hf_model: Any, tokenizer: Any, config: Any, dtype: str, device: str) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens import loading_from_pretrained as loading

    with neutral_folder() as folder:
        described = copy.deepcopy(config)
        described.n_ctx = config.max_position_embeddings  # transformers 5 dropped GPT-2's
        described.save_pretrained(folder)
        shape = loading.convert_hf_model_config(folder)
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
        model = HookedTransformer(
            cfg, tokenizer, move_to_device=False, default_padding_side="right"
        )
    wanted = model.state_dict()
    given = loading.fill_missing_keys(model, weights)
    lost = sorted(key for key in given.keys() - wanted.keys() if given[key].any())
    if lost:
        raise ValueError(f"{len(lost)} tensors have no place in it ({', '.join(lost[:3])})")
    # assign: load_and_process_state_dict copies key by key, 0.5 s a twin and twice the memory
    model.load_state_dict(
        {key: _as_wanted(given[key], weight) for key, weight in wanted.items()}, assign=True
    )
    return model.to(device, print_details=False).eval()


def _as_wanted(given: Tensor, wanted: Tensor) -> Tensor:
    return given.detach().to(wanted.dtype)


def _cannot(config: Any, why: str) -> Refusal:
    return Refusal(f"HookedTransformer cannot hold this {config.architectures[0]} ({why})")


@contextmanager
def neutral_folder() -> Generator[str]:
    """A temporary folder by whose path TransformerLens guesses nothing."""
    with tempfile.TemporaryDirectory(prefix="config-") as folder:
        near = [family for family in _FAMILIES if family in folder.lower()]
        if near:
            raise ValueError(
                f"the temporary folder {folder} has {near[0]!r} in its path, by which "
                "TransformerLens would guess a model's shape: set TMPDIR to another place"
            )
        yield folder


def bridge(hf_model: Any, tokenizer: Any, config: Any, dtype: str, device: str) -> Any:
    """A TransformerBridge around the model itself; joint projections are split into copies."""
    from transformer_lens.model_bridge import TransformerBridge

    try:
        return TransformerBridge.boot_transformers(
            config.name_or_path, hf_model=hf_model, tokenizer=tokenizer, dtype=getattr(torch, dtype)
        )
    except Exception as error:  # whatever a bridge stumbles over becomes one sentence
        if ran_out(error):
            raise
        raise Refusal(
            f"TransformerBridge cannot hold this {config.architectures[0]} "
            f"({type(error).__name__}: {shown(first_line(error), 160)})"
        ) from error


def native(hf_model: Any, tokenizer: Any, config: Any, dtype: str, device: str) -> Any:
    """The Hugging Face model itself."""
    return hf_model


FRONT_ENDS = {"hooked": hooked, "bridge": bridge, "native": native}
