"""Write numbers as the terminal, the page and the reasons show them: each with its doubt."""

from math import exp, isfinite
from typing import Final

from gainlens.records.interval import Interval

_COMPONENTS: Final = {"hook_attn_out": "attention", "hook_mlp_out": "MLP", "attn.hook_z": "head"}


def ratio(interval: Interval) -> str:
    """Write an interval on log gain as a gain: 1.080 [1.071, 1.089], or why it is not known."""
    if not isfinite(interval.estimate):
        return f"unknown: {interval.status}"
    if not isfinite(interval.low):
        return f"{exp(interval.estimate):.3f} ({interval.status})"
    return f"{exp(interval.estimate):.3f} [{exp(interval.low):.3f}, {exp(interval.high):.3f}]"


def nats(interval: Interval) -> str:
    """Write an interval in nats with its sign, or why it is not known."""
    if not isfinite(interval.low):
        return f"{signed(interval.estimate)} ({interval.status})"
    return f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def short_nats(interval: Interval) -> str:
    """Write an interval in nats with three digits, for sentences."""
    if not interval.known:
        return f"{signed(interval.estimate, 3)} nats ({interval.status})"
    return f"{interval.estimate:+.3f} nats [{interval.low:+.3f}, {interval.high:+.3f}]"


def signed(value: float | None, digits: int = 4) -> str:
    """Write a number with its sign; `unknown` for NaN; no sign for what rounds to 0."""
    if value is None or not isfinite(value):
        return "unknown"
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def plain(value: float | None, form: str = ",.6g") -> str:
    """Write a number; `unknown` for NaN and None."""
    return format(value, form) if value is not None and isfinite(value) else "unknown"


def yes_no(value: bool | None) -> str:
    """Write a truth value in words."""
    return "unknown" if value is None else "yes" if value else "no"


def component_label(site: str) -> str:
    """Write a site in words: blocks.-1.attn.hook_z[2] -> last block, head 2."""
    _, block, *rest = site.split(".")
    name, _, head = ".".join(rest).partition("[")
    back = -int(block)
    where = "last" if back == 1 else f"{back}{ {2: 'nd', 3: 'rd'}.get(back, 'th') } last"
    return f"{where}, {_COMPONENTS.get(name, name)}{f' {head[:-1]}' if head else ''}"


def at_group(by: str, group: str) -> str:
    """Write a group of prompts or positions: `on short prompts`, `at positions 1-3`."""
    if by == "position":
        return f"at position{'' if group.isdigit() else 's'} {group}"
    return f"on {group}" if by == "length" else f"on prompts of kind {group}"
