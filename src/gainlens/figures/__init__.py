"""Records -> matplotlib axes: one function a question, each usable alone.

    from gainlens.figures import gain_curve, save

    axes = gain_curve(comparison.reports)
    save(axes, "figures", "gain_curve")

Functions that draw one panel take `ax=` and return the Axes; those of several panels return the
Figure.  `reports` are a comparison's, one a model: in every figure a model has the same colour,
line and marker.  None touches pyplot, so nothing stays open and no backend is chosen for the user.
Importing this package imports no matplotlib: that happens with the first function asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
