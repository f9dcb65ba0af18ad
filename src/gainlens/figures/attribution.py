"""Draw what a difference is due to: the effects of theta and of context."""

import textwrap
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from gainlens.core.glossary import GLOSSARY
from gainlens.figures.style import (
    FAINT,
    INK,
    SMALL,
    TWO_COLUMNS,
    across,
    axes_or_new,
    beside,
    label,
    note,
    styled,
    threshold,
)
from gainlens.records.verdict import Effect, Verdict

_FACTORS: Final = {
    "theta": "RoPE theta",
    "context": "training context",
    "theta:context": "interaction",
}
_UNITS: Final = {"prompts": "o", "seeds": "s"}


@styled
def attribution(verdict: Verdict, ax: Axes | None = None) -> Axes:
    """Draw the effects of theta, context and their interaction on the last block's log gain, nats.

    A circle's interval is over prompts, a square's over training seeds.  Filled marks compare the
    cells at equal tokens, open ones at equal loss.  n is the number of prompts or seeds.  If there
    are no effects, the axes carry the verdict's note on why.
    """
    effects = verdict.attribution
    wide = across(2) == 2
    ax = axes_or_new(ax, TWO_COLUMNS * 0.85, 0.9 + 0.19 * max(len(effects) + 3, 6))
    percent = {f"{effect.log_gain.confidence:.0%}" for effect in effects}
    doubt = f", {percent.pop()} interval" if len(percent) == 1 else ""
    ax.set_xlabel(textwrap.fill(label("effect") + doubt, 80 if wide else 36))
    ax.grid(visible=False, axis="y")
    if not effects:
        ax.set(xticks=[], yticks=[])
        note(ax, textwrap.fill(verdict.attribution_note, 52 if wide else 30))
        return ax
    ticks: list[tuple[float, str]] = []
    height = 0.0
    for factor in dict.fromkeys(effect.factor for effect in effects):
        beside(ax, _FACTORS.get(factor, factor), height, fontweight="bold")
        for effect in (effect for effect in effects if effect.factor == factor):
            height += 1
            _draw_effect(ax, effect, height)
            ticks.append((height, _name(effect) if wide else textwrap.fill(_name(effect), 32)))
        height += 1.4
    ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(height - 0.8, -0.7)
    threshold(ax, 0.0, along="y")
    return ax


def _name(effect: Effect) -> str:
    """Say what an effect is over and, unless it is one part of that above it, at what."""
    if effect.component:
        return f"over {effect.unit}: {GLOSSARY[effect.component].label}"
    return f"over {effect.unit}, at {effect.at}"


def _draw_effect(ax: Axes, effect: Effect, height: float) -> None:
    interval = effect.log_gain
    if np.isfinite([interval.low, interval.high]).all():
        ax.hlines(height, interval.low, interval.high, color=INK, linewidth=1.2)
    ax.plot(
        interval.estimate,
        height,
        marker=_UNITS.get(effect.unit, "D"),
        color=INK,
        markersize=5,
        markerfacecolor=INK if effect.at == "equal tokens" else "white",
    )
    doubt = f"n = {interval.n}" if interval.known else f"n = {interval.n}, {interval.status}"
    beside(ax, doubt, height, right=True, fontsize=SMALL, color=FAINT)
