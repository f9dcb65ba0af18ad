"""Write figures as PNG, SVG and PDF; the same input gives the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine

from gainlens.core.names import CLAIM_FIGURE
from gainlens.figures.style import RC, one_column, root_figure

Format = Literal["png", "svg", "pdf"]
FORMATS: Final[tuple[Format, ...]] = ("png", "svg", "pdf")

_METADATA: Final[dict[Format, dict[str, str | None]]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": "gainlens"},
    "pdf": {"CreationDate": None, "Creator": "gainlens", "Producer": None},
}

_FIRST: Final = ("headline", "importance")
"""Wide figures that a page shows first, beside those of claims.  To draw all wide figures twice
would cost the default run another 3 s; a phone scrolls the others."""


def _lay_out(figure: Figure, engine: LayoutEngine) -> None:
    """Reset the axes and lay out once, so that saving twice gives the same bytes."""
    for ax in figure.axes:
        place = ax.get_subplotspec()
        if place is not None:
            ax.set_subplotspec(place)
    engine.execute(figure)


def save(
    drawn: Axes | Figure, folder: str | Path, name: str, formats: Sequence[Format] = FORMATS
) -> tuple[Path, ...]:
    """Write `name`.png (200 dpi), .svg and .pdf into `folder`, and return the paths.

    The SVG's text is text, and its title the name.

    Args:
        drawn: what a figure function returned; of Axes, the whole figure is written.
        folder: made if it does not exist.
        name: a plain file name without ending.
        formats: the paths come in this order.

    Raises ValueError if `name` is no plain file name.
    """
    if Path(name).name != name or not name:
        raise ValueError(
            f"a figure is saved under a plain file name such as 'gain_curve', got {name!r}; "
            "give the directory as `folder`"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{name}.{kind}" for kind in formats)
    _render(root_figure(drawn), name, dict(zip(formats, paths, strict=True)))
    return paths


def _render(figure: Figure, name: str, into: Mapping[Format, Path | BytesIO]) -> None:
    """Write a figure in each format."""
    engine = figure.get_layout_engine()
    with rc_context(RC):
        if engine is not None:
            _lay_out(figure, engine)
            figure.set_layout_engine(None)  # laid out: else each format does it again, twice
        for kind, place in into.items():
            title = {} if kind == "png" else {"Title": name}
            figure.savefig(place, format=kind, dpi=200, metadata=_METADATA[kind] | title)
        figure.set_layout_engine(engine)


def save_with_page(
    drawings: Mapping[str, Callable[[], Axes | Figure]], folder: Path
) -> dict[str, str]:
    """Write every figure as PNG and SVG, and return the SVG texts that a page shows, by name.

    A wide figure that a page shows first has a second text under its name and `_narrow`, which is
    drawn for a phone and not written.
    """
    texts: dict[str, str] = {}
    for name, draw in drawings.items():
        drawn = draw()
        _, path = save(drawn, folder, name, ("png", "svg"))
        texts[name] = path.read_text("utf-8")
        if name in _FIRST or name.startswith(CLAIM_FIGURE):
            buffer = BytesIO()
            with one_column():
                _render(root_figure(draw()), name, {"svg": buffer})
            texts[f"{name}_narrow"] = buffer.getvalue().decode("utf-8")
    return texts
