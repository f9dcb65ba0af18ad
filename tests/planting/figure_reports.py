"""Plausible reports for the tests of the figures: planted numbers, no model."""

from itertools import product

import numpy as np

from gainlens.core.vocabulary import REDUCTIONS, TOKEN_CLASSES, Role
from gainlens.figures.blocks import block_values
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport, NotebookResidual
from gainlens.records.gains import BlockGain, Decomposition, MassiveToken
from gainlens.records.inputs import Checkpoint, EncodedPrompts
from gainlens.records.interval import Interval
from gainlens.records.verdict import Effect, GainCell, Identification, Verdict
from gainlens.records.weights import RopeReport, UnembedReport

NAN = float("nan")
D_MODEL, VOCAB = 128, 4096


def interval_of(estimate: float, half: float, n: int = 96) -> Interval:
    known = np.isfinite(half)
    return Interval(
        estimate,
        estimate - half,
        estimate + half,
        n,
        0.95,
        "planted",
        "ok" if known else "one value: position 0 attends only to itself",
    )


def blocks_of(log_gain: np.ndarray, half: float, rng: np.random.Generator) -> tuple[BlockGain, ...]:
    """Parts that sum to the log gain, now of one sign, now of both."""
    attention = log_gain * rng.uniform(-0.6, 1.2, len(log_gain))
    return tuple(
        BlockGain(
            block=block,
            log_gain=float(g),
            attention=float(a),
            mlp=float(g - a),
            remainder=0.0,
            gain=float(np.exp(g)),
            low=float(np.exp(g - half)),
            high=float(np.exp(g + half)),
        )
        for block, (g, a) in enumerate(zip(log_gain, attention, strict=True))
    )


SHIFT = {"bos": -0.5, "massive": -1.2, "ordinary": 0.0, "all": -0.2}


def cells_of(
    last: float, final: float, half: float, rng: np.random.Generator
) -> tuple[GainCell, ...]:
    """All 120 cells; `massive` has no data in short prompts, `bos` has no interval."""
    primary = ("ordinary", "geomean", "all", False)
    cells = []
    for token_class, reduction, lengths, after in product(
        TOKEN_CLASSES, REDUCTIONS, ("all", "short", "long"), (False, True)
    ):
        noise = rng.normal(0, 0.02) if (token_class, reduction, lengths, after) != primary else 0.0
        value = last + SHIFT[token_class] + noise + (final if after else 0.0)
        value = NAN if token_class == "massive" and lengths == "short" else value
        width = NAN if token_class == "bos" else half * (1 if lengths == "all" else 1.4)
        cells.append(
            GainCell(token_class, reduction, lengths, after, interval_of(value, width), None)
        )
    return tuple(cells)


def residual_of(log_gain: np.ndarray, final: float) -> NotebookResidual:
    gains = [*np.exp(log_gain[:-1] - 0.02), float(np.exp(log_gain[-1] - 0.05 + final))]
    norms = np.concatenate([[1.0], np.cumprod(gains)])
    return NotebookResidual(
        norms=tuple(map(float, norms)),
        gains=tuple(map(float, gains)),
        embedding_norm=1.0,
        final_norm=float(norms[-1]),
        initial_gain=float(gains[0]),
        last_gain=float(gains[-1]),
        last_expands=bool(gains[-1] > 1),
        cumulative_energy=float(norms[-1]),
        num_layers=len(gains),
        contracting_layers=int(sum(g < 1 for g in gains)),
        expanding_layers=int(sum(g >= 1 for g in gains)),
        true_last_gain=float(np.exp(log_gain[-1] - 0.05)),
        final_norm_gain=float(np.exp(final)),
    )


def unembed_of(scale: float) -> UnembedReport:
    spectrum = scale * 8 * np.arange(1, D_MODEL + 1) ** -0.25
    centred = spectrum.copy()
    spectrum[0] = scale * 40
    frobenius = float(np.sqrt((spectrum**2).sum()))
    edge = frobenius * (np.sqrt(VOCAB) + np.sqrt(D_MODEL)) / np.sqrt(VOCAB * D_MODEL)
    return UnembedReport(
        shape=(VOCAB, D_MODEL),
        vocab_size=VOCAB,
        hidden_dim=D_MODEL,
        frobenius_norm=frobenius,
        spectral_norm=float(spectrum[0]),
        mean_row_norm=1.0,
        sigma_per_sqrt_vocab=float(spectrum[0] / np.sqrt(VOCAB)),
        edge_ratio=float(spectrum[0] / edge),
        stable_rank=float(frobenius**2 / spectrum[0] ** 2),
        effective_rank=90.0,
        mean_row_cosine=0.99,
        spectrum=spectrum,
        centred_spectrum=np.append(centred[:-1], 1e-7),
        folded_spectrum=spectrum,
        subspace_rank=16,
        tied=False,
    )


