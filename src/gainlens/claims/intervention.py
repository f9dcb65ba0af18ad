"""Define what a claim does to a model before it measures again, and the random control beside it.

The estimand of a claim with an intervention is the change of its metric: intervened minus plain,
paired per prompt.
"""

from typing import Final, Literal

from pydantic import Field, model_validator

from gainlens.core.spec import Spec

Component = Literal["attention", "mlp", "block"]
_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "leave out": ("component", "block"),
    "set massive": ("to",),
    "mask sink": (),
    "equal gain": (),
    "swap theta": ("theta",),
}
_ALLOWED: Final[dict[str, tuple[str, ...]]] = {"leave out": ("to",)}
"""Keys that a kind may have besides those that it needs."""


class Intervention(Spec):
    """Say what is done to the model, and what the change is compared with."""

    kind: Literal["leave out", "set massive", "mask sink", "equal gain", "swap theta"]
    component: Component | None = None
    block: Literal["first", "last"] | int | None = None
    to: Literal["zero", "mean"] | None = None
    theta: float | None = Field(default=None, gt=1, allow_inf_nan=False)
    draws: int = Field(default=3, ge=2, le=32)
    """how often the random control is drawn"""
    against: Literal["plain", "control"] = "plain"
    """whether the prediction is of the change itself, or of the change minus the control's"""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Intervention":
        needed = _NEEDED[self.kind]
        for key in ("component", "block", "to", "theta"):
            given = getattr(self, key) is not None
            if key in needed and not given:
                raise ValueError(f"the intervention {self.kind!r} needs {key!r}")
            if given and key not in (*needed, *_ALLOWED.get(self.kind, ())):
                raise ValueError(f"the intervention {self.kind!r} does not take {key!r}")
        return self

    @property
    def passes(self) -> "Intervention":
        """Return what two interventions have in common if they share their forward passes."""
        return self.model_copy(update={"against": "plain"})

    @property
    def words(self) -> str:
        """Return what is done, as the subject of a sentence."""
        if self.kind == "leave out":
            return self._leaving_out(_block(self.block))
        if self.kind == "set massive":
            return f"setting massive activations to {'their mean' if self.to == 'mean' else 'zero'}"
        if self.kind == "mask sink":
            return "keeping tokens from attending position 0"
        if self.kind == "equal gain":
            return "rescaling the blocks to equal gain"
        return f"setting RoPE's theta to {self.theta:,.0f}"

    @property
    def control_words(self) -> str:
        """Return what the control does, as the subject of a sentence."""
        if self.kind == "leave out":
            return self._leaving_out("a random other block")
        if self.kind == "set massive":
            target = "their mean" if self.to == "mean" else "zero"
            return f"setting as many random dimensions of the same tokens to {target}"
        if self.kind == "mask sink":
            return "keeping each token from attending one random other token before it"
        if self.kind == "equal gain":
            return "rescaling the blocks by the same factors in random order"
        return "changing RoPE's frequencies by the same factors in random order"

    def _leaving_out(self, block: str) -> str:
        parts = {"attention": "the attention", "mlp": "the MLP", "block": "all writes"}
        part = f"{parts[str(self.component)]} of {block}"
        if self.to != "mean":
            return f"leaving out {part}"
        return f"setting {part} to {'their' if self.component == 'block' else 'its'} mean"


def _block(block: str | int | None) -> str:
    return f"block {block}" if isinstance(block, int) else f"the {block} block"
