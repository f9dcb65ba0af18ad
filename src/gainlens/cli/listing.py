"""The presets and what is known of each model, before anything is measured."""

from collections.abc import Mapping
from math import exp
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from gainlens.claims.training_table import GAIN_COLUMN, SHIPPED_CURVES, read_curves
from gainlens.claims.wording import plain
from gainlens.core.glossary import GLOSSARY
from gainlens.core.names import shortened_apart
from gainlens.core.presets import PRESETS, TWIN_PREFIX
from gainlens.core.spec import ModelSpec
from gainlens.core.table import column, fill, number
from gainlens.notebook.published import REFERENCE_ROWS
from gainlens.records.weights import RopeReport, UnembedReport
from gainlens.report.terminal import console_of, rich_table
from gainlens.results.values import to_json

_NAME: Final = 12
"""Least width of a model's name."""
_SHIPPED_SEED: Final = 0
_PUBLISHED: Final = {
    "meta-llama/Llama-2-7b-hf": "Llama-2-7B (published)",
    "meta-llama/Llama-3.1-8B": "Llama-3.1-8B (published)",
    "mistralai/Mistral-7B-v0.1": "Mistral (ref)",
}
"""Rows of the reference table by hub name."""


def known_of(model: ModelSpec) -> str:
    """Return what was measured of a model elsewhere, in a few words, or `nothing here`."""
    if model.hf_name.startswith(TWIN_PREFIX):
        return _of_twin(model)
    rows = {row.label: row for row in REFERENCE_ROWS}
    row = rows.get(_PUBLISHED.get(model.hf_name, ""))
    if row is None:
        return "nothing here"
    return f"notebook's last_gain {row.last_gain:.3g}, σ_max(W_U) {row.w_u_spectral:.3g}"


def _of_twin(model: ModelSpec) -> str:
    """Loss and gain at the end of training, from the table that ships with the package."""
    assert model.context_length is not None
    assert model.expected_rope_theta is not None
    curves = read_curves(SHIPPED_CURVES)
    mine = (
        (curves["context"] == model.context_length)
        & (curves["theta"] == model.expected_rope_theta)
        & (curves["bos_every"] == 1)
        & (curves["seed"] == _SHIPPED_SEED)
    )
    last = mine.nonzero()[0][curves["tokens"][mine].argmax()]
    loss = curves[f"loss_{model.context_length}"][last]
    gain = exp(curves[GAIN_COLUMN][last])
    return f"held-out loss {loss:.2f} nats per token, last block's gain {gain:.2f}"


_WEIGHTS: Final = (
    ("spectral_norm", ",.4g"), ("sigma_per_sqrt_vocab", ".4g"), ("edge_ratio", ".4g"),
    ("stable_rank", ",.4g"), ("effective_rank", ",.4g"), ("mean_row_cosine", ".3f"),
)  # fmt: skip
_ROPE: Final = (
    ("rope_theta", ",.0f"), ("max_position", ",.0f"), ("beyond_context", ".0%"),
    ("theta_bound", ",.0f"),
)  # fmt: skip


def print_weights(found: Mapping[str, tuple[UnembedReport, RopeReport]]) -> None:
    """Print W_U and RoPE of several models, a column each."""
    console = console_of()
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    room = (console.width - max(len(GLOSSARY[name].label) for name, _ in (*_WEIGHTS, *_ROPE))) - 1
    for model in shortened_apart(list(found), max(room // len(found) - 2, _NAME)):
        table.add_column(escape(model), justify="right", no_wrap=True)
    table.add_row(
        "W_U", *(f"{unembed.shape[0]:,} x {unembed.shape[1]:,}" for unembed, _ in found.values())
    )
    for name, form in _WEIGHTS:
        values = (plain(getattr(unembed, name), form) for unembed, _ in found.values())
        table.add_row(GLOSSARY[name].label, *values)
    for name, form in _ROPE:
        known = (getattr(rope, name) for _, rope in found.values())
        values = (plain(None if value is None else float(value), form) for value in known)
        table.add_row(GLOSSARY[name].label, *values)
    console.print(table)


def weights_json(found: Mapping[str, tuple[UnembedReport, RopeReport]]) -> dict[str, Any]:
    """Return W_U and RoPE of several models as JSON values, by model."""
    return to_json({model: {"w_u": w_u, "rope": rope} for model, (w_u, rope) in found.items()})


def models_json() -> dict[str, Any]:
    """Return every preset's models as JSON values."""
    return {preset: [_facts(model) for model in models] for preset, models in PRESETS.items()}


def _facts(model: ModelSpec) -> dict[str, Any]:
    return {
        "role": model.role,
        "hf_name": model.hf_name,
        "context": model.context_length,
        "theta": model.expected_rope_theta,
        "known": known_of(model),
    }


def print_models() -> None:
    """Print every preset's models with role, context, theta and what is known."""
    console = console_of()
    rows = [
        {"preset": "" if index else preset} | _facts(model)
        for preset, models in PRESETS.items()
        for index, model in enumerate(models)
    ]
    columns = (
        column("preset", lambda row: row["preset"]),
        column("role", lambda row: row["role"]),
        column("model", lambda row: row["hf_name"]),
        number("context", lambda row: f"{row['context']:,}", "context"),
        number("rope_theta", lambda row: f"{row['theta']:,.0f}", "theta"),
        column("known", lambda row: row["known"]),
    )
    table = rich_table(fill("models", "", "", columns, rows), console.width)
    table.columns[2].no_wrap = True  # a reader copies a model's name whole
    console.print(table)
    console.print(
        f"{TWIN_PREFIX}NAME ships with the package; the others come from the Hugging Face hub "
        "(gated ones after `hf auth login`).",
        highlight=False,
    )
