"""Define a claim as data: a TOML file that says what is measured and what is predicted.

A claim file may come from anywhere, so it is read as data.  A premise's comparison is the only
expression that is evaluated, the file names no other file, and its size is bounded.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from gainlens.claims.intervention import Intervention
from gainlens.core.messages import check_one_of, nearest, shown
from gainlens.core.spec import Spec
from gainlens.core.vocabulary import TokenClass
from gainlens.metrics.metric import OverTokens
from gainlens.metrics.registry import METRICS
from gainlens.records.claims import ClaimOutcome

CATALOGUE: Final = Path(__file__).parent / "catalogue"
SEED_CLAIM: Final = "long-context-contracts"
FACTS: Final = ("context", "theta", "layers", "d_model", "vocabulary", "heads", "kv_heads", "norm")
"""Fields of a config that a premise and a rank may name."""
_LARGEST: Final = 64 * 1024
"""Bytes of a claim file."""
_BLOCKS: Final = ("first", "last", "first half", "last half", "middle half", "last third", "each")
_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PREMISE: Final = re.compile(
    rf"^(\w+)\.(\w+) (<=|>=|==|!=|<|>) (?:(\w+)\.(\w+)|({_NUMBER}))$", re.ASCII
)
_PREDICTION: Final = re.compile(
    rf"^(?:([<>=]) ({_NUMBER})|in \[({_NUMBER}), ({_NUMBER})\])$", re.ASCII
)
_GAIN_MARGIN: Final = 0.01
"""Nats of log gain that count as no difference, unless the claim says otherwise."""
Blocks = str | int


class Estimand(Spec):
    """Say which number of a model and prompt is meant."""

    metric: str
    blocks: Blocks = "each"
    minus: Blocks | None = None
    """blocks whose number is subtracted"""
    over_blocks: Literal["mean", "median", "slope"] = "mean"
    tokens: TokenClass = "ordinary"
    over_tokens: OverTokens | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> "Estimand":
        if self.metric not in METRICS:
            raise ValueError(f"metric {shown(self.metric)!r}: {nearest(self.metric, METRICS)}")
        for blocks in (self.blocks, self.minus):
            _check_blocks(blocks)
        if self.over_tokens is not None:
            check_one_of(
                f"over_tokens of {self.metric}", self.over_tokens, METRICS[self.metric].reductions
            )
        if METRICS[self.metric].over == "token" and (
            self.blocks not in ("last", -1) or self.minus is not None
        ):
            raise ValueError(f"{self.metric} belongs to the last block: give blocks = 'last' alone")
        if self.minus is not None and "each" in (self.blocks, self.minus):
            raise ValueError("minus needs blocks that become one number, so not 'each'")
        return self

    @property
    def reduction(self) -> OverTokens:
        """Return how a prompt's tokens become one number."""
        return self.over_tokens or METRICS[self.metric].reductions[0]


def _check_blocks(blocks: Blocks | None) -> None:
    known = blocks is None or isinstance(blocks, int) or blocks in _BLOCKS
    if not known and not re.fullmatch(r"-?\d{0,6}:-?\d{0,6}", str(blocks), re.ASCII):
        raise ValueError(
            f"blocks is an index, a range a:b, or one of {', '.join(_BLOCKS)}; "
            f"got {shown(str(blocks))!r}"
        )


class Contrast(Spec):
    """Say how the numbers of the models are compared, and what the claim predicts."""

    kind: Literal["level", "signs", "difference", "trend", "factorial", "rank"]
    prediction: str | None = Field(default=None, max_length=80)
    margin: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    outcomes: dict[str, ClaimOutcome] = Field(default={}, max_length=256)
    x: Literal["step", "context", "theta", "length", "block"] | None = None
    scale: Literal["linear", "log"] = "linear"
    factors: tuple[Literal["theta", "context"], ...] = ()
    effect: Literal["theta", "context", "theta:context"] | None = None
    other: str | None = Field(default=None, alias="with", max_length=80)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Contrast":
        needed = {
            "signs": ("outcomes",), "trend": ("prediction", "x"), "rank": ("prediction", "other"),
            "factorial": ("prediction", "factors", "effect"),
        }.get(self.kind, ("prediction",))  # fmt: skip
        keys = ("prediction", "outcomes", "x", "factors", "effect", "other")
        for key in keys:
            word = "with" if key == "other" else key
            given = bool(getattr(self, key))
            if key in needed and not given:
                raise ValueError(f"a contrast of kind {self.kind} needs {word!r}")
            if given and key not in needed:
                raise ValueError(f"a contrast of kind {self.kind} does not take {word!r}")
        if self.prediction is not None:
            bounds = bounds_of(self.prediction)
            if bounds[0] == "=" and self.margin is None:
                raise ValueError(f"the prediction {self.prediction!r} needs a margin")
        if self.kind == "factorial" and set(self.factors) != {"theta", "context"}:
            raise ValueError("factors are theta and context")
        if self.other is not None and self.other not in METRICS and self.other not in FACTS:
            known = (*METRICS, *FACTS)
            raise ValueError(f"with = {shown(self.other)!r}: {nearest(self.other, known)}")
        return self


