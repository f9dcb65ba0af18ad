"""Re-scoring a comparison from its file alone: what the notebook's numbers are, and are not.

No model is needed: everything here is arithmetic on the notebook's JSON or on our own result.json.
What the file does not hold is None with a reason, and what cannot be concluded is said in words.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gainlens.notebook.rescore_model import ModelRescore, mismatch, reasons_for, score_model
from gainlens.notebook.result_file import FileModel, FileTest, read_result
from gainlens.notebook.rule import Side, hypothesis_test
from gainlens.notebook.statistics import notebook_gains


@dataclass(frozen=True)
class PairRescore:
    """The notebook's test, done again."""

    short: str
    long: str
    chosen_by: str
    verdict: str
    """by the notebook's rule, from recomputed last_gains"""
    stated_verdict: str | None
    theta_ratio: float | None
    gain_ratio: float | None
    wu_ratio: float | None
    wu_vocabulary: float | None
    """square root of the vocabulary ratio: what wu_ratio owes to the number of rows"""
    wu_rest: float | None
    """wu_ratio over that"""
    differing: tuple[str, ...]
    """what differs between the two models as far as the file says"""
    findings: tuple[str, ...]
    unknown: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rescore:
    """A whole file, re-scored."""

    source: str
    ours: bool
    models: tuple[ModelRescore, ...]
    pair: PairRescore | None
    pair_reason: str
    """why there is no pair; empty where there is one"""
    cannot_conclude: tuple[str, ...]


def rescore(source: Mapping[str, Any] | Path) -> Rescore:
    """Re-score the notebook's JSON or our own result.json.  No model, no torch.

    Args:
        source: the file's path, or the document already parsed.

    Raises ValueError with one sentence where it cannot be read (resultfile.read_result).

    Examples:
        >>> from pathlib import Path
        >>> gainlens.rescore(Path("runs/twins/result.json")).ours
        True
    """
    file = read_result(source)
    models = tuple(score_model(key, model) for key, model in file.models.items())
    chosen = _choose(file.models)
    pair = None
    if not isinstance(chosen, str):
        short, long, how = chosen
        pair = _pair((short, file.models[short]), (long, file.models[long]), how, file.test)
    return Rescore(
        source=file.name,
        ours=file.ours,
        models=models,
        pair=pair,
        pair_reason=chosen if isinstance(chosen, str) else "",
        cannot_conclude=_cannot_conclude(file.ours, models, pair),
    )


def to_json(score: Rescore) -> dict[str, Any]:
    """Plain values for result.json; what is not known is null with `<field>_reason` beside it."""
    return _plain(score)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        tree = {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return tree | {f"{name}_reason": reason for name, reason in tree.pop("unknown", ())}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _choose(models: Mapping[str, FileModel]) -> tuple[str, str, str] | str:
    """Short, long and how they were told apart; or why they cannot be."""
    roles = [model.role for model in models.values()]
    if any(role is not None for role in roles):
        pairs = [[key for key, model in models.items() if model.role == role] for role in _ROLES]
        if all(len(keys) == 1 for keys in pairs):
            return pairs[0][0], pairs[1][0], "the roles in the file"
        return "the file does not give exactly one model the role short and one the role long"
    if len(models) != 2:
        return f"the notebook's test needs two models, the file has {len(models)} without roles"
    short, long = models
    return short, long, "their order in the file: the notebook writes the short-context model first"


_ROLES: Final = ("short", "long")


def _side(model: FileModel) -> Side:
    norms = model.residual.norms
    return Side(
        last_gain=notebook_gains(norms[-2:])[0],
        rope_theta=None if model.rope is None else model.rope.rope_theta,
        spectral_norm=None if model.w_u is None else model.w_u.spectral_norm,
    )


def _pair(
    short: tuple[str, FileModel], long: tuple[str, FileModel], chosen_by: str, stated: FileTest
) -> PairRescore:
    test = hypothesis_test(_side(short[1]), _side(long[1]))
    ratios = {
        name: None if math.isnan(value) else value
        for name in ("theta_ratio", "gain_ratio", "wu_ratio")
        if isinstance(value := getattr(test, name), float)
    }
    vocabulary = None
    if short[1].w_u is not None and long[1].w_u is not None:
        vocabulary = math.sqrt(long[1].w_u.vocab_size / short[1].w_u.vocab_size)
    wu_ratio = ratios["wu_ratio"]
    parts = ratios | {
        "wu_vocabulary": vocabulary,
        "wu_rest": None if wu_ratio is None or vocabulary is None else wu_ratio / vocabulary,
    }
    findings = list[str]()
    for name, value in ratios.items():
        findings += mismatch(name, getattr(stated, name), value)
    if stated.verdict is not None and stated.verdict != test.verdict:
        findings.append(
            f"the verdict is stated as {stated.verdict}, the notebook's rule gives {test.verdict}"
        )
    no_w_u = "the file lacks w_u for one of the two models"
    return PairRescore(
        short=short[0],
        long=long[0],
        chosen_by=chosen_by,
        verdict=test.verdict,
        stated_verdict=stated.verdict,
        differing=_differing(short[1], long[1]),
        findings=tuple(findings),
        unknown=reasons_for(
            parts | {"stated_verdict": stated.verdict},
            {
                "theta_ratio": "the file lacks rope_theta for one of the two models",
                "gain_ratio": "the short model's last_gain is 0",
                "wu_ratio": no_w_u,
                "wu_vocabulary": no_w_u,
                "wu_rest": no_w_u,
                "stated_verdict": "the file states none",
            },
        ),
        **parts,
    )


def _differing(short: FileModel, long: FileModel) -> tuple[str, ...]:
    def facts(model: FileModel) -> dict[str, object]:
        rope, w_u = model.rope, model.w_u
        return {
            "RoPE theta": rope and rope.rope_theta,
            "RoPE scaling": rope and bool(rope.rope_scaling),
            "context": rope and rope.max_position,
            "vocabulary": w_u and w_u.vocab_size,
            "width": w_u and w_u.hidden_dim,
            "blocks": len(model.residual.norms) - 1,
        }

    one, other = facts(short), facts(long)
    return tuple(name for name in one if one[name] != other[name])


def _cannot_conclude(
    ours: bool, models: Sequence[ModelRescore], pair: PairRescore | None
) -> tuple[str, ...]:
    said = list[str]()
    blind = [model.key for model in models if model.last_gain.block_gain is None]
    if blind:
        said.append(
            f"whether the last block of {' and '.join(blind)} expands or contracts: its gain is "
            "not in the file, only its product with the final norm's"
        )
    said.append(
        "how sure any of this is: one sentence, one number a model, n = 1, no interval"
        + (" (the intervals over prompts are under layers and verdict)" if ours else "")
    )
    said.append(
        "which tokens it is about: a mean over positions mixes BOS and massive tokens with the "
        "rest, and their share is not in these norms"
        + (" (tokens.parquet of the run has every token)" if ours else "")
    )
    if pair is not None:
        differ = ", ".join(pair.differing) or "nothing that the file holds"
        said.append(
            f"what causes a difference between {pair.short} and {pair.long}: two models that "
            f"differ in {differ}, and perhaps in what the file does not hold (attention heads, MLP "
            "width, training data and steps), identify no cause"
            + (" (verdict.identification in the file says more)" if ours else "")
        )
    return tuple(said)
