"""Refuse a model that a back end cannot measure, and name a back end that can."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from torch import nn

CANNOT: Final = "gainlens cannot measure it"


class Refusal(ValueError):
    """Say why a back end cannot measure a model."""

    def __init__(self, why: str, advice: str = "", instead: str | None = None) -> None:
        super().__init__(f"{why}; {advice}" if advice else why)
        self.why = why
        self.instead = instead
        """a back end that was tried on the model and measures it; None if there is none"""


def advised(refusal: Refusal, instead: str | None) -> Refusal:
    """Return a refusal that says which back end to take, or that none measures the model."""
    advice = CANNOT if instead is None else f"try --backend {instead}"
    return Refusal(refusal.why, advice, instead)


@contextmanager
def unbridged(hf_model: nn.Module) -> Generator[None]:
    """Put back, within the context, the modules that a TransformerBridge put its own in place of.

    A bridge computes attention and norms by code of its own, and puts that into the Hugging Face
    model: only the original modules say what the model's logits are.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in list(hf_model.modules()):
        for name, child in list(parent.named_children()):
            original: Any = getattr(child, "original_component", None)
            if isinstance(original, nn.Module) and parent is not child:
                replaced.append((parent, name, child))
                parent.add_module(name, original)
    try:
        yield
    finally:
        for parent, name, child in replaced:
            parent.add_module(name, child)
