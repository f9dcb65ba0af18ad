"""Write contradictions, ratios and intervals in words, and facts as a table."""

from collections.abc import Iterable
from operator import itemgetter

from gainlens.core.table import Table, column, fill
from gainlens.notebook.record import Finding


def facts(title: str, rows: Iterable[tuple[str, str, str]]) -> Table:
    """Return a table of facts, each with its value and what it means."""
    heads = ("", "value", "what it means")
    columns = [column(head, itemgetter(index)) for index, head in enumerate(heads)]
    return fill("facts", title, "", columns, rows)


def sentence(finding: Finding) -> str:
    """Return a contradiction as a sentence."""
    stated, recomputed = _plain(finding.stated), finding.recomputed
    if recomputed is None:
        return f"stated as {stated}, but the file has nothing to compute it from"
    return f"stated as {stated}, recomputed it is {_plain(recomputed)}"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"


def three(value: float | None) -> str:
    """Return a ratio to three decimals, in powers of ten if it has none within three."""
    if value is None:
        return "unknown"
    return f"{value:.3f}" if 5e-4 <= value < 1e6 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval of ratios, or nothing if it is not known."""
    return "" if low is None or high is None else f"[{three(low)}, {three(high)}]"
