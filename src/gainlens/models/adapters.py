"""Merge a PEFT adapter into the model that it was trained on."""

import importlib.util
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from torch import nn

from gainlens.models.failures import said
from gainlens.models.memory import ran_out
from gainlens.models.tensors import check_no_pointer, json_object, tensor_names

SETTINGS: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
_NAME_IT: Final = (
    "write its hub name, directory or GGUF file as base_model_name_or_path into adapter_config.json"
)


def is_adapter(path: str) -> bool:
    """Return True if a local directory holds an adapter.

    Raises ValueError if it holds a model too: which of the two is meant cannot be told.
    """
    folder = Path(path)
    if not (folder / SETTINGS).is_file():
        return False
    if (folder / "config.json").is_file():
        raise ValueError(
            f"{path} holds both a model and an adapter: put the adapter ({SETTINGS} and its "
            "weights) into a folder of its own"
        )
    return True


def base_of(path: str) -> str:
    """Return the hub name or directory of the model that an adapter belongs to.

    Raises ValueError if the adapter names none, or if its weights are not safetensors.
    """
    folder = Path(path)
    if not (folder / _WEIGHTS).is_file():
        raise ValueError(
            f"{path} is an adapter without {_WEIGHTS}: only safetensors are read; save it again "
            "with save_pretrained"
        )
    check_no_pointer(folder / _WEIGHTS)
    if importlib.util.find_spec("peft") is None:
        raise ValueError(
            f"{path} is an adapter, and merging it needs peft: pip install 'gainlens[peft]'"
        )
    base = json_object(folder / SETTINGS).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(f"{path} is an adapter that names no base: {_NAME_IT}")
    beside = folder / base
    base = str(beside) if beside.exists() else base
    if (Path(base) / SETTINGS).is_file():
        raise ValueError(
            f"the base of the adapter {path} is an adapter itself ({base}): merge that one first, "
            "and save the model"
        )
    return base


def base_missing(path: str, why: Exception) -> ValueError:
    """Return the error of an adapter whose base cannot be had."""
    return ValueError(f"the base of the adapter {path} cannot be had ({why}): {_NAME_IT}")


def merged(hf_model: Any, path: str) -> Any:
    """Return a model with an adapter's weights merged into it.

    Raises ValueError if the adapter does not fit the model, or if a tensor of its file would be
    left out or would be missing: peft warns of the one and says nothing of the other.
    """
    from peft import PeftConfig, PeftModel

    stored = tensor_names(Path(path) / _WEIGHTS)
    with _fitting(path):
        settings: Any = PeftConfig.from_pretrained(path)
    if settings.is_prompt_learning:
        raise ValueError(
            f"{path} is a {settings.peft_type.value} adapter, which adds tokens and cannot be "
            "merged into weights: gainlens measures adapters such as LoRA"
        )
    _untie(hf_model)
    with _fitting(path):
        adapted: Any = PeftModel.from_pretrained(hf_model, path, config=settings)
    _check_names(path, stored, adapted)
    with _fitting(path):
        return adapted.merge_and_unload(safe_merge=True)


@contextmanager
def _fitting(path: str) -> Generator[None]:
    """Turn whatever peft stumbles over into one sentence."""
    try:
        with warnings.catch_warnings():  # peft warns of what `_check_names` and `_untie` see to
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        if ran_out(error):
            raise
        raise ValueError(f"the adapter {path} does not fit its base ({said(error)})") from error


def _untie(hf_model: Any) -> None:
    """Give a tied unembedding a tensor of its own.

    peft's forward pass adapts the embedding alone; merged into a tied one it would change both.
    """
    head, embedding = hf_model.get_output_embeddings(), hf_model.get_input_embeddings()
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())


def _check_names(path: str, stored: set[str], adapted: Any) -> None:
    """Raise ValueError unless an adapter's file holds the tensors that its settings ask for."""
    from peft import get_peft_model_state_dict

    wanted: set[str] = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    everything = wanted | set(adapted.state_dict())
    for what, names in (("lacks", wanted - stored), ("holds unknown", stored - everything)):
        if names:
            raise ValueError(
                f"the adapter {path} {what} {len(names)} tensors ({min(names)}), by its own "
                f"{SETTINGS}: peft would merge the rest without a word; save it again with "
                "save_pretrained"
            )
