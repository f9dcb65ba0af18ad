"""The shipped checkpoints are what their records and tables say."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from training import ensemble, export, measure, prepare, ship

import gainlens
from gainlens.models.loaded import LoadedModel
from gainlens.records.inputs import EncodedPrompts

NAMES = [cell.name for cell in ship.SHIPPED]
TWINS, DATA = ship.PACKAGE / "twins", ship.PACKAGE / "data"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose tenfold to threads that wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(name: str, file: str = "training.json") -> dict:
    return json.loads((TWINS / name / file).read_text())


def rows(file: str) -> list[dict[str, str]]:
    with (DATA / file).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_twins_differ_in_context_and_theta_alone() -> None:
    assert len({json.dumps(record(name)["compared"]) for name in NAMES}) == 1
    configs = [record(name, "config.json") for name in NAMES]
    pairs = [
        (c.pop("max_position_embeddings"), c.pop("rope_parameters")["rope_theta"]) for c in configs
    ]
    assert pairs == [(512, 1e4), (512, 5e5), (4096, 1e4), (4096, 5e5)]
    assert all(config == configs[0] for config in configs)
    tokenizers = {(TWINS / name / "tokenizer.json").read_bytes() for name in NAMES}
    assert len(tokenizers) == 1


def test_together_they_stay_within_24_megabytes() -> None:
    assert sum(path.stat().st_size for path in TWINS.rglob("*") if path.is_file()) <= 24e6


@pytest.mark.parametrize("cell", ship.SHIPPED, ids=NAMES)
def test_final_rows_of_the_tables_equal_the_record(cell: ship.Cell) -> None:
    training = record(cell.name)
    measured = training["measured"]
    step = training["compared"]["steps"]
    (final,) = [r for r in rows(ship.TABLE) if ship.of_cell(r, cell, ship.SEED, step)]
    assert int(final["tokens"]) == training["compared"]["tokens"]
    for name, value in measured.items():
        if name != "blocks":
            assert float(final[name]) == value, name
    blocks = [r for r in rows(ship.BLOCKS) if ship.of_cell(r, cell, ship.SEED, step)]
    assert len(blocks) == len(measured["blocks"]) == 8
    assert float(blocks[-1]["log_gain"]) == measured["log_gain_last_ordinary"]


def test_held_out_loss_meets_the_targets() -> None:
    for cell in ship.SHIPPED:
        measured = record(cell.name)["measured"]
        assert measured[f"loss_{cell.context}"] < {512: 2.5, 4096: 3.0}[cell.context]
        if cell.context == 4096:
            lengths = [measured[f"loss_{n}"] for n in (128, 512, 1024, 2048, 4096)]
            assert lengths == sorted(lengths, reverse=True)


def test_table_holds_every_cell_seed_and_checkpoint() -> None:
    table = rows(ship.TABLE)
    cells = {(row["context"], row["theta"], row["bos_every"]) for row in table}
    assert len(cells) == 6
    points = {}
    for row in table:
        key = (row["context"], row["theta"], row["bos_every"], row["seed"])
        points.setdefault(key, []).append(int(row["step"]))
    assert len(points) == 18
    assert len({tuple(steps) for steps in points.values()}) == 1
    assert all(len(steps) >= 12 and steps == sorted(set(steps)) for steps in points.values())


def prompts_of(loaded: LoadedModel, count: int | None = None) -> EncodedPrompts:
    """The prompts as they were cut in training."""
    texts = [json.loads(line)["text"] for line in prepare.PROMPTS.read_text().splitlines()][:count]
    tokens = [loaded.tokenizer(text).input_ids[: prepare.PROMPT_TOKENS] for text in texts]
    return EncodedPrompts(
        prepare.PROMPTS.name, "", tuple(map(str, range(len(tokens)))), tuple(map(np.array, tokens)),
        bos=True, cut=0, left_out=(),
    )  # fmt: skip


def close(found: np.ndarray, wanted: list[float]) -> None:
    """The table was written on a GPU by the ensemble; 1e-3 covers float32 in another order."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("cell", ship.SHIPPED, ids=NAMES)
def test_the_weights_measure_as_recorded(cell: ship.Cell) -> None:
    """By the package itself, on all prompts."""
    loaded = gainlens.load(TWINS / cell.name, backend="native")
    tokens = gainlens.decompose(gainlens.capture(loaded, prompts_of(loaded)))
    gains = gainlens.reduce_gains(tokens)
    measured = record(cell.name)["measured"]
    recorded = {name: [b[name] for b in measured["blocks"]] for name in measured["blocks"][0]}
    for name in ("log_gain", "attention", "mlp"):
        close(getattr(gains, name).mean(axis=1), recorded[name])
    close(tokens.log_gain[:, tokens.position == 0].mean(axis=1), recorded["bos_log_gain"])
    norms = np.log(tokens.norm_out)
    close(norms[:, tokens.is_ordinary].mean(axis=1), recorded["log_norm_out"])
    sigma = torch.linalg.svdvals(loaded.hf_model.lm_head.weight.detach())[0]
    assert float(sigma) == pytest.approx(measured["sigma_max_w_u"], rel=1e-4)


def test_the_ensemble_measures_what_the_package_measures() -> None:
    """On eight of the prompts; the record holds for all."""
    cell, shape = ship.SHIPPED[3], ensemble.Shape()
    loaded = gainlens.load(TWINS / cell.name, backend="native")
    prompts = prompts_of(loaded, 8)
    sentence = loaded.tokenizer(prepare.NOTEBOOK_SENTENCE).input_ids
    stacked = ensemble.stack([export.load_weights(TWINS / cell.name / WEIGHTS, shape)])
    texts = (*(ids.tolist() for ids in prompts.tokens), sentence)
    found = measure.residual(
        next(measure.captures(stacked, texts, torch.tensor([cell.theta]), shape))
    )
    gains = gainlens.reduce_gains(gainlens.decompose(gainlens.capture(loaded, prompts)))
    for name in ("log_gain", "attention", "mlp"):
        close(getattr(found, name), getattr(gains, name).mean(axis=1))
    measured = record(cell.name)["measured"]
    assert found.notebook_last_gain == pytest.approx(measured["notebook_last_gain"], rel=1e-3)
    sigma = float(measure.sigma_max(stacked)[0])
    assert sigma == pytest.approx(measured["sigma_max_w_u"], rel=1e-4)


def test_ship_refuses_an_unfinished_training(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for context in ship.CONTEXTS:
        run = {"step": 5, "steps": 9}
        (tmp_path / "out" / f"run-{context}.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="step 5 of 9"):
        ship.ship(tmp_path, tmp_path / "package")
    assert not (tmp_path / "package").exists()
