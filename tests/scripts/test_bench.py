"""scripts/bench.py end to end on a small shape, its table, its figure, and what did not fit."""

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from benchmark import cli, measure, throughput
from benchmark import figure as figures
from benchmark.methods import METHODS, tokens_of
from benchmark.shapes import build, config_of
from benchmark.table import (
    DATA,
    MEASURED,
    OUT_OF_MEMORY,
    REFUSED,
    BenchRow,
    merged,
    read_rows,
    write_rows,
)
from planting.checkpoints import BACK_ENDS

from gainlens.figures.style import root_figure

ROW = BenchRow("a machine", "2x256", "float32", 64, "native", "plain", MEASURED, 0.5, 0.4, 0.75, 3)
ROWS = (
    replace(ROW, memory_bytes=2 * 10**6, times_native_plain=1.0),
    replace(ROW, method="gainlens", memory_bytes=3 * 10**6, times_native_plain=1.25),
    replace(ROW, tokens=128, memory_bytes=4 * 10**6, times_native_plain=1.0),
    BenchRow("a machine", "2x256", "float32", 128, "hooked", "plain", OUT_OF_MEMORY),
    BenchRow("a machine", "2x256", "float32", 128, "hooked", "gainlens", REFUSED),
)


def test_a_table_reads_as_it_was_written(tmp_path):
    write_rows(tmp_path / "bench.csv", ROWS)
    assert read_rows(tmp_path / "bench.csv", BenchRow) == ROWS


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("machine,model\na,b\n", "utf-8")
    with pytest.raises(ValueError, match="not a table"):
        read_rows(tmp_path / "other.csv", BenchRow)


def test_a_later_run_replaces_its_own_rows_only():
    again = replace(ROWS[0], seconds=9.0)
    both = merged(ROWS, (again,))
    assert both == (again, *ROWS[1:])


def test_the_shipped_table_was_measured_and_described():
    """Every machine and shape has a description; gainlens and plain stand beside each other."""
    rows = read_rows(DATA / "bench.csv", BenchRow)
    runs = json.loads((DATA / "bench.json").read_text("utf-8"))["runs"]
    described = {(run["machine"], run["shape"], run["dtype"]) for run in runs}
    assert {(row.machine, row.model, row.dtype) for row in rows} == described
    native = [row for row in rows if row.backend == "native" and row.method == "gainlens"]
    assert native
    assert all(row.status == MEASURED and row.times_native_plain for row in native)
    assert not any("/" in run["command"].replace("scripts/bench.py", "") for run in runs)


