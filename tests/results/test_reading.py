"""A run folder gives back the records that were written, or one sentence."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from planting.comparing import same
from planting.runs import planted_run, write_files

from gainlens.claims.judging import judge
from gainlens.metrics.decomposition import decompose
from gainlens.records.comparison import Comparison
from gainlens.records.gains import BlockGain
from gainlens.records.interval import Interval
from gainlens.results import parquet
from gainlens.results.parquet import HEADS, TOKENS
from gainlens.results.reading import read_run
from gainlens.results.run_folder import RESULT
from gainlens.results.values import from_json


@pytest.fixture(scope="module")
def run() -> Comparison:
    return planted_run()


@pytest.fixture
def folder(run, tmp_path) -> Path:
    return write_files(tmp_path, run)


def finite(run: Comparison) -> Comparison:
    """JSON has no infinity: such a wavelength is written as unknown."""
    reports = [
        dataclasses.replace(
            report,
            rope=dataclasses.replace(
                report.rope,
                wavelengths=np.where(
                    np.isinf(report.rope.wavelengths), np.nan, report.rope.wavelengths
                ),
            ),
        )
        for report in run.reports
    ]
    return dataclasses.replace(run, reports=tuple(reports))


def test_every_record_comes_back(run, folder):
    same(finite(run), read_run(folder))
    same(finite(run), read_run(str(folder)))


def test_a_prefix_comes_back_with_the_classes_that_it_makes(tmp_path):
    """A run from before prefixes were written has none in its result.json: one token."""
    run = planted_run(prefix=2)
    same(finite(run), read_run(write_files(tmp_path / "two", run)))
    older = write_files(tmp_path / "one", planted_run())
    document = json.loads((older / RESULT).read_text())
    for model in document["models"].values():
        del model["prompts"]["prefix"]
    (older / RESULT).write_text(json.dumps(document))
    same(finite(planted_run()), read_run(older))


def test_a_table_reads_the_same_in_groups_of_a_block_or_all_in_one(run, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(parquet, "GROUP_ROWS", 1)
    table = write_files(tmp_path, run) / TOKENS
    blocks = sum(report.checkpoint.num_blocks for report in run.reports)
    assert pq.ParquetFile(table).num_row_groups == blocks
    same(finite(run), read_run(tmp_path))
    pq.write_table(pq.read_table(table), table)  # as it was written before
    assert pq.ParquetFile(table).num_row_groups == 1
    same(finite(run), read_run(tmp_path))


def test_the_comparison_of_records_sees_one_changed_bit(run):
    capture = run.captures["alpha"]
    gram = capture.gram.copy()
    gram[3, 1, 5] = np.nextafter(gram[3, 1, 5], 1e9)
    changed = dataclasses.replace(
        run, captures={**run.captures, "alpha": dataclasses.replace(capture, gram=gram)}
    )
    with pytest.raises(AssertionError):
        same(run, changed)


def test_a_run_is_judged_again_from_its_files(run, folder):
    read = read_run(folder)
    same(run.verdict, judge(read.reports, read.spec.rule))
    assert run.verdict.outcome == "CONFIRMED"


def test_a_run_is_decomposed_again_under_another_split(run, folder):
    read = read_run(folder)
    for key, capture in run.captures.items():
        same(decompose(capture, split="shapley"), decompose(read.captures[key], split="shapley"))


def rewrite(folder: Path, change) -> None:
    document = json.loads((folder / RESULT).read_text("utf-8"))
    change(document)
    (folder / RESULT).write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d["verdict"].pop("outcome"), r"broken: verdict\.outcome is missing"),
        (lambda d: d["verdict"].update(robust=1), "verdict.robust is 1, needed is true or false"),
        (lambda d: d["environment"].update({"a\nb": None}),
         r'environment\["a\\nb"\] is None, needed is a string'),
        (lambda d: d.update(date=None), "date is None, needed is a string"),
        (lambda d: d["spec"].update(colour="red"), "broken: spec.colour: Extra inputs"),
        (lambda d: d["spec"].update({"a\nb\x1b": 1}), r"broken: spec.a\?b\?: Extra inputs"),
        (lambda d: d["gainlens"].update(schema="\x1b[2J\n"), r"has schema \?\[2J\?, this gainlens"),
        (lambda d: d.update(seconds=10**400), "seconds is int, needed is a number or null"),
        (lambda d: d["gainlens"].update(schema=99), "has schema 99, this gainlens reads schema"),
        (lambda d: d.pop("gainlens"), "no comparison of gainlens .*give the folder that compare"),
        (lambda d: d.update(models=[]), r"models is \[\], needed is an object"),
        (lambda d: d["models"]["alpha"]["layers"][1].update(gain="x"),
         r'models\["alpha"\]\.layers\[1\]\.gain is \'x\', needed is a number or null'),
        (lambda d: d["models"]["alpha"]["checkpoint"].pop("dtype"), "checkpoint.dtype is missing"),
        (lambda d: d["models"]["alpha"].update(role="boss"), "role is 'boss', needed is one of"),
        (lambda d: d["models"]["alpha"]["prompts"]["tokens"].pop(),
         r"no whole run: tokens.parquet has \d+ rows of alpha, needed are \d+: .*not of one run"),
        (lambda d: d["models"]["alpha"]["prompts"]["tokens"].reverse(),
         "column 'position' of tokens.parquet is not as result.json has it"),
    ],
)  # fmt: skip
@pytest.mark.fault(
    "a run folder whose result.json lacks a key or has a wrong type", "refused: the place"
)
def test_a_broken_result_is_one_sentence(folder, change, sentence):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.fault("a folder that holds no run", "refused: what to give")
def test_what_is_no_run_folder_is_one_sentence(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no run folder: it has no result\.json; give the folder"):
        read_run(tmp_path / "nowhere")
    (folder / RESULT).write_bytes(b"\xff{")
    with pytest.raises(ValueError, match=r"result\.json' is not JSON"):
        read_run(folder)
    (folder / RESULT).write_text('{"rescore": {}}')
    with pytest.raises(ValueError, match=r"a re-scored result .* hold no run"):
        read_run(folder)


@pytest.mark.parametrize("name", [TOKENS, HEADS])
@pytest.mark.fault("a run folder with a truncated or missing table", "refused: which")
def test_a_missing_or_broken_table_is_one_sentence(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"no whole run: {name} cannot be read") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"it has no {name}; copy the whole folder"):
        read_run(folder)


@pytest.mark.parametrize("name", [TOKENS, HEADS])
@pytest.mark.fault("a run folder with another run's table", "refused: not of one run")
def test_tables_of_another_run_are_refused(folder, tmp_path_factory, name):
    other = write_files(tmp_path_factory.mktemp("other"), planted_run(prompts=23))
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ValueError, match=f"no whole run: {name} has .* are not of one run"):
        read_run(folder)


@pytest.mark.parametrize("name", [TOKENS, HEADS])
@pytest.mark.fault("a run folder whose rows were reordered", "refused: the column")
def test_a_table_in_another_order_is_refused(folder, name):
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / name)
    pq.write_table(rows.take(np.arange(len(rows))[::-1]), folder / name)
    with pytest.raises(ValueError, match=f"column 'layer' of {name} is not as result.json has it"):
        read_run(folder)
    column = "head" if name == HEADS else "position"
    swapped = rows.set_column(
        rows.schema.get_field_index(column), column, rows[column].take(np.arange(len(rows))[::-1])
    )
    pq.write_table(swapped, folder / name)
    with pytest.raises(ValueError, match=f"column '{column}' of {name} is not as"):
        read_run(folder)


def test_null_is_nan_or_none_by_the_annotation():
    values = {"estimate": 1, "low": None, "high": None, "n": 0, "confidence": 0.95, "method": "m"}
    interval = from_json(Interval, values, "there")
    assert type(interval.estimate) is float
    assert np.isnan(interval.low)
    assert interval.status == "ok"
    assert from_json(float | None, None, "there") is None
    with pytest.raises(ValueError, match=r"^there\.n is None, needed is a whole number$"):
        from_json(Interval, values | {"n": None}, "there")
    with pytest.raises(ValueError, match=r"^there\.n is True, needed is a whole number$"):
        from_json(Interval, values | {"n": True}, "there")
    with pytest.raises(ValueError, match=r"^there is 3, needed is an object$"):
        from_json(BlockGain, 3, "there")
