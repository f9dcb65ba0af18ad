"""Draw what the weights say without a prompt: the spectrum of W_U, and RoPE's wavelengths."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gainlens.figures.along import legend_along, looks_along
from gainlens.figures.blocks import Reports, listed
from gainlens.figures.ordering import Along
from gainlens.figures.scales import log_axis, positive
from gainlens.figures.style import (
    INK,
    ONE_COLUMN,
    SMALL,
    axes_or_new,
    label,
    looks,
    name_of,
    note,
    styled,
)
from gainlens.records.comparison import ModelReport
from gainlens.records.weights import RopeReport

_CENTRED: Final[Any] = (0, (4, 2))
_EDGE: Final[Any] = (0, (1, 1.5))
"""Line styles of the spectrum without the mean row, and of the random-matrix edge."""

_FLOOR = 1e-5
"""Singular values below this share of the largest are 0 but for rounding and are not drawn."""


@styled
def unembed_spectrum(
    reports: Reports, ax: Axes | None = None, *, along: Along | None = None
) -> Axes:
    """Draw the singular values of W_U over the root of the vocabulary against their rank.

    Solid: as it is.  Dashed: minus its mean row, which softmax cannot see.  Dotted level: the
    largest singular value of a random matrix of the same shape and Frobenius norm (Bai & Yin 1993).
    Both axes are logarithmic.  Along training steps (`along`) a strip over the panel shows them.
    """
    reports = listed(reports)
    panel = axes_or_new(ax, ONE_COLUMN, 2.7 + 0.1 * (len(reports) if along is None else 3))
    for place, (report, look) in enumerate(zip(reports, looks_along(reports, along), strict=True)):
        unembed = report.unembed
        root = np.sqrt(unembed.vocab_size)
        for spectrum, line in ((unembed.spectrum, "-"), (unembed.centred_spectrum, _CENTRED)):
            kept = np.where(spectrum > _FLOOR * spectrum[0], spectrum, np.nan) / root
            rank = np.arange(1, len(kept) + 1)
            panel.plot(
                rank,
                positive(kept),
                color=look.colour,
                linestyle=line,
                linewidth=1.1,
                marker=look.marker,
                markersize=3.6,
                markerfacecolor=look.colour if line == "-" else "white",
                markevery=_marked(len(kept), place / len(reports)),
            )
        edge = unembed.spectral_norm / unembed.edge_ratio / root
        if np.isfinite(edge) and edge > 0:
            panel.axhline(edge, color=look.colour, linestyle=_EDGE, linewidth=0.9)
    panel.set_xlabel(label("rank"))
    panel.set_ylabel(label("spectrum"))
    log_axis(panel.xaxis)
    log_axis(panel.yaxis)
    _spectrum_legend(panel, reports, along, outside=ax is None)
    return panel


def _marked(ranks: int, shift: float) -> list[int]:
    """Return the first rank, and two per decade from a place that differs between models."""
    later = 10 ** np.arange(0.5 * (1 + shift), np.log10(max(ranks, 2)), 0.5)
    return sorted({0, *(int(rank) for rank in later - 1)})


def _spectrum_legend(
    ax: Axes, reports: Sequence[ModelReport], along: Along | None, *, outside: bool
) -> None:
    handles: list[Line2D] = []
    names: list[str] = []
    if along is None:
        for report, look in zip(reports, looks(reports), strict=True):
            handles.append(Line2D([], [], color=look.colour, marker=look.marker, linestyle="-"))
            names.append(name_of(report))
    kinds: list[tuple[Any, str]] = [("-", "W_U"), (_CENTRED, "W_U minus its mean row")]
    if any(np.isfinite(report.unembed.edge_ratio) for report in reports):
        kinds.append((_EDGE, "random-matrix edge"))
    for line, text in kinds:
        handles.append(Line2D([], [], color=INK, linestyle=line, linewidth=1.1))
        names.append(text)
    legend_along(ax, reports, along, outside=outside, handles=handles, names=names)


@styled
def rope_wavelengths(
    reports: Reports, ax: Axes | None = None, *, along: Along | None = None
) -> Axes:
    """Draw every rotated pair's wavelength, tokens per turn, against the model's context.

    The horizontal line in a model's style is its context: pairs above it never complete a turn.
    The legend gives theta as the config states it, and as the rotary buffers measure it if that
    differs.  Along training steps (`along`) it names every theta once, and a strip over the panel
    shows the steps.
    """
    reports = listed(reports)
    panel = axes_or_new(ax, ONE_COLUMN, 2.3 + 0.14 * (len(reports) if along is None else 3))
    for place, (report, look) in enumerate(zip(reports, looks_along(reports, along), strict=True)):
        rope = report.rope
        pairs = np.arange(len(rope.wavelengths))
        panel.plot(
            pairs,
            positive(rope.wavelengths),
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=3.2,
            # models of one theta lie on one another: their markers take turns
            markevery=(place, max(len(reports), len(pairs) // 10)) if len(pairs) else None,
            label=_thetas(rope) if along else f"{name_of(report, 24)}: {_thetas(rope)}",
        )
        if rope.max_position and len(pairs):
            panel.axhline(rope.max_position, color=look.colour, linestyle=look.line, linewidth=0.8)
    panel.set_xlabel(label("rotated_pair"))
    panel.set_ylabel(label("wavelengths"))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    if any(len(report.rope.wavelengths) for report in reports):
        log_axis(panel.yaxis)
        _name_contexts(panel, reports)
    else:
        note(panel, "none of these models has RoPE")
    once: dict[str, Any] = {}
    if along is not None:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            once.setdefault(name, handle)
    legend_along(panel, reports, along, outside=ax is None, handles=[*once.values()], names=[*once])
    return panel


def _thetas(rope: RopeReport) -> str:
    if rope.rope_theta is None:
        return "no RoPE"
    stated = f"{rope.rope_theta:,.0f}"
    found = "" if rope.measured_theta is None else f"{rope.measured_theta:,.0f}"
    measured = {stated: "", "": ", not measured"}.get(found, f", measured {found}")
    return f"theta {stated}{measured}{', scaled' if rope.rope_scaling else ''}"


def _name_contexts(ax: Axes, reports: Sequence[ModelReport]) -> None:
    """Write each context in tokens once, at the left end of its line."""
    shown = sorted({r.rope.max_position or 0 for r in reports if len(r.rope.wavelengths)} - {0})
    for context, above in zip_longest(shown, shown[1:], fillvalue=np.inf):
        crowded = above < 4 * context  # then under its line, else over it
        ax.annotate(
            f"context {context:,}",
            (0, context),
            xycoords=("axes fraction", "data"),
            xytext=(3, -1.5 if crowded else 1.5),
            textcoords="offset points",
            va="top" if crowded else "bottom",
            fontsize=SMALL,
        )