def rope_of(theta: float | None, context: int) -> RopeReport:
    if theta is None:
        return RopeReport(None, None, context, None, np.array([]), NAN, None)
    wavelengths = 2 * np.pi * theta ** (np.arange(16) / 16)
    beyond = float((wavelengths > context).mean())
    bound = 0.0424 * context**1.628
    return RopeReport(theta, None, context, theta * (1 + 1e-9), wavelengths, beyond, bound)


def massive_of(blocks: int) -> tuple[MassiveToken, ...]:
    erase = max(blocks - 1, 0)
    write = min(1, erase)
    dims = (7, 90)
    return (
        MassiveToken(0, 0, 1, "<s>", write, "mlp", erase, "mlp", 300.0, dims),
        *(
            MassiveToken(p, 4, 9, ".", write, "mlp", erase, "attention", 290.0, dims)
            for p in range(9)
        ),
        MassiveToken(3, 7, 12, "\n", None, None, None, None, 100.0, dims),
    )


def report_of(
    role: Role = "short",
    name: str = "context512-theta10k",
    *,
    blocks: int = 8,
    context: int = 512,
    theta: float | None = 1e4,
    last: float = 0.085,
    half: float = 0.02,
    bos: bool = True,
    seed: int = 0,
) -> ModelReport:
    """A plausible model: a large first gain, a plateau, a planted last block."""
    rng = np.random.default_rng(seed)
    log_gain = 0.12 + 0.05 * rng.normal(size=blocks)
    log_gain[0] = 0.9
    log_gain[-1] = last
    final = {"short": 1.2, "long": 0.75}.get(role, 1.0)
    checkpoint = Checkpoint(
        name, name, None, "native", "float32", "LlamaForCausalLM", blocks, 4, D_MODEL, VOCAB,
        context, {}, None, 1e-8, None,
    )  # fmt: skip
    prompts = EncodedPrompts("mixed", "0" * 64, (), (), bos, 0, ())
    return ModelReport(
        role=role,
        checkpoint=checkpoint,
        residual=residual_of(log_gain, final),
        unembed=unembed_of(1.0 if context < 4096 else 1.3),
        rope=rope_of(theta, context),
        blocks=blocks_of(log_gain, half, rng),
        cells=cells_of(last, final, half, rng),
        last_block=rng.normal(last, 0.1, 96),
        behaviour=None,
        equivalent=None,
        massive=massive_of(blocks) if bos else (),
        prompts=prompts,
        scale_control=0.0,
        halves_control=interval_of(0.001, 0.02, 48),
    )


def empty_capture(prompt: np.ndarray, position: np.ndarray, blocks: int) -> Capture:
    """A capture that knows its tokens' places and nothing else."""
    top = np.zeros((blocks, len(prompt), 4))
    return Capture(
        prompt=prompt,
        position=position,
        token_id=np.zeros(len(prompt), dtype=np.int64),
        gram=np.zeros((9, blocks, len(prompt)), dtype=np.float32),
        top_value=top.astype(np.float32),
        top_index=top.astype(np.int32),
        normed=np.ones(len(prompt)),
    )


def decomposition_of(report: ModelReport, prompts: int = 12, tokens: int = 200) -> Decomposition:
    rng = np.random.default_rng(5)
    blocks, total = len(report.blocks), prompts * tokens
    position = np.tile(np.arange(tokens), prompts)
    log_gain = block_values(report, "log_gain")[:, None] + 0.05 * rng.normal(size=(blocks, total))
    log_gain[-1] -= np.where(position == 0, 0.5, 0.0)
    massive = (position == 4) & (len(report.massive) > 0)
    start = np.log(3) + 0.1 * rng.normal(size=total)
    norms = np.exp(start + np.concatenate([np.zeros((1, total)), np.cumsum(log_gain, axis=0)]))
    norms[1 : blocks - 1 or None, (position == 0) | massive] *= 60
    return Decomposition(
        capture=empty_capture(np.repeat(np.arange(prompts), tokens), position, blocks),
        split="logmean",
        log_gain=log_gain,
        attention=log_gain / 2,
        mlp=log_gain / 2,
        remainder=np.zeros_like(log_gain),
        final_norm=np.zeros(total),
        norm_in=norms[:-1],
        norm_out=norms[1:],
        is_bos=position == 0,
        is_massive=massive,
    )


