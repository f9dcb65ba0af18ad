"""Numbers as the terminal, the page and the reasons write them: each with its doubt."""

from math import exp, isfinite
from typing import Final

from gainlens.records.interval import Interval

_COMPONENTS: Final = {"hook_attn_out": "attention", "hook_mlp_out": "MLP", "attn.hook_z": "head"}


def ratio(interval: Interval) -> str:
    """An interval on log gain as a gain: 1.080 [1.071, 1.089], or why it is not known."""
    if not isfinite(interval.estimate):
        return f"unknown: {interval.status}"
    if not isfinite(interval.low):
        return f"{exp(interval.estimate):.3f} ({interval.status})"
    return f"{exp(interval.estimate):.3f} [{exp(interval.low):.3f}, {exp(interval.high):.3f}]"


def nats(interval: Interval) -> str:
    """An interval in nats, signed."""
    if not isfinite(interval.low):
        return f"{signed(interval.estimate)} ({interval.status})"
    return f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def signed(value: float | None, digits: int = 4) -> str:
    """A number with its sign; `unknown` for NaN."""
    return f"{value:+.{digits}f}" if value is not None and isfinite(value) else "unknown"


def plain(value: float | None, form: str = ",.6g") -> str:
    """A number; `unknown` for NaN and None."""
    return format(value, form) if value is not None and isfinite(value) else "unknown"


def yes_no(value: bool | None) -> str:
    """A truth value in words."""
    return "unknown" if value is None else "yes" if value else "no"


def component_label(site: str) -> str:
    """blocks.-1.attn.hook_z[2] -> last block, head 2; blocks.-3.hook_mlp_out -> 3rd last, MLP."""
    _, block, *rest = site.split(".")
    name, _, head = ".".join(rest).partition("[")
    back = -int(block)
    place = "last" if back == 1 else f"{back}{ {2: 'nd', 3: 'rd'}.get(back, 'th') } last"
    return f"{place}, {_COMPONENTS.get(name, name)}{f' {head[:-1]}' if head else ''}"
