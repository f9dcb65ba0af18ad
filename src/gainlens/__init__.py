"""Where does a transformer's residual stream grow or shrink, which component does it, and on which
tokens?

    import gainlens

    loaded = gainlens.load("path/or/hub-name")
    texts = gainlens.load_prompts("mixed")
    prompts = gainlens.encode_for(loaded, texts)
    captured = gainlens.capture(loaded.model, prompts)
    tokens = gainlens.decompose(captured)                       # every block and token, nats
    gains = gainlens.reduce_gains(captured, tokens, "ordinary", "geomean")

Importing gainlens imports none of torch, transformers and transformer_lens; a name brings what it
needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gainlens.capturing import capture as capture
    from gainlens.checkpoints import LoadedModel as LoadedModel
    from gainlens.checkpoints import load as load
    from gainlens.gain import cosines as cosines
    from gainlens.gain import decompose as decompose
    from gainlens.gain import reduce_gains as reduce_gains
    from gainlens.lifecycle import massive_lifecycle as massive_lifecycle
    from gainlens.notebook import notebook_residual as notebook_residual
    from gainlens.pipeline import compare as compare
    from gainlens.pipeline import encode_for as encode_for
    from gainlens.prompts import encode as encode
    from gainlens.rescoring import rescore as rescore
    from gainlens.rope import rope_report as rope_report
    from gainlens.spec import ComparisonSpec as ComparisonSpec
    from gainlens.spec import ModelSpec as ModelSpec
    from gainlens.spec import Rule as Rule
    from gainlens.texts import load_prompts as load_prompts
    from gainlens.unembed import unembed_gram as unembed_gram
    from gainlens.unembed import unembed_report as unembed_report
    from gainlens.verdict import judge as judge

_HOME = {
    "ComparisonSpec": "spec",
    "LoadedModel": "checkpoints",
    "ModelSpec": "spec",
    "Rule": "spec",
    "capture": "capturing",
    "compare": "pipeline",
    "cosines": "gain",
    "decompose": "gain",
    "encode": "prompts",
    "encode_for": "pipeline",
    "judge": "verdict",
    "load": "checkpoints",
    "load_prompts": "texts",
    "massive_lifecycle": "lifecycle",
    "notebook_residual": "notebook",
    "reduce_gains": "gain",
    "rescore": "rescoring",
    "rope_report": "rope",
    "unembed_gram": "unembed",
    "unembed_report": "unembed",
}
"""Public names and the module that each lives in."""

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gainlens' has no attribute {name!r}")
    return getattr(import_module(f"gainlens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
