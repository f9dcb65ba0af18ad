"""Build the tables of a comparison, one function per question."""

from collections.abc import Callable
from typing import Any, Final

from gainlens.claims.cells import primary_cell
from gainlens.claims.wording import nats, plain, ratio, signed, yes_no
from gainlens.core.glossary import GLOSSARY
from gainlens.core.table import NAME, Table, fill, number, word
from gainlens.notebook.table import TABLE_HEADER, comparison_rows, row_cells
from gainlens.records.comparison import Comparison, ModelReport
from gainlens.records.gains import MassiveToken
from gainlens.records.interval import Interval
from gainlens.records.verdict import Effect
from gainlens.report.intervention_tables import intervention_tables
from gainlens.report.run import Run

MASSIVE_SHOWN: Final = 40
"""Massive tokens per model that the page lists; result.json holds all."""


def _attribute(name: str, form: str) -> Callable[[Any], str]:
    """Return a formatter of the attribute at a dotted path."""

    def text(record: Any) -> str:
        for part in name.split("."):
            record = getattr(record, part)
        return plain(record, form)

    return text


_MODEL: Final = word(NAME, lambda report: report.checkpoint.name)
_ROLE: Final = word("role", lambda report: report.role)


def last_block(run: Run) -> Table:
    """Return every model's last block under the primary estimand.

    A comparison adds the roles and the notebook's number.
    """
    rule = run.spec.rule

    def primary(report: ModelReport) -> Interval:
        return primary_cell(report.cells, rule).log_gain

    counts = sorted({primary(report).n for report in run.reports})
    prompts = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    columns = [
        _MODEL,
        number("gain", lambda report: ratio(primary(report)), "gain"),
        number("attention", lambda report: signed(report.blocks[-1].attention, 3), "attention"),
        number("mlp", lambda report: signed(report.blocks[-1].mlp, 3), "MLP"),
    ]
    if isinstance(run, Comparison):
        columns.insert(1, _ROLE)
        columns.append(number("last_gain", _attribute("residual.last_gain", ".3f"), "last_gain"))
    return fill(
        "gains",
        "The last block",
        f"{GLOSSARY[rule.reduction].label} over {GLOSSARY[rule.token_class].label}, "
        f"{rule.confidence:.0%} intervals over {prompts} prompts; parts in nats",
        columns,
        run.reports,
    )


def notebook_parts(comparison: Comparison) -> Table:
    """Return the notebook's last_gain of every model, factored into block and final norm."""
    return fill(
        "true-gain",
        "The notebook's number and the true one",
        "On the notebook's sentence: its last_gain is exactly the last block times the final norm, "
        "and the final norm forgets the scale of its input.",
        (
            _MODEL,
            *(
                number(name, _attribute(f"residual.{name}", ".4f"))
                for name in ("last_gain", "true_last_gain", "final_norm_gain")
            ),
        ),
        comparison.reports,
    )


def notebook(comparison: Comparison) -> Table:
    """Return the notebook's own table with the rows that were published elsewhere."""
    test = comparison.test
    keys = (NAME, "context", "rope_theta", "last_gain", "spectral_norm", "notebook_behaviour")
    columns = [
        (word if key in (NAME, "notebook_behaviour") else number)(
            key, lambda row, index=index: row_cells(row)[index], head
        )
        for index, (key, head) in enumerate(zip(keys, TABLE_HEADER, strict=True))
    ]
    return fill(
        "notebook",
        "The notebook's table",
        f"Its rule says {test.verdict}: theta ratio {plain(test.theta_ratio, '.1f')}, gain ratio "
        f"{plain(test.gain_ratio, '.2f')}, W_U ratio {plain(test.wu_ratio, '.2f')}.",
        (*columns, word("source", lambda row: row.source, "from")),
        comparison_rows(comparison.spec, comparison.reports),
    )


def _factor(effect: Effect) -> str:
    return f"{effect.factor} on {effect.component}" if effect.component else effect.factor


def attribution(comparison: Comparison) -> Table:
    """Return the effects of theta and of context on the last block's log gain."""
    return fill(
        "attribution",
        "Effects on the last block's log gain",
        comparison.verdict.attribution_note,
        (
            word("factor", _factor),
            number("effect", lambda effect: nats(effect.log_gain), "effect, nats"),
            number("n", lambda effect: str(effect.log_gain.n)),
            word("unit", lambda effect: effect.unit, "over"),
            word("at", lambda effect: effect.at),
        ),
        comparison.verdict.attribution,
    )


def unembedding(run: Run) -> Table:
    """Return W_U as the notebook measured it, and normalised."""
    forms = {
        "frobenius_norm": ",.4g", "spectral_norm": ",.4g", "mean_row_norm": ".4g",
        "sigma_per_sqrt_vocab": ".4g", "edge_ratio": ".4g", "stable_rank": ",.4g",
        "effective_rank": ",.4g", "mean_row_cosine": ".3f",
    }  # fmt: skip
    return fill(
        "unembedding",
        "The unembedding W_U",
        "σ_max grows with the square root of the vocabulary; the columns after it do not.",
        (
            _MODEL,
            *(number(name, _attribute(f"unembed.{name}", form)) for name, form in forms.items()),
        ),
        run.reports,
    )