def effects() -> tuple[Effect, ...]:
    found = []
    for factor, size in (("theta", -0.004), ("context", -0.031), ("theta:context", -0.012)):
        found.append(Effect(factor, "prompts", "equal tokens", interval_of(size, 0.004)))
        found.append(Effect(factor, "seeds", "equal tokens", interval_of(size, 0.012, 3)))
        found.append(Effect(factor, "seeds", "equal loss", interval_of(size / 4, 0.02, 3)))
    return tuple(found)


def verdict_of(attribution: tuple[Effect, ...] = ()) -> Verdict:
    return Verdict(
        outcome="UNEXPECTED",
        robust=False,
        measured="UNEXPECTED",
        cells=(),
        premise=True,
        difference=interval_of(-0.03, 0.01),
        paired=True,
        identification=Identification(True, ()),
        attribution=attribution,
        attribution_note="not attributable: the two models differ in vocabulary, width and "
        "training data, and no control model separates theta from context",
        reasons=(),
        headline="UNEXPECTED: both models expand ordinary tokens in the last block (gain 1.09 "
        "[1.07, 1.11] against 1.06 [1.04, 1.08]); not robust: position 0 contracts.",
    )


def training_table(seeds: int = 3, points: int = 12) -> dict[str, np.ndarray]:
    """Six cells; the gain rises from 1.05 to 1.10, the notebook's number falls."""
    rng = np.random.default_rng(1)
    cells = [*product((1,), (512, 4096), (1e4, 5e5)), (8, 512, 1e4), (8, 512, 5e5)]
    grid = [(*c, s, t) for c in cells for s in range(seeds) for t in np.geomspace(1e6, 2e8, points)]
    every, context, theta, seed, tokens = np.array(grid).T
    progress = np.log10(tokens) - 6
    loss = 5.5 - 1.4 * progress + 0.6 * (context > 512) + rng.normal(0, 0.03, len(grid))
    return {
        "bos_every": every,
        "context": context.astype(int),
        "theta": theta,
        "seed": seed.astype(int),
        "tokens": tokens,
        "loss_512": loss,
        "loss_4096": loss - 0.1,
        "log_gain_last_ordinary": 0.05 + 0.02 * progress + rng.normal(0, 0.004, len(grid)),
        "notebook_last_gain": 5 - np.where(context == 512, 1.2, 1.6) * progress,
    }


SHORT = report_of()
LONG = report_of("long", "context4096-theta500k", context=4096, theta=5e5, last=0.06, seed=1)
TWINS = (
    SHORT,
    LONG,
    report_of("control", "context512-theta500k", theta=5e5, last=0.09, seed=2),
    report_of("control", "context4096-theta10k", context=4096, last=0.055, seed=3),
)
EXTREMES = (
    *TWINS,
    report_of(
        "control",
        "a-very-long-organisation/and-a-very-long-model-name-instruct-v0.3-hf",
        blocks=80,
        context=131072,
        theta=1e6,
        half=NAN,
    ),
    report_of("reference", "gpt2", blocks=12, context=1024, theta=None, bos=False, half=NAN),
)
LLAMAS = (
    report_of("short", "meta-llama/Llama-2-7b-hf", blocks=32, context=4096, last=0.3, half=0.05),
    report_of("long", "x/$y$ <b>&", blocks=32, context=131072, theta=5e5, last=-0.5, half=0.1),
)
ONE_BLOCK = (report_of(blocks=1), report_of("long", "one-block", blocks=1, context=4096, seed=3))
SEVEN = (
    *TWINS,
    *(
        report_of("reference", f"reference-{size}b", last=0.02 * size, seed=size)
        for size in (1, 3, 7)
    ),
)
SETS = {
    "twins": TWINS,
    "seven": SEVEN,
    "extremes": EXTREMES,
    "llamas": LLAMAS,
    "one block": ONE_BLOCK,
}
