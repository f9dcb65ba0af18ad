"""Records -> the terminal: progress, the verdict with its doubts, and the tables behind it."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from gainlens.claims.cells import BLIND, primary_cell
from gainlens.claims.wording import component_label, nats, ratio
from gainlens.notebook.rescore_tables import tables as rescore_tables
from gainlens.notebook.rescoring import Rescore
from gainlens.notebook.table import TABLE_HEADER, comparison_rows, row_cells
from gainlens.records.comparison import Comparison
from gainlens.records.interventions import Change
from gainlens.records.verdict import Effect

_COLOURS = {
    "CONFIRMED": "green",
    "REJECTED": "red",
    "UNEXPECTED": "yellow",
    "INVERTED": "red",
    "UNDETERMINED": "white",
}
_DISSENT_SHOWN = 6
"""The rest is in result.json and in the figure verdict_forest."""
_CHANGES_SHOWN = 16
_PIPE_WIDTH = 120


class ProgressWatch:
    """Progress of a comparison on standard error; silent where that is no terminal."""

    def __init__(self, progress: Progress, models: int, quiet: bool) -> None:
        self._progress = progress
        self._quiet = quiet
        self._models = progress.add_task("models", total=models)
        self._prompts = progress.add_task("prompts", total=None, visible=False)

    @contextmanager
    def model(self, name: str, prompts: int) -> Generator[None]:
        """Show the model at work."""
        self._progress.update(self._models, description=escape(name))
        self._progress.reset(self._prompts, total=prompts, visible=True)
        yield
        self._progress.advance(self._models)
        self._progress.update(self._prompts, visible=False)

    def advance(self, prompts: int) -> None:
        """So many prompts more are done."""
        self._progress.advance(self._prompts, prompts)

    def tell(self, sentence: str) -> None:
        """A line that stays, also where standard error is no terminal."""
        if not self._quiet:
            self._progress.console.print(escape(sentence), highlight=False, soft_wrap=True)

    def phase(self, name: str) -> None:
        """What happens after the last model."""
        self._progress.update(self._models, description=name)


@contextmanager
def progress(quiet: bool, models: int) -> Generator[ProgressWatch]:
    """Progress bars with the time left, on standard error, only where it is a terminal."""
    console = Console(stderr=True)
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bars:
        yield ProgressWatch(bars, models, quiet)


def console_of() -> Console:
    """Standard output; 110 columns where it is no terminal, so that a log keeps its tables."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def print_comparison(comparison: Comparison, written: Sequence[Path]) -> None:
    """The verdict first, then the tables it rests on, then where everything is."""
    console = console_of()
    verdict = comparison.verdict
    console.print(
        Panel(
            escape(verdict.headline),
            title=f"{verdict.outcome}{'' if verdict.robust else ', not robust'}",
            border_style=_COLOURS[verdict.outcome],
        )
    )
    console.print(_gain_table(comparison))
    for table in _intervention_tables(comparison):
        console.print(table)
    console.print(_notebook_table(comparison))
    console.print(_doubts(comparison))
    if verdict.attribution:
        console.print(_attribution_table(verdict.attribution))
    console.print(_sentences("Why", verdict.reasons))
    if verdict.attribution_note:
        console.print(f"Attribution: {escape(verdict.attribution_note)}", highlight=False)
    folders = sorted({str(path.parent) for path in written})
    where = escape(", ".join(folders))
    console.print(f"Measured in {comparison.seconds:.1f} s, written to {where}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _gain_table(comparison: Comparison) -> Table:
    """The last block of every model: gain with interval, parts, and the notebook's number."""
    rule = comparison.spec.rule
    table = _table(
        f"Last block, {rule.reduction} over {rule.token_class} tokens, "
        f"{rule.confidence:.0%} over prompts; parts in nats ({rule.split})",
        "model", "role", "gain", "", "attention", "MLP", "notebook's last_gain = block x norm",
    )  # fmt: skip
    for report in comparison.reports:
        last, residual = report.blocks[-1], report.residual
        table.add_row(
            escape(report.checkpoint.name),
            report.role,
            ratio(primary_cell(report.cells, rule).log_gain),
            report.behaviour or "unknown",
            f"{last.attention:+.3f}",
            f"{last.mlp:+.3f}",
            f"{residual.last_gain:.3f} = {residual.true_last_gain:.3f} x "
            f"{residual.final_norm_gain:.3f}",
        )
    return table


def _intervention_tables(comparison: Comparison) -> list[Table]:
    """The last block before and after each intervention, one table a kind."""
    models = [(report.checkpoint.name, report.interventions) for report in comparison.reports]
    asked = " and ".join(f"{one.site}={one.how}" for one in comparison.spec.ablate)
    kinds: list[tuple[str, str, list[tuple[str, str, Change]]]] = [
        (
            f"Under {asked}: {comparison.verdict.ablated_outcome}",
            "",
            [(name, "", done.ablated.change) for name, done in models if done.ablated],
        ),
        (
            "Components of the last blocks ablated in turn",
            "component",
            [
                (name, f"{component_label(e.site)}, {e.how}", e.change)
                for name, done in models
                for e in done.sweep
            ],
        ),
        (
            "Massive activations and BOS",
            "control",
            [
                (name, found.name, found.change)
                for name, done in models
                for found in done.controls
                if found.change
            ],
        ),
        (
            "The same weights under another theta",
            "theta",
            [
                (name, f"{dose.theta:,.0f}", dose.change)
                for name, done in models
                for dose in done.theta_dose
                if not dose.own
            ],
        ),
    ]
    return [_changes(title, column, rows) for title, column, rows in kinds if rows]


def _changes(title: str, column: str, rows: Sequence[tuple[str, str, Change]]) -> Table:
    table = _table(title, "model", column, "gain after", "", "log gain, nats", "loss, nats a token")
    shown = rows[:_CHANGES_SHOWN]
    for model, what, change in shown:
        table.add_row(
            escape(model),
            escape(what),
            ratio(change.after.log_gain),
            change.after.behaviour or "unknown",
            nats(change.delta_log_gain),
            f"{change.delta_loss.estimate:+.3f}",
        )
    if len(rows) > len(shown):
        table.add_row(f"and {len(rows) - len(shown)} more in sweep.csv and report.html")
    return table


def _notebook_table(comparison: Comparison) -> Table:
    test = comparison.test
    table = _table(
        f"The notebook's table and its rule: {test.verdict} (theta ratio {test.theta_ratio:.1f}, "
        f"gain ratio {test.gain_ratio:.2f}, W_U ratio {test.wu_ratio:.2f})",
        *TABLE_HEADER,
    )
    for row in comparison_rows(comparison.spec, comparison.reports):
        table.add_row(*(escape(cell) for cell in row_cells(row)))
    return table


def _doubts(comparison: Comparison) -> Group:
    verdict = comparison.verdict
    blind = [line for line in verdict.dissent if line.endswith(BLIND)]
    vetoes = verdict.dissent[: len(verdict.dissent) - len(blind)]  # the blind come last
    shown = [*vetoes[:_DISSENT_SHOWN]]
    if len(vetoes) > _DISSENT_SHOWN:
        shown.append(f"and {len(vetoes) - _DISSENT_SHOWN} more in result.json")
    if blind:
        shown.append(f"{len(blind)} cells after the final norm, blind to the last block: no veto")
    identification = verdict.identification
    confounds = "; ".join(identification.differing) or "nothing but theta and context differs"
    return Group(
        _sentences("Dissent", shown or ["none"]),
        f"Identification: {'CONTROLLED' if identification.controlled else 'CONFOUNDED'}: "
        f"{escape(confounds)}",
    )


def _attribution_table(effects: Sequence[Effect]) -> Table:
    table = _table("Effect on the last block's log gain, nats", "factor", "effect", "over", "at")
    for effect in effects:
        interval = effect.log_gain
        table.add_row(
            effect.factor,
            f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]",
            f"{interval.n} {effect.unit}",
            effect.at,
        )
    return table


def _sentences(title: str, sentences: Sequence[str]) -> Group:
    return Group(f"[bold]{title}[/bold]", *(f"  - {escape(line)}" for line in sentences))


def print_rescore(score: Rescore, path: Path) -> None:
    """What an old result can and cannot say, as tables."""
    console = console_of()
    for content in rescore_tables(score):
        table = _table(escape(content.title), "", "value", "what it means")
        table.columns[1].justify = table.columns[2].justify = "left"
        for row in content.rows:
            table.add_row(escape(row.label), escape(row.value), escape(row.explanation))
        console.print(table)
        console.print()
    console.print(f"Written to {escape(str(path))}")
