"""Merge a PEFT adapter into the model that it was trained on."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any, Final

from gainlens.models.failures import said
from gainlens.models.memory import ran_out
from gainlens.models.tensors import check_no_pointer, json_object

SETTINGS: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"


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
        raise ValueError(
            f"{path} is an adapter that names no base: write base_model_name_or_path into its "
            f"{SETTINGS}"
        )
    beside = folder / base
    return str(beside) if beside.is_dir() else base


def merged(hf_model: Any, path: str) -> Any:
    """Return a model with an adapter's weights merged into it.

    Raises ValueError if the adapter does not fit the model.
    """
    from peft import PeftModel

    try:
        with warnings.catch_warnings():  # peft reads an attribute that transformers 5 renamed
            warnings.simplefilter("ignore", FutureWarning)
            return PeftModel.from_pretrained(hf_model, path).merge_and_unload(safe_merge=True)
    except Exception as error:  # whatever a merge stumbles over becomes one sentence
        if ran_out(error):
            raise
        raise ValueError(f"the adapter {path} does not fit its base ({said(error)})") from error