@pytest.mark.slow
def test_the_script_measures_every_method_and_writes_table_and_figure(tmp_path, monkeypatch):
    """All but the memory, for which each method runs in a process: the next test measures it."""
    monkeypatch.setattr(measure, "_peak_of_a_process", lambda *_: (MEASURED, 1_000_000))
    flags = ["--shape", "1x256", "--tokens", "32", "--seconds", "0.01", "--backends", "native"]
    flags += ["--out", str(tmp_path), "--figures", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench.py", *flags])
    cli.main()
    rows = {row.method: row for row in read_rows(tmp_path / "bench.csv", BenchRow)}
    assert set(rows) == {method.name for method in METHODS if "native" in method.backends}
    for name, row in rows.items():
        if row.status != "not installed":
            assert row.status == MEASURED
            assert row.seconds is not None
            assert row.seconds_low <= row.seconds <= row.seconds_high
            assert row.memory_bytes > 0, name
            assert row.times_own_plain == row.times_native_plain
    assert rows["plain"].times_native_plain == 1
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    run = json.loads((tmp_path / "bench.json").read_text("utf-8"))["runs"][0]
    assert str(tmp_path) not in json.dumps(run)


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_every_method_runs_and_the_streams_of_gainlens_are_the_models_own(backend):
    model = build("2x256", backend, "float32", "cpu")
    tokens = tokens_of(7, 32_000, "cpu")
    with torch.no_grad():
        kept = {
            m.name: m.run(model, tokens) for m in METHODS if backend in m.backends and m.installed
        }
    assert kept["plain"] is None
    norms = np.sqrt(kept["gainlens"].column("xx")).mean(axis=1)
    if backend == "native":
        np.testing.assert_allclose(norms, kept["notebook"][:-1], rtol=1e-5)
    else:
        _, cache = kept["run_with_cache, five sites"]
        want = [float(cache["resid_pre", i].norm(dim=-1).mean()) for i in range(2)]
        np.testing.assert_allclose(norms, want, rtol=1e-5)
        assert len(kept["run_with_cache, all"][1]) > len(cache)


@pytest.mark.slow
def test_memory_of_a_process_is_that_of_its_method(monkeypatch):
    """A planted method that holds 64 MiB for a moment, and one that asks for more than there is."""
    plan = measure.Plan("1x256", "cpu", "float32", (8,), ("native",), 0.0, 12 * 10**9)
    plain = next(method for method in METHODS if method.name == "plain")
    status, memory = measure._peak_of_a_process(plan, "native", plain, 2048)
    assert status == MEASURED
    logits_free = 4 * 2048 * (256 * 7 + 3 * 896)  # embeddings, streams and the MLP's three
    assert 0.5 * logits_free < memory < 4 * logits_free
    small = replace(plan, memory_limit=3 * 10**9)
    status, memory = measure._peak_of_a_process(small, "native", plain, 2_000_000)
    assert (status, memory) == (OUT_OF_MEMORY, None)


def test_many_prompts_are_measured_in_the_batches_that_a_capture_makes(capsys):
    plan = measure.Plan("1x256", "cpu", "float32", (), ("native", "hooked"), 0.0, 0, 12, (128, 512))
    rows = list(throughput.measure(plan, "a machine"))
    assert capsys.readouterr().out.count("tokens_per_second") == len(rows)
    done = [row for row in rows if row.status == MEASURED]
    methods = {("native", "plain"), ("native", "gainlens"), ("hooked", "plain")}
    methods |= {("hooked", "gainlens"), ("hooked", "run_with_cache, five sites")}
    assert {(row.backend, row.method) for row in done} - {("native", "nnsight")} == methods
    prompts = throughput.short_prompts(12, 32_000)
    for row in done:
        assert row.tokens == sum(len(ids) for ids in prompts.tokens)
        assert row.tokens_per_second == pytest.approx(row.tokens / row.seconds)
        assert 0 <= row.padding < 1
    assert {row.batch_tokens for row in done} == {128, 512}
    plain = [row.times_own_plain for row in done if row.method == "plain"]
    assert plain == [1.0] * 4
    drawn = figures.throughput_figure(done).axes[0].get_lines()
    assert sorted(line.get_label() for line in drawn if not line.get_label().startswith("_")) == (
        sorted(f"{backend}: {method}" for backend, method in {(r.backend, r.method) for r in done})
    )


def test_norms_of_a_method_are_those_of_all_that_it_kept():
    states = [torch.full((1, 2, 4), 2.0), {"x": torch.ones(1, 2, 9)}, None]
    assert [norms.tolist() for norms in throughput._norms(states)] == [[[4.0, 4.0]], [[3.0, 3.0]]]


def test_a_failure_is_a_row_that_says_so():
    def burst(model, tokens):
        raise KeyError("nothing there")

    def full(model, tokens):
        raise RuntimeError("a peer's words") from torch.OutOfMemoryError("no")

    tokens = tokens_of(3, 10, "cpu")
    assert measure.try_once(partial(burst, None, tokens)) == "KeyError: 'nothing there'"
    assert measure.try_once(partial(full, None, tokens)) == OUT_OF_MEMORY


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="BLOCKSxD_MODEL"):
        config_of("12x1000")


def test_the_figure_shows_what_was_measured_and_marks_what_did_not_fit():
    ax = figures.bench_times(ROWS)
    curves = {line.get_label(): line for line in ax.get_lines()}
    assert curves["native: gainlens"].get_xydata().tolist() == [[64, 1.25]]
    assert curves["native: plain"].get_xydata().tolist() == [[64, 1.0], [128, 1.0]]
    crosses = [line for line in ax.get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in crosses] == [[128], [128]]
    memory = figures.bench_memory(ROWS)
    drawn = {line.get_label(): line for line in memory.get_lines()}
    assert drawn["native: gainlens"].get_ydata().tolist() == [0.003]
    assert "GB" in memory.get_ylabel()


def test_machines_do_not_share_a_panel_but_a_figure():
    both = (*ROWS, replace(ROWS[0], machine="another"))
    with pytest.raises(ValueError, match="the rows are of 2"):
        figures.bench_times(both)
    figure = figures.bench_figure(both)
    assert len(figure.axes) == 4
    assert "another" in figure.axes[2].get_title(loc="left")


def test_the_panel_draws_into_the_users_axes():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert figures.bench_memory(ROWS, ax) is ax
    assert root_figure(ax) is ax.figure
