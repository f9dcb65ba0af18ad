"""Records -> matplotlib axes: one function a question, each usable alone.

    from gainlens.figures import gain_curve, save

    axes = gain_curve(comparison.reports)
    save(axes, "figures", "gain_curve")

Functions that draw one panel take `ax=` and return the Axes; those of several panels return the
Figure.  `reports` are a comparison's, one a model: in every figure a model has the same colour,
line and marker.  None touches pyplot, so nothing stays open and no backend is chosen for the user.
Importing this package imports no matplotlib: that happens with the first function asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gainlens.figures.bench import bench_figure, bench_memory, bench_times
    from gainlens.figures.blocks import gain_curve, split
    from gainlens.figures.causes import attribution, training_curves, training_figure
    from gainlens.figures.forest import verdict_forest
    from gainlens.figures.interventions import ablation_heatmap, theta_dose
    from gainlens.figures.lifecycle import ClassNorms, class_norms, massive_lifecycle
    from gainlens.figures.original import notebook_figure
    from gainlens.figures.places import gain_by_position, position_quartiles
    from gainlens.figures.saving import save
    from gainlens.figures.summary import headline
    from gainlens.figures.weights import rope_wavelengths, unembed_spectrum

_HOME = {
    "bench_figure": "bench",
    "bench_memory": "bench",
    "bench_times": "bench",
    "gain_curve": "blocks",
    "split": "blocks",
    "attribution": "causes",
    "training_curves": "causes",
    "training_figure": "causes",
    "verdict_forest": "forest",
    "ablation_heatmap": "interventions",
    "theta_dose": "interventions",
    "ClassNorms": "lifecycle",
    "class_norms": "lifecycle",
    "massive_lifecycle": "lifecycle",
    "notebook_figure": "original",
    "gain_by_position": "places",
    "position_quartiles": "places",
    "save": "saving",
    "headline": "summary",
    "rope_wavelengths": "weights",
    "unembed_spectrum": "weights",
}

__all__ = [
    "ClassNorms",
    "ablation_heatmap",
    "attribution",
    "bench_figure",
    "bench_memory",
    "bench_times",
    "class_norms",
    "gain_by_position",
    "gain_curve",
    "headline",
    "massive_lifecycle",
    "notebook_figure",
    "position_quartiles",
    "rope_wavelengths",
    "save",
    "split",
    "theta_dose",
    "training_curves",
    "training_figure",
    "unembed_spectrum",
    "verdict_forest",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
