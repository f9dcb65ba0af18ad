"""A design file -> the jobs to train: which replicas share a context, a shape and a schedule."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from training.ensemble import Shape

FOLDER = Path(__file__).parent / "designs"


@dataclass(frozen=True)
class Cell:
    """Hold what differs between replicas of one group, the seed apart."""

    context: int
    theta: float
    base_theta: float = 0.0
    """theta of the training that this one goes on from; 0 if it starts anew"""
    bos_every: int = 1
    """BOS begins every k-th sequence"""

    @property
    def name(self) -> str:
        control = "" if self.bos_every == 1 else f"-bos{self.bos_every}"
        return f"context{self.context}-theta{self.theta / 1000:g}k{control}"


@dataclass(frozen=True)
class Replica:
    """One training run: a cell and a seed."""

    cell: Cell
    seed: int


@dataclass(frozen=True)
class Measuring:
    """Say what is measured, and when."""

    points: tuple[float, ...]
    """shares of the steps"""
    held_out_windows: int
    lengths: tuple[int, ...]
    prompt_tokens: int
    long_windows: int = 0


@dataclass(frozen=True)
class Training:
    """Schedule and batch of a job."""

    steps: int
    window: int
    windows_per_step: int
    rate: float
    warm_up: int
    replicas_per_job: int = 8

    @property
    def tokens_per_step(self) -> int:
        return self.window * self.windows_per_step


@dataclass(frozen=True)
class Base:
    """The job whose end a job starts from."""

    job: str
    steps: int
    replicas: tuple[Replica, ...]
    """those of the base that are gone on from, in this job's order"""


