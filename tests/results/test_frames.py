"""DataFrames of records and the CSV tables of a run: numbers, names, definitions."""

import numpy as np
import pandas as pd
import pytest
from planting.runs import drawing_only, planted_run, without_interventions

from gainlens.core.glossary import GLOSSARY
from gainlens.metrics.reductions import reduce_gains
from gainlens.records.capture import Capture
from gainlens.records.comparison import Comparison
from gainlens.records.interval import Interval
from gainlens.results.frames import TABLES, columns_of, define, run_tables, to_frame, write_tables
from gainlens.results.parquet import token_columns
from gainlens.runs.writing import write_run


@pytest.fixture(scope="module")
def run() -> Comparison:
    return planted_run()


def test_every_record_has_a_frame_whose_columns_are_all_defined(run):
    report = run.reports[0]
    capture, tokens = run.captures["alpha"], run.decompositions["alpha"]
    gains = reduce_gains(tokens)
    records = [
        run, run.reports, report, report.blocks, report.cells, report.massive, report.unembed,
        report.rope, report.residual, report.checkpoint, report.prompts, report.halves_control,
        run.verdict, run.test, capture, tokens, gains, run.reports[1].rope, run.captures,
    ]  # fmt: skip
    for record in records[:-1]:
        frame = to_frame(record)
        assert len(frame)
        assert list(columns_of(frame)["column"]) == list(frame.columns)
    with pytest.raises(ValueError, match="to_frame takes a record"):
        to_frame(records[-1])
    with pytest.raises(ValueError, match="'nonesuch' is no column"):
        define("nonesuch")


def test_frames_hold_the_records_numbers(run):
    capture, tokens = run.captures["alpha"], run.decompositions["alpha"]
    frame = to_frame(tokens)
    pivot = frame.pivot_table(index="layer", columns=["prompt", "position"], values="log_gain")
    np.testing.assert_array_equal(pivot.to_numpy(), tokens.log_gain)
    last = frame[frame["layer"] == 2]
    np.testing.assert_array_equal(last["final_norm"], tokens.final_norm)
    assert frame[frame["layer"] < 2]["final_norm"].isna().all()
    assert set(frame["class"]) == {"bos", "massive", "ordinary"}
    np.testing.assert_array_equal(to_frame(capture)["am"], capture.column("am").ravel())
    models = to_frame(run)
    assert list(models["model"]) == [report.checkpoint.name for report in run.reports]
    short = run.reports[0]
    assert models["log_gain"][0] == pytest.approx(short.blocks[-1].log_gain)
    assert models["notebook_final_norm"][0] == short.residual.final_norm
    assert "final_norm" not in models  # a gain in nats, by the glossary
    assert models["last_gain"][0] == short.residual.last_gain
    assert to_frame(Interval(1.0, 0.5, 1.5, 9, 0.95, "m"))["high"][0] == 1.5


def test_an_intervention_is_a_row_with_before_and_after(run):
    (short, *_) = run.reports
    frame = to_frame(short.interventions.sweep)
    effect = short.interventions.sweep[1]
    row = frame.iloc[1]
    assert (row["site"], row["how"]) == (effect.site, "zero")
    assert row["log_gain_after"] - row["log_gain_before"] == pytest.approx(row["delta_log_gain"])
    assert row["delta_loss"] == effect.change.delta_loss.estimate
    assert (row["behaviour_before"], row["behaviour_after"]) == ("EXPANDS", "CONTRACTS")
    doses = to_frame(short.interventions.theta_dose)
    assert doses["theta"].tolist() == [1e4, 5e5]
    assert doses["own"].tolist() == [True, False]


def test_a_frame_has_the_same_columns_whatever_is_unknown(run):
    with_scaling, without = (to_frame(report.rope) for report in run.reports[:2])
    assert list(with_scaling.columns) == list(without.columns)
    assert "rope_scaling" not in without
    assert "text" in to_frame(run.captures["alpha"])


def test_tables_are_written_whole_and_every_column_is_in_the_glossary(run, tmp_path):
    written = write_tables(tmp_path, run)
    names = [
        "models.csv", "layers.csv", "cells.csv", "sweep.csv", "theta_dose.csv", "controls.csv",
        "columns.csv",
    ]  # fmt: skip
    assert [path.name for path in written] == names
    glossary = pd.read_csv(tmp_path / "columns.csv")
    for name, frame in run_tables(run).items():
        read = pd.read_csv(tmp_path / f"{name}.csv", dtype=str)
        assert list(read.columns) == list(frame.columns)
        for column in frame.select_dtypes("float"):  # full precision: equal, not close
            np.testing.assert_array_equal(read[column].astype(float), frame[column])
        assert set(frame.columns) <= set(glossary["column"])
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_tables(tmp_path, planted_run())] == before


def test_what_this_run_has_not_is_not_left_from_the_last(run, tmp_path):
    folder = tmp_path / "run"
    with drawing_only("headline", "ablation_zero", "theta_dose"):
        write_run(folder, folder / "figures", run)
    assert (folder / "figures" / "ablation_zero.svg").exists()
    (folder / "figures" / "mine.png").write_bytes(b"")
    assert (folder / "sweep.csv").exists()
    with drawing_only("headline", "ablation_zero", "theta_dose"):
        write_run(folder, folder / "figures", without_interventions(run))
    for name in ("sweep.csv", "theta_dose.csv", "controls.csv"):
        assert not (folder / name).exists()
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert {"headline.svg", "mine.png"} <= figures
    assert not {"ablation_zero.svg", "theta_dose.png"} & figures


def test_every_table_has_its_name_in_the_list(run):
    assert tuple(run_tables(run)) == TABLES


def test_the_token_tables_columns_are_defined_too(run, tmp_path):
    report = run.reports[0]
    name = report.checkpoint.name
    columns = token_columns(name, report.prompts, run.decompositions[name], range(1))
    assert set(columns) <= set(GLOSSARY)
    assert isinstance(run.captures[name], Capture)
