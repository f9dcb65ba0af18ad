"""A comparison -> the tables of its page that everyone reads."""

from math import exp

from gainlens.claims.cells import primary_cell
from gainlens.claims.wording import nats, plain, ratio, signed, yes_no
from gainlens.core.glossary import GLOSSARY
from gainlens.notebook.table import TABLE_HEADER, comparison_rows, row_cells
from gainlens.records.comparison import Comparison, ModelReport
from gainlens.records.interval import Interval
from gainlens.records.interventions import Change
from gainlens.report.table import Column, Table, column


def gains(comparison: Comparison) -> Table:
    """The last block of every model under the primary estimand."""
    rule = comparison.spec.rule
    return Table(
        "gains",
        "The last block",
        f"{GLOSSARY[rule.reduction].label} over {GLOSSARY[rule.token_class].label}, interval at "
        f"{rule.confidence:.0%} over prompts; parts by the {GLOSSARY[rule.split].label}. This was "
        "fixed before the run.",
        (
            column("model", numeric=False),
            column("role", numeric=False),
            column("gain", "gain [interval]"),
            column("behaviour", numeric=False),
            column("equivalent", numeric=False),
            column("n", "prompts"),
            column("log_gain", "log gain, nats"),
            column("attention", "attention, nats"),
            column("mlp", "MLP, nats"),
        ),
        tuple(
            (
                report.checkpoint.name,
                report.role,
                ratio(primary := _primary(comparison, report)),
                report.behaviour or "unknown",
                yes_no(report.equivalent),
                str(primary.n),
                signed(report.blocks[-1].log_gain),
                signed(report.blocks[-1].attention),
                signed(report.blocks[-1].mlp),
            )
            for report in comparison.reports
        ),
    )


def _primary(comparison: Comparison, report: ModelReport) -> Interval:
    return primary_cell(report.cells, comparison.spec.rule).log_gain


def numbers(comparison: Comparison) -> Table:
    """The notebook's last_gain beside what it was taken for."""
    return Table(
        "true-gain",
        "The notebook's number and the true one",
        "On the notebook's sentence: its last_gain is exactly the last block times the final norm, "
        "and the final norm forgets the scale that it is given.",
        (
            column("model", numeric=False),
            column("last_gain"),
            column("true_last_gain"),
            column("final_norm_gain"),
            column("gain", "gain, this run's prompts"),
        ),
        tuple(
            (
                report.checkpoint.name,
                plain(report.residual.last_gain, ".4f"),
                plain(report.residual.true_last_gain, ".4f"),
                plain(report.residual.final_norm_gain, ".4f"),
                ratio(_primary(comparison, report)),
            )
            for report in comparison.reports
        ),
    )


def notebook(comparison: Comparison) -> Table:
    """The notebook's own table, with where its rows are from."""
    test = comparison.test
    keys = ("model", "context", "rope_theta", "last_gain", "spectral_norm", "notebook_behaviour")
    words = ("model", "notebook_behaviour")
    heads = zip(keys, TABLE_HEADER, strict=True)
    return Table(
        "notebook",
        "The notebook's table",
        f"Its rule says {test.verdict}: theta ratio {plain(test.theta_ratio, '.1f')}, gain ratio "
        f"{plain(test.gain_ratio, '.2f')}, W_U ratio {plain(test.wu_ratio, '.2f')}.",
        (
            *(column(key, head, numeric=key not in words) for key, head in heads),
            column("source", "from", numeric=False),
        ),
        tuple(
            (*row_cells(row), row.source)
            for row in comparison_rows(comparison.spec, comparison.reports)
        ),
    )


def attribution(comparison: Comparison) -> Table:
    """What the difference can be put down to."""
    return Table(
        "attribution",
        "Effects on the last block's log gain",
        comparison.verdict.attribution_note,
        (
            column("factor", numeric=False),
            column("effect", "effect [interval], nats"),
            column("n"),
            column("unit", "over", numeric=False),
            column("at", numeric=False),
        ),
        tuple(
            (effect.factor, nats(effect.log_gain), str(effect.log_gain.n), effect.unit, effect.at)
            for effect in comparison.verdict.attribution
        ),
    )


def sweep(comparison: Comparison) -> Table:
    """Components ablated in turn."""
    return Table(
        "sweep",
        "Components ablated in turn",
        "The last block under each ablation, on the same tokens; differences are paired over "
        "prompts.",
        (
            column("model", numeric=False),
            column("site", numeric=False),
            column("how", numeric=False),
            *_change_columns(),
        ),
        tuple(
            (report.checkpoint.name, effect.site, effect.how, *_change_cells(effect.change))
            for report in comparison.reports
            for effect in report.interventions.sweep
        ),
    )


def theta(comparison: Comparison) -> Table:
    """The same weights under other RoPE bases."""
    return Table(
        "theta-dose",
        "Theta on fixed weights",
        "The last block of the same weights under another RoPE base; the model's own base is the "
        "row without a change.",
        (column("model", numeric=False), column("theta"), *_change_columns()),
        tuple(
            (report.checkpoint.name, f"{dose.theta:,.0f}", *_change_cells(dose.change))
            for report in comparison.reports
            for dose in report.interventions.theta_dose
        ),
    )