@dataclass(frozen=True)
class Job:
    """Replicas that train side by side: all that fixes their training, but for the machine."""

    name: str
    group: str
    replicas: tuple[Replica, ...]
    training: Training
    measuring: Measuring
    shape: Shape = field(default_factory=Shape)
    starts_of: int = 0
    """the context that has as many sequence starts; 0: every sequence is as long as the context"""
    short: int = 0
    """tokens per short sequence, of which a share of the windows is made then"""
    base: Base | None = None

    def __post_init__(self) -> None:
        if len({replica.cell.context for replica in self.replicas}) != 1:
            raise ValueError("the replicas of one job share one context; make a job for each.")

    @property
    def context(self) -> int:
        return self.replicas[0].cell.context

    @property
    def points(self) -> tuple[int, ...]:
        """Steps at which the job is measured."""
        steps = self.training.steps
        return tuple(sorted({round(share * steps) for share in self.measuring.points}))

    @property
    def short_share(self) -> float:
        """Share of the windows that are cut into short sequences."""
        if not self.starts_of:
            return 0.0
        window = self.training.window
        own, wanted, short = (window / n for n in (self.context, self.starts_of, self.short))
        return (wanted - own) / (short - own)

    def contexts_of(self, step: int) -> tuple[int, ...]:
        """Tokens per sequence in each window of a step.

        Short windows are spread evenly: after n windows, floor(n * short_share) have been short.
        """
        share, per_step = self.short_share, self.training.windows_per_step
        first = step * per_step
        counts = [int((first + number) * share + 1e-9) for number in range(per_step + 1)]
        return tuple(
            self.short if after > before else self.context for before, after in pairwise(counts)
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Return everything that a resumed run must share, as plain numbers and names."""
        return asdict(self)


@dataclass(frozen=True)
class Design:
    """A design file, read and checked."""

    name: str
    jobs: tuple[Job, ...]

    def job(self, name: str) -> Job:
        return next(job for job in self.jobs if job.name == name)


TOP_KEYS = ("name", "training", "measuring", "group")
TRAINING_KEYS = tuple(f.name for f in fields(Training))
MEASURING_KEYS = tuple(f.name for f in fields(Measuring))
SHAPE_KEYS = tuple(f.name for f in fields(Shape) if f.name not in ("vocabulary", "eps"))
GROUP_KEYS = (
    "name",
    "contexts",
    "thetas",
    "cells",
    "seeds",
    "bos_every",
    "shape",
    "steps",
    "rate",
    "starts_of",
    "short",
    "points",
    "base",
    "base_context",
    "base_thetas",
)


def check_keys(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise ValueError, naming the keys that there are, if one is unknown."""
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(f"{what} has an unknown key {unknown[0]!r}; it knows {', '.join(known)}.")


def path_of(name: str) -> Path:
    """Find a design by its file or by the name of one in designs/."""
    return FOLDER / f"{name}.toml" if "/" not in name and not name.endswith(".toml") else Path(name)


def read(path: Path) -> Design:
    """Read a design file. ValueError for an unknown key or cells that do not fit together."""
    text = tomllib.loads(path.read_text(encoding="utf-8"))
    check_keys(f"the design {path.name}", text, TOP_KEYS)
    check_keys(f"[training] of {path.name}", text["training"], TRAINING_KEYS)
    check_keys(f"[measuring] of {path.name}", text["measuring"], MEASURING_KEYS)
    training = Training(**text["training"])
    listed = {key: tuple(v) if isinstance(v, list) else v for key, v in text["measuring"].items()}
    measuring = Measuring(**listed)
    jobs: list[Job] = []
    for group in text["group"]:
        check_keys(f"group {group.get('name')!r} of {path.name}", group, GROUP_KEYS)
        jobs += sorted(group_jobs(group, training, measuring, jobs), key=_by_seeds_then_context)
    return Design(text["name"], tuple(jobs))


def _by_seeds_then_context(job: Job) -> tuple[int, int]:
    """Order jobs: the first seeds of all contexts, and of these the longest context first."""
    return job.replicas[0].seed, -job.context


def group_jobs(
    group: dict[str, Any], training: Training, measuring: Measuring, before: Sequence[Job]
) -> Iterator[Job]:
    """Cut a group into jobs of at most `replicas_per_job`: the cells of a context, some seeds."""
    own = {name: group[name] for name in ("steps", "rate") if name in group}
    training = Training(**asdict(training) | own)
    if "points" in group:
        measuring = replace(measuring, points=tuple(group["points"]))
    shape_keys = group.get("shape", {})
    check_keys(f"shape of group {group['name']!r}", shape_keys, SHAPE_KEYS)
    shape = Shape(**shape_keys)
    check_measuring(measuring, training)
    by_context: dict[int, list[Cell]] = {}
    for cell in group_cells(group):
        by_context.setdefault(cell.context, []).append(cell)
    for context, cells in by_context.items():
        if training.window % context:
            raise ValueError(
                f"group {group['name']!r}: context {context} does not divide the window of "
                f"{training.window} tokens."
            )
        together = max(1, training.replicas_per_job // len(cells))
        for start in range(0, len(group["seeds"]), together):
            seeds = group["seeds"][start : start + together]
            replicas = tuple(Replica(cell, seed) for cell in cells for seed in seeds)
            yield Job(
                name=f"{group['name']}-{context}-seeds{seeds[0]}to{seeds[-1]}",
                group=group["name"],
                replicas=replicas,
                training=training,
                measuring=measuring,
                shape=shape,
                starts_of=group.get("starts_of", 0),
                short=group.get("short", 0),
                base=base_of(group, replicas, before),
            )


def check_measuring(measuring: Measuring, training: Training) -> None:
    """Raise ValueError if held-out windows do not fill batches, or lengths do not fill windows."""
    if measuring.held_out_windows % training.windows_per_step:
        raise ValueError(
            f"held_out_windows = {measuring.held_out_windows} is no multiple of "
            f"windows_per_step = {training.windows_per_step}."
        )
    bad = [length for length in measuring.lengths if training.window % length]
    if bad:
        raise ValueError(f"length {bad[0]} does not divide the window of {training.window} tokens.")


def group_cells(group: dict[str, Any]) -> Iterator[Cell]:
    """Yield a group's cells: those listed, or every context with every theta."""
    if ("cells" in group) == ("contexts" in group):
        raise ValueError(f"group {group['name']!r} needs either cells, or contexts and thetas.")
    if "cells" in group:
        yield from (Cell(context, float(theta)) for context, theta in group["cells"])
        return
    thetas = group["thetas"]
    base_thetas = group.get("base_thetas", thetas) if "base" in group else [0.0] * len(thetas)
    if len(base_thetas) != len(thetas):
        raise ValueError(f"group {group['name']!r} needs as many base_thetas as thetas.")
    for context in group["contexts"]:
        for theta, base_theta in zip(thetas, base_thetas, strict=True):
            yield Cell(context, float(theta), float(base_theta), group.get("bos_every", 1))


def base_of(
    group: dict[str, Any], replicas: tuple[Replica, ...], before: Sequence[Job]
) -> Base | None:
    """Find the job, among those before, that ends where these replicas start."""
    if "base" not in group:
        return None
    wanted = tuple(
        Replica(Cell(group["base_context"], replica.cell.base_theta), replica.seed)
        for replica in replicas
    )
    for job in before:
        if job.group == group["base"] and set(wanted) <= set(job.replicas):
            return Base(job.name, job.training.steps, wanted)
    raise ValueError(
        f"group {group['name']!r} goes on from context {group['base_context']} of group "
        f"{group['base']!r}, but no job before it trains these thetas and seeds together."
    )
