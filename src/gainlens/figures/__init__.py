"""Draw records with matplotlib: one function per question, each usable alone.

    from gainlens.figures import gain_curve, save

    axes = gain_curve(comparison.reports)
    save(axes, "figures", "gain_curve")

The reports of one model or of many go in.  Functions that draw one panel take `ax=` and return the
Axes; those of several panels return the Figure.  A model has the same colour, line and marker in
every figure.  No function touches pyplot, so nothing stays open and no back end is chosen for the
user.  matplotlib is imported when the first function is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