def rope(run: Run) -> Table:
    """Return RoPE as the config states it and as the rotary buffers measure it."""
    forms = {
        "rope_theta": ",.0f", "measured_theta": ",.0f", "theta_bound": ",.0f",
        "beyond_context": ".0%",
    }  # fmt: skip
    return fill(
        "rope",
        "RoPE",
        "",
        (
            _MODEL,
            number("context", lambda report: f"{report.checkpoint.context:,}"),
            *(number(name, _attribute(f"rope.{name}", form)) for name, form in forms.items()),
        ),
        run.reports,
    )


def checks(run: Run) -> Table:
    """Return what was checked at load, and the two controls that always run."""

    def kl(report: ModelReport) -> str:
        known = report.checkpoint.logits_kl
        return "itself" if known is None else plain(known, ".1e")

    return fill(
        "controls",
        "Checks and controls",
        "",
        (
            _MODEL,
            word("backend", lambda report: report.checkpoint.backend),
            word("dtype", lambda report: report.checkpoint.dtype),
            number("additivity", _attribute("checkpoint.additivity", ".1e")),
            number("logits_kl", kl),
            number("scale_control", _attribute("scale_control", ".1e")),
            number("halves_control", lambda report: nats(report.halves_control)),
        ),
        run.reports,
    )


def cells(run: Run) -> Table:
    """Return the last block in every way of measuring it, models side by side."""

    def gain(index: int) -> Callable[[Any], str]:
        return lambda row: f"{ratio(row[index].log_gain)} {row[index].behaviour or ''}".rstrip()

    reports = run.reports
    return fill(
        "cells",
        "Every way of measuring the last block",
        "A claim that only one of these supports is no finding.",
        (
            word("token_class", lambda row: GLOSSARY[row[0].token_class].label),
            word("reduction", lambda row: GLOSSARY[row[0].reduction].label),
            word("lengths", lambda row: row[0].lengths),
            word("after_final_norm", lambda row: yes_no(row[0].after_final_norm)),
            *(
                number("gain", gain(index), f"gain, {report.checkpoint.name}")
                for index, report in enumerate(reports)
            ),
        ),
        zip(*(report.cells for report in reports), strict=True),
    )


def massive(report: ModelReport) -> Table:
    """Return one model's massive tokens, with the blocks that write and erase them."""
    shown = report.massive[:MASSIVE_SHOWN]

    def known(name: str) -> Callable[[Any], str]:
        def text(token: MassiveToken) -> str:
            value = getattr(token, name)
            return "none" if value is None else str(value)

        return text

    return fill(
        f"massive-{report.checkpoint.name}",
        f"Massive tokens of {report.checkpoint.name}",
        f"{len(shown)} of {len(report.massive)}, position 0 included if it is tracked.",
        (
            word("prompt", lambda token: report.prompts.ids[int(token.prompt)]),
            number("position", lambda token: str(token.position)),
            word("text", lambda token: visible_text(token.text)),
            number("written_by", known("written_by")),
            word("written_component", known("written_component")),
            number("plateau", _attribute("plateau", ".4g")),
            number("erased_by", known("erased_by")),
            word("erased_component", known("erased_component")),
            word("dims", _dimensions),
        ),
        shown,
    )


def _dimensions(token: MassiveToken) -> str:
    return " ".join(map(str, token.dims))


def visible_text(text: str) -> str:
    """Return a token's text with its blanks and line ends made visible."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "(empty)"


def blocks(report: ModelReport) -> Table:
    """Return every block of one model under the primary estimand."""
    return fill(
        f"blocks-{report.checkpoint.name}",
        f"Every block of {report.checkpoint.name}",
        "The interval is simultaneous over blocks.",
        (
            number("layer", lambda block: str(block.block), "block"),
            *(number(name, _attribute(name, ".4f")) for name in ("gain", "low", "high")),
            *(number(name, _attribute(name, "+.4f")) for name in ("log_gain", "attention", "mlp")),
            number("remainder", _attribute("remainder", "+.0e")),
        ),
        report.blocks,
    )


def supporting(run: Run) -> list[Table]:
    """Return every table behind the answer that has rows, in the order of reading."""
    of_claim: list[Table] = []
    if isinstance(run, Comparison):
        of_claim = [notebook_parts(run), notebook(run)]
        of_claim += [attribution(run)] if run.verdict.attribution else []
    return [*of_claim, *intervention_tables(run), unembedding(run), rope(run), checks(run)]


def long_tables(run: Run) -> list[Table]:
    """Return the tables with many rows: every cell, massive tokens, every block."""
    return [
        cells(run),
        *(massive(report) for report in run.reports if report.massive),
        *(blocks(report) for report in run.reports),
    ]
