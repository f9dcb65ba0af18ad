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
    from gainlens.ablation import ablate as ablate
    from gainlens.capturing import capture as capture
    from gainlens.causes import ablated_verdicts as ablated_verdicts
    from gainlens.checkpoints import LoadedModel as LoadedModel
    from gainlens.checkpoints import load as load
    from gainlens.controls import bos_effects as bos_effects
    from gainlens.controls import massive_effects as massive_effects
    from gainlens.frames import to_frame as to_frame
    from gainlens.gain import cosines as cosines
    from gainlens.gain import decompose as decompose
    from gainlens.gain import head_split as head_split
    from gainlens.gain import reduce_gains as reduce_gains
    from gainlens.interventions import sweep_last_blocks as sweep_last_blocks
    from gainlens.interventions import theta_dose as theta_dose
    from gainlens.last_block import baseline_of as baseline_of
    from gainlens.lifecycle import massive_lifecycle as massive_lifecycle
    from gainlens.nll import loss as loss
    from gainlens.notebook import notebook_residual as notebook_residual
    from gainlens.pipeline import compare as compare
    from gainlens.pipeline import encode_for as encode_for
    from gainlens.prompts import encode as encode
    from gainlens.reading import read_run as read_run
    from gainlens.rescoring import rescore as rescore
    from gainlens.rope import rope_report as rope_report
    from gainlens.spec import ComparisonSpec as ComparisonSpec
    from gainlens.spec import ModelSpec as ModelSpec
    from gainlens.spec import Rule as Rule
    from gainlens.texts import load_prompts as load_prompts
    from gainlens.theta import rope_scaling as rope_scaling
    from gainlens.theta import rope_theta as rope_theta
    from gainlens.unembed import unembed_gram as unembed_gram
    from gainlens.unembed import unembed_report as unembed_report
    from gainlens.verdict import block_gains as block_gains
    from gainlens.verdict import judge as judge
    from gainlens.weights import weights_report as weights_report

_HOME = {
    "ComparisonSpec": "spec",
    "LoadedModel": "checkpoints",
    "ModelSpec": "spec",
    "Rule": "spec",
    "ablate": "ablation",
    "ablated_verdicts": "causes",
    "baseline_of": "last_block",
    "block_gains": "verdict",
    "bos_effects": "controls",
    "capture": "capturing",
    "compare": "pipeline",
    "cosines": "gain",
    "decompose": "gain",
    "encode": "prompts",
    "encode_for": "pipeline",
    "head_split": "gain",
    "judge": "verdict",
    "load": "checkpoints",
    "load_prompts": "texts",
    "loss": "nll",
    "massive_effects": "controls",
    "massive_lifecycle": "lifecycle",
    "notebook_residual": "notebook",
    "read_run": "reading",
    "reduce_gains": "gain",
    "rescore": "rescoring",
    "rope_report": "rope",
    "rope_scaling": "theta",
    "rope_theta": "theta",
    "sweep_last_blocks": "interventions",
    "theta_dose": "interventions",
    "to_frame": "frames",
    "unembed_gram": "unembed",
    "unembed_report": "unembed",
    "weights_report": "weights",
}
"""Public names and the module that each lives in."""

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gainlens' has no attribute {name!r}")
    return getattr(import_module(f"gainlens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
