"""What a difference is due to: effects of theta and context, and the gain along training."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes

from gainlens.figures.style import (
    FAINT,
    INK,
    SMALL,
    TWO_COLUMNS,
    axes_or_new,
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
    """Effect of theta, of context, and their interaction on the last block's log gain, nats.

    A circle's interval is over prompts, a square's over training seeds; filled compares the cells
    at equal tokens, open at equal loss.  n is the number of prompts or seeds.  Without effects the
    axes carry the verdict's note on why there are none.
    """
    effects = verdict.attribution
    ax = axes_or_new(ax, TWO_COLUMNS * 0.85, 0.9 + 0.19 * max(len(effects) + 3, 6))
    percent = {f"{effect.log_gain.confidence:.0%}" for effect in effects}
    ax.set_xlabel(label("effect") + (f", {percent.pop()} interval" if len(percent) == 1 else ""))
    ax.grid(visible=False, axis="y")
    if not effects:
        ax.set(xticks=[], yticks=[])
        note(ax, "\n".join(_wrapped(verdict.attribution_note, 52)))
        return ax
    ticks: list[tuple[float, str]] = []
    height = 0.0
    for factor in dict.fromkeys(effect.factor for effect in effects):
        ax.annotate(
            _FACTORS.get(factor, factor),
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontweight="bold",
        )
        for effect in (effect for effect in effects if effect.factor == factor):
            height += 1
            _draw_effect(ax, effect, height)
            ticks.append((height, f"over {effect.unit}, at {effect.at}"))
        height += 1.4
    ax.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(height - 0.8, -0.7)
    threshold(ax, 0.0, along="y")
    return ax


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _draw_effect(ax: Axes, effect: Effect, height: float) -> None:
    found = effect.log_gain
    if np.isfinite([found.low, found.high]).all():
        ax.hlines(height, found.low, found.high, color=INK, linewidth=1.2)
    filled = effect.at == "equal tokens"
    ax.plot(
        found.estimate,
        height,
        marker=_UNITS.get(effect.unit, "D"),
        color=INK,
        markersize=5,
        markerfacecolor=INK if filled else "white",
    )
    ax.annotate(
        f"n = {found.n}" if found.known else f"n = {found.n}, {found.status}",
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=FAINT,
    )
