"""Hold every metric by name, built in or registered by a user, and find one by what was typed."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gainlens.core.messages import check_one_of, nearest
from gainlens.metrics.builtin import BUILT_IN
from gainlens.metrics.metric import OVERS, Metric, Over

METRICS: dict[str, Metric] = dict(BUILT_IN)
"""Metrics by name, in the order in which they are listed; `metric` adds to it."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def metric(
    *,
    unit: str,
    neutral: float | None,
    definition: str,
    source: str = "",
    over: Over = "block token",
) -> Callable[[_Function], _Function]:
    """Register a function as a metric under its own name, so that it works where a built-in does.

    Args:
        unit: of the values, for axes and tables; "1" for a pure number.
        neutral: the value that means "no change"; None if no value does.
        definition: what the number is, in one sentence or a formula.
        source: the paper that it is from.
        over: axes of the array that the function returns; "token" belongs to the last block.

    The function's parameters name the columns that it gets (`gainlens.metrics.metric.columns_of`
    lists them).  Raises ValueError if a built-in metric has the name.

    Examples:
        >>> @gainlens.metric(unit="nats", neutral=0.0, definition="ln |x+a|/|x|")
        ... def after_attention(xx, xa_sq):
        ...     return np.log(xa_sq / xx) / 2
        >>> "after_attention" in gainlens.metrics.registry.METRICS
        True
    """
    check_one_of("over", over, OVERS)

    def register(function: _Function) -> _Function:
        _add(Metric(function.__name__, definition, unit, neutral, source, function, over))
        return function

    return register


def metric_named(text: str) -> Metric:
    """Return the metric with this name, or the one that `module:function` names.

    Raises ValueError, with the nearest name, if no metric has it; see also `load_metric`.
    """
    if ":" in text:
        return load_metric(text)
    if text not in METRICS:
        raise ValueError(
            f"no metric is called {text!r}; {nearest(text, METRICS)}. One of your own is given as "
            "module:function"
        )
    return METRICS[text]


def load_metric(text: str) -> Metric:
    """Import `module:function` and return the metric that it is.

    The module is looked for in the working directory too.  A function without `@gainlens.metric`
    is registered with the first line of its docstring as definition, no unit and no neutral value.
    Raises ValueError if the module or the function cannot be had.
    """
    module_name, _, name = text.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as problem:
        raise ValueError(
            f"metric {text!r}: module {module_name!r} cannot be imported: {problem}"
        ) from None
    function: Any = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"metric {text!r}: {module_name} has no function {name!r}")
    known = METRICS.get(name)
    if known is None or known.function is not function:
        first_line = (function.__doc__ or name).strip().partition("\n")[0]
        _add(Metric(name, first_line, "", None, module_name, function))
    return METRICS[name]


def _add(new: Metric) -> None:
    if new.name in BUILT_IN:
        raise ValueError(f"{new.name!r} is a built-in metric; give yours another name")
    METRICS[new.name] = new