def ablated(comparison: Comparison) -> Table:
    """Before and after the ablations that were asked for."""
    wanted = " and ".join(f"{one.site} by {one.how}" for one in comparison.spec.ablate)
    return Table(
        "ablated",
        "Before and after the ablation",
        f"{wanted}; the outcome under it: {comparison.verdict.ablated_outcome}.",
        (column("model", numeric=False), *_change_columns()),
        tuple(
            (report.checkpoint.name, *_change_cells(found.change))
            for report in comparison.reports
            if (found := report.interventions.ablated) is not None
        ),
    )


def components(comparison: Comparison) -> Table:
    """The outcome with each component ablated."""
    return Table(
        "components",
        "What the outcome depends on",
        "The outcome with a component ablated in the short model, in the long one, and in both; "
        "and the difference between them with it ablated in both.",
        (
            *(
                column(name, numeric=False)
                for name in ("site", "how", "before", "short_ablated", "long_ablated")
            ),
            column("both_ablated", numeric=False),
            column("difference", "difference, both ablated, nats"),
        ),
        tuple(
            (
                found.site, found.how, found.before, found.short_ablated, found.long_ablated,
                found.both_ablated, nats(found.difference),
            )
            for found in comparison.verdict.components
        ),
    )  # fmt: skip


def token_controls(comparison: Comparison) -> Table:
    """Massive activations and BOS."""
    return Table(
        "token-controls",
        "Massive activations and BOS",
        "Massive activations set to their mean over the prompts and to 0, where they first appear; "
        "BOS left out, and given twice.",
        (
            column("model", numeric=False),
            column("control", numeric=False),
            column("note", numeric=False),
            *_change_columns(),
        ),
        tuple(
            (
                report.checkpoint.name, found.name, found.note,
                *(_change_cells(found.change) if found.change else ("none",) * 6),
            )
            for report in comparison.reports
            for found in report.interventions.controls
        ),
    )  # fmt: skip


def _change_columns() -> tuple[Column, ...]:
    return (
        column("gain_before"),
        column("gain_after", "gain after [interval]"),
        column("delta_log_gain", "change of log gain, nats"),
        column("delta_loss", "change of loss, nats a token"),
        column("delta_last_gain", "notebook's last_gain"),
        column("behaviour_after", numeric=False),
    )


def _change_cells(change: Change) -> tuple[str, ...]:
    before, after = change.before, change.after
    return (
        plain(exp(before.log_gain.estimate), ".3f"),
        ratio(after.log_gain),
        nats(change.delta_log_gain),
        nats(change.delta_loss),
        f"{plain(before.notebook_last_gain, '.3f')} → {plain(after.notebook_last_gain, '.3f')}",
        after.behaviour or "unknown",
    )


def weights(comparison: Comparison) -> Table:
    """W_U as the notebook measured it, and normalised."""
    fields = (
        ("frobenius_norm", ",.4g"), ("spectral_norm", ",.4g"), ("mean_row_norm", ".4g"),
        ("sigma_per_sqrt_vocab", ".4g"), ("edge_ratio", ".4g"), ("stable_rank", ",.4g"),
        ("effective_rank", ",.4g"), ("mean_row_cosine", ".3f"),
    )  # fmt: skip
    return Table(
        "unembedding",
        "The unembedding W_U",
        "σ_max grows with the square root of the vocabulary; the columns after it do not.",
        (column("model", numeric=False), *(column(name) for name, _ in fields)),
        tuple(
            (
                report.checkpoint.name,
                *(plain(getattr(report.unembed, name), form) for name, form in fields),
            )
            for report in comparison.reports
        ),
    )


def rope(comparison: Comparison) -> Table:
    """RoPE: what the config says and what the buffers do."""
    return Table(
        "rope",
        "RoPE",
        "",
        tuple(
            column(name, numeric=name != "model")
            for name in (
                "model", "context", "rope_theta", "measured_theta", "theta_bound", "beyond_context",
            )
        ),
        tuple(
            (
                report.checkpoint.name,
                f"{report.checkpoint.context:,}",
                plain(report.rope.rope_theta, ",.0f"),
                plain(report.rope.measured_theta, ",.0f"),
                plain(report.rope.theta_bound, ",.0f"),
                plain(report.rope.beyond_context, ".0%"),
            )
            for report in comparison.reports
        ),
    )  # fmt: skip


def controls(comparison: Comparison) -> Table:
    """What was checked at load, and the two controls that always run."""
    return Table(
        "controls",
        "Checks and controls",
        "",
        tuple(
            column(name, numeric=name not in ("model", "backend", "dtype"))
            for name in (
                "model", "backend", "dtype", "additivity", "logits_kl", "scale_control",
                "halves_control",
            )
        ),
        tuple(
            (
                report.checkpoint.name,
                report.checkpoint.backend,
                report.checkpoint.dtype,
                plain(report.checkpoint.additivity, ".1e"),
                "itself" if (kl := report.checkpoint.logits_kl) is None else plain(kl, ".1e"),
                plain(report.scale_control, ".1e"),
                nats(report.halves_control),
            )
            for report in comparison.reports
        ),
    )  # fmt: skip