class Claim(Spec):
    """Hold one claim: its statement, its premise, its estimand and its prediction."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,79}$")
    statement: str = Field(max_length=1000)
    source: str = Field(default="", max_length=1000)
    departures: str = Field(default="", max_length=1000)
    """where the estimand departs from the source's, and why"""
    roles: tuple[str, ...] = Field(default=(), max_length=8)
    models: Literal["series", "many"] | None = None
    premise: dict[str, bool] = Field(default={}, max_length=16)
    intervention: Intervention | None = None
    """what is done to the model; then the estimand is the change that it makes"""
    estimand: Estimand
    contrast: Contrast

    @model_validator(mode="after")
    def _parts_fit(self) -> "Claim":
        self._check_models()
        for text, wanted in self.premise.items():
            roles = {side[0] for side in premise_sides(text)[:2] if isinstance(side, tuple)}
            unknown = roles - set(self.roles or ("model",))
            if unknown:
                raise ValueError(f"the premise {shown(text)!r} names no role of the claim")
            if not wanted:
                raise ValueError(f"the premise {shown(text)!r} must be true: write its opposite")
        kind, over_blocks = self.contrast.kind, self.contrast.other in METRICS
        if self.intervention is not None and kind not in ("level", "difference"):
            raise ValueError(
                f"a contrast of kind {kind} takes no intervention; level and difference do"
            )
        if self.intervention is not None and self.estimand.blocks == "each":
            raise ValueError("an intervention needs blocks that become one number, so not 'each'")
        takes_each = kind == "level" or over_blocks or self.contrast.x == "block"
        if self.estimand.blocks == "each" and not takes_each:
            raise ValueError(
                f"a contrast of kind {kind} needs blocks that become one number; 'each' is for "
                "level, for a rank over blocks and for a trend over x = 'block'"
            )
        return self

    def _check_models(self) -> None:
        if bool(self.roles) == (self.models is not None):
            raise ValueError("a claim has either roles or models = 'series' or 'many'")
        if len(set(self.roles)) != len(self.roles):
            raise ValueError("each role is named once")
        kind, over_blocks = self.contrast.kind, self.contrast.other in METRICS
        if kind == "trend":
            fits = len(self.roles) == 1 if self.contrast.x == "block" else self.models == "series"
            needs = "one role if x = 'block', else models = 'series'"
        elif kind == "rank":
            fits = len(self.roles) == 1 if over_blocks else self.models == "many"
            needs = "one role if it ranks blocks, models = 'many' if it ranks models"
        elif kind == "factorial":
            fits, needs = self.models == "many", "models = 'many'"
        else:
            counts = {"level": (1, 1), "difference": (2, 2), "signs": (2, 8)}[kind]
            fits = counts[0] <= len(self.roles) <= counts[1]
            needs = {"level": "one role", "difference": "two roles", "signs": "two roles or more"}[
                kind
            ]
        if not fits:
            raise ValueError(f"a contrast of kind {kind} needs {needs}")
        wrong = [
            signs for signs in self.contrast.outcomes
            if len(signs) != len(self.roles) or set(signs) - set("+-")
        ]  # fmt: skip
        if wrong:
            raise ValueError(f"outcomes has {shown(wrong[0])!r}: give one + or - per role")

    @property
    def margin(self) -> float:
        """Return what counts as no difference, in the metric's unit."""
        if self.contrast.margin is not None:
            return self.contrast.margin
        return _GAIN_MARGIN if self.estimand.metric == "log_gain" else 0.0


Side = tuple[str, str] | float
"""(role, field), or a number"""


def premise_sides(text: str) -> tuple[tuple[str, str], Side, str]:
    """Return what a premise compares and its operator; raise ValueError for any other text."""
    found = _PREMISE.match(text)
    if found is None:
        raise ValueError(
            "a premise is 'ROLE.FIELD OP ROLE.FIELD' or 'ROLE.FIELD OP NUMBER'; "
            f"got {shown(text)!r}"
        )
    role, field, operator, other_role, other_field, number = found.groups()
    for name in (field, other_field):
        if name is not None:
            check_one_of("a premise's field", name, FACTS)
    right = float(number) if number is not None else (other_role, other_field)
    if operator not in ("==", "!=") and "norm" in (field, other_field):
        raise ValueError("norm is a word: compare it with == or !=")
    return (role, field), right, operator


def bounds_of(prediction: str) -> tuple[str, float, float]:
    """Return a prediction as (sign, low, high): > and < have one bound, "in" has two."""
    found = _PREDICTION.match(prediction)
    if found is None:
        raise ValueError(
            f"a prediction is '> 0.1', '< 0', '= 0' or 'in [0, 1]'; got {shown(prediction)!r}"
        )
    sign, at, low, high = found.groups()
    if sign:
        return sign, float(at), float(at)
    if float(low) > float(high):
        raise ValueError(f"{prediction!r} is empty: its low end lies above its high end")
    return "in", float(low), float(high)


def read_claim(source: str | Path) -> Claim:
    """Return the claim of the catalogue with this name, or the one in a TOML file.

    Raises ValueError, in one sentence, if there is no such claim or if the file is no claim.
    """
    text = str(source)
    if not text.endswith(".toml"):
        if text not in catalogue():
            raise ValueError(
                f"no claim is called {shown(text)!r}; {nearest(text, catalogue())}. A claim of "
                "your own is a file that ends in .toml"
            )
        return catalogue()[text]
    try:
        with Path(text).open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ValueError(f"claim file {shown(text)}: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise ValueError(f"claim file {shown(text)} is larger than {_LARGEST:,} bytes")
    return parse_claim(content.decode("utf-8", "replace"), shown(text))


def parse_claim(text: str, where: str = "the claim") -> Claim:
    """Return the claim that a TOML text holds; raise ValueError if it holds none."""
    try:
        return Claim.model_validate(tomllib.loads(text))
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where} is no TOML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{where}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    at = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {shown(at)!r}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{shown(at)}: {message}" if at and first["type"] != "value_error" else message


@cache
def catalogue() -> dict[str, Claim]:
    """Return the claims that ship with gainlens, by name."""
    paths = sorted(CATALOGUE.glob("*.toml"))
    claims = (parse_claim(path.read_text("utf-8"), path.name) for path in paths)
    return {claim.name: claim for claim in claims}
