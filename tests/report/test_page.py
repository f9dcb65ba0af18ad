"""The page's text, without a browser: content, escaping, definitions, size; and the frames."""

import base64
import hashlib
import html
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import click
import numpy as np
import pandas as pd
import pytest
from planting.runs import HOSTILE, HOSTILE_TOKEN, explored_of, planted_run, write_files

from gainlens.claims.cells import BLIND
from gainlens.claims.judging import judge
from gainlens.cli import compare as cli
from gainlens.core.glossary import DEFINITIONS, GLOSSARY
from gainlens.core.presets import PRESETS
from gainlens.core.spec import ComparisonSpec, Rule
from gainlens.core.vocabulary import REDUCTIONS, SPLITS, TOKEN_CLASSES
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.records.capture import Capture
from gainlens.records.comparison import Comparison
from gainlens.records.interval import Interval
from gainlens.records.interventions import Interventions
from gainlens.report.explorer import LONGEST_MAP, MAP_CELLS, MAP_PROMPTS, page_data, shown_prompts
from gainlens.report.page import page_html, script_json
from gainlens.report.provenance import command_of
from gainlens.report.svg import inline_svg
from gainlens.results.frames import TABLES, columns_of, define, run_tables, to_frame, write_tables
from gainlens.results.parquet import token_columns
from gainlens.results.reading import read_run
from gainlens.runs.writing import write_run

SVG = (
    '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" height="5pt" viewBox="0 0 10 5">'
    "<title>file name</title><metadata>x</metadata><defs><style>*{color:red}</style>"
    '<clipPath id="p"><rect/></clipPath><path id="m" d="M 0 0"/></defs>'
    '<g id="figure_1" clip-path="url(#p)"><use xlink:href="#m" style="fill: url(#p)"/>'
    "<text style=\"font-family: 'DejaVu Sans'\">&lt;b&gt; &amp;</text></g></svg>"
)
FIGURES = {"gain_curve": SVG, "headline": SVG, "own_figure": SVG}


class Elements(HTMLParser):
    """Start tags with their attributes, and the text by element id of the nearest parent."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run() -> Comparison:
    return planted_run()


@pytest.fixture(scope="module")
def page(run) -> str:
    return page_html(run, FIGURES, explored_of(run))


@pytest.fixture(scope="module")
def elements(page) -> Elements:
    return Elements(page)


def data_behind(run: Comparison) -> dict:
    return page_data(run, dict.fromkeys(run.captures, "#000000"), explored_of(run))


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="page-data">(.*?)</script>', page, re.S)[1])


def test_the_page_leads_with_the_verdict_and_its_trust(run, page):
    body = page[page.index("<body>") :]
    order = ["Verdict</h2>", "Robust", "Figures</h2>", "Explore</h2>", "Tables</h2>",
             "Method and provenance</h2>", "Definitions</h2>"]  # fmt: skip
    places = [body.index(word) for word in order]
    assert places == sorted(places)
    said = html.unescape(re.sub(r"<[^>]*>", "", body))
    assert run.verdict.headline.removeprefix("CONFIRMED: ") in said
    assert body.index("the last block&#39;s gain on ordinary") < body.index("<svg")
    for line in (*run.verdict.reasons, *run.verdict.dissent, *run.verdict.identification.differing):
        assert line in said
    assert run.reports[0].prompts.sha256 in said
    assert "--prompts '<b>mine</b>.txt'" in said


def test_dissent_that_cannot_veto_is_folded_away(run, page):
    blind = [line for line in run.verdict.dissent if line.endswith(BLIND)]
    assert blind, "the planted run has some"
    folded = re.search(
        r"<details><summary>(\d+) more after the final norm.*?</details>", page, re.S
    )
    assert folded[1] == str(len(blind))
    for line in run.verdict.dissent:
        assert (line in html.unescape(folded[0])) == (line in blind)


def test_the_same_comparison_gives_the_same_bytes_and_so_do_its_files(run, page, tmp_path):
    assert page == page_html(
        planted_run(), dict(reversed(FIGURES.items())) | FIGURES, explored_of(run)
    )
    write_files(tmp_path, run)
    read = read_run(tmp_path)
    assert page_html(read, FIGURES, explored_of(read)) == page


def test_foreign_text_stands_as_text(run, page, elements):
    assert HOSTILE not in page
    assert "<b>mine" not in page
    assert "<img" not in page
    assert len(elements.of("script")) == 4  # data, d3, Plot, ours
    assert not [tag for tag, found in elements.tags if any(name.startswith("on") for name in found)]
    texts = data_of(page)["models"][0]["maps"][0]["texts"]
    assert "".join(texts) == HOSTILE + HOSTILE_TOKEN
    assert "alpha" in "".join(elements.words)
    assert "beta <img src=x onerror=alert(2)>" in "".join(elements.words)


def test_json_in_a_script_element_cannot_end_it():
    value = {"</script><!--": "a & b \u2028 \u2029 <b>", "unicode": "é σ 👍"}
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")
    with pytest.raises(ValueError, match="Out of range float"):
        script_json(float("nan"))


def test_the_policy_allows_the_pages_own_scripts_alone(page, elements):
    policy = next(m["content"] for m in elements.of("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert policy.endswith("script-src " + " ".join(f"'sha256-{d}'" for d in digests))
    outside = [
        value
        for _, found in elements.tags
        for name, value in found.items()
        if name in ("src", "href", "xlink:href", "action") and not value.startswith(("#", "data:"))
    ]
    assert outside == []


def test_ids_are_unique_and_every_link_has_its_place(elements):
    ids = [found["id"] for _, found in elements.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for found in elements.of("a"):
        assert found["href"].removeprefix("#") in ids
    for _, found in elements.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((found.get(name) or "").split()) <= set(ids)


def test_headings_tables_and_drawings_can_be_read_aloud(elements):
    levels = [int(tag[1]) for tag, _ in elements.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(elements.of("table")) == len(elements.of("caption")) >= 8
    assert all(found.get("scope") in ("col", "row") for found in elements.of("th"))
    svgs = elements.of("svg")
    assert len(svgs) == len(FIGURES)
    assert all(found["role"] == "img" and found["aria-labelledby"] for found in svgs)
    assert elements.of("html")[0]["lang"] == "en"


def test_every_column_of_every_table_leads_to_its_definition(page):
    heads = re.findall(r'<th scope="col".*?</th>', page)
    assert len(heads) > 50
    for head in heads:
        key = re.search(r'href="#define-(\w+)"', head)[1]
        assert f'id="define-{key}"' in page
    for key in GLOSSARY:
        assert f'id="define-{key}"' in page


def test_tables_show_the_records_numbers(run, page):
    table = page[page.index('id="table-gains"') : page.index('id="table-true-gain"')]
    for report in run.reports:
        assert f"{report.blocks[-1].attention:+.4f}" in table
    number = page[page.index('id="table-true-gain"') : page.index('id="table-notebook"')]
    residual = run.reports[0].residual
    for value in (residual.last_gain, residual.true_last_gain, residual.final_norm_gain):
        assert f"{value:.4f}" in number


def test_tables_show_what_interventions_changed(run, page):
    def table(name: str) -> str:
        start = page.index(f'id="table-{name}"')
        return page[start : page.index("</table>", start)]

    for report in run.reports:
        done = report.interventions
        for name, changes in (
            ("sweep", [effect.change for effect in done.sweep]),
            ("theta-dose", [dose.change for dose in done.theta_dose]),
            ("ablated", [done.ablated.change]),
        ):
            for change in changes:
                assert f"{np.exp(change.after.log_gain.estimate):.3f} [" in table(name)
                assert f"{change.delta_loss.estimate:+.4f} [" in table(name)
    assert run.verdict.components
    for found in run.verdict.components:
        assert f"{found.difference.estimate:+.4f} [" in table("components")
    assert table("token-controls").count("no token is massive") == len(run.reports)
    assert f"the outcome under it: {run.verdict.ablated_outcome}" in table("ablated")


def without_interventions(run: Comparison) -> Comparison:
    reports = tuple(replace(report, interventions=Interventions()) for report in run.reports)
    fields = {"ablate": (), "theta": (), "sweep": 0, "controls": False}
    return replace(
        run,
        reports=reports,
        verdict=judge(reports, run.spec.rule),
        spec=run.spec.model_copy(update=fields),
    )


def test_a_run_without_interventions_has_no_empty_tables(run):
    page = page_html(without_interventions(run), {"headline": SVG}, explored_of(run))
    for name in ("sweep", "theta-dose", "ablated", "components", "token-controls"):
        assert f'id="table-{name}"' not in page


def test_a_figure_may_stand_beside_another():
    one, other = (inline_svg(SVG, name, "A title", "Says <this>") for name in ("one", "other"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert len(ids[0]) == 5
    assert not ids[0] & ids[1]
    assert 'href="#one-m"' in one
    assert one.count("url(#one-p)") == 2
    assert "&lt;b&gt; &amp;" in one
    assert '<desc id="one-desc">Says &lt;this&gt;</desc>' in one
    for gone in ("<style", "metadata", "file name", "DOCTYPE", " width="):
        assert gone not in one
    with pytest.raises(ValueError, match="'x' is no SVG"):
        inline_svg("<p>", "x", "", "")
    with pytest.raises(ValueError, match="refers to 'https://a' outside of itself"):
        inline_svg(SVG.replace("#m", "https://a"), "x", "", "")


def unpack(packed: list) -> np.ndarray:
    whole = np.frombuffer(base64.b64decode(packed[1]), "<i2")
    return np.where(whole == -32768, np.nan, whole * packed[0])


def test_the_drawn_numbers_are_those_of_the_library(run, page):
    data = data_of(page)
    for model, report in zip(data["models"], run.reports, strict=True):
        capture = run.captures[report.checkpoint.name]
        for split in SPLITS:
            tokens = decompose(capture, split=split)
            for token_class in TOKEN_CLASSES:
                for reduction in REDUCTIONS:
                    gains = reduce_gains(tokens, token_class, reduction)
                    curve = model["curves"][f"{token_class}/{reduction}"]
                    attention, mlp = curve["parts"][split]
                    for drawn, values in (
                        (curve["gain"], gains.log_gain), (attention, gains.attention),
                        (mlp, gains.mlp),
                    ):  # fmt: skip
                        np.testing.assert_allclose(drawn, np.nanmean(values, 1), atol=1e-6)
            for shown, index in zip(model["maps"], shown_prompts(24), strict=True):
                mine = capture.prompt == index
                for name in ("attention", "mlp"):
                    values = getattr(tokens, name)[:, mine]
                    drawn = unpack(shown["values"][f"{name}/{split}"]).reshape(values.shape)
                    # a step is the largest over 32767; half of it is rounded away
                    np.testing.assert_allclose(drawn, values, atol=np.abs(values).max() / 6e4)
                assert shown["prompt"] == report.prompts.ids[index]
        primary = model["curves"]["ordinary/geomean"]
        last = report.blocks[-1]
        assert primary["low"][-1] == pytest.approx(np.log(last.low), abs=1e-6)
        assert primary["high"][-1] == pytest.approx(np.log(last.high), abs=1e-6)


def test_maps_mark_the_classes_and_name_tokens_without_text(run, page):
    first, second = data_of(page)["models"][:2]
    assert {map_["classes"][0] for map_ in first["maps"]} == {"b"}
    assert all(map_["classes"][2] == "m" for map_ in first["maps"][1:])
    assert second["maps"][0]["texts"][0] == f"[{ord(HOSTILE[0])}]"


def test_unknown_parts_are_unknown_in_the_map(run):
    capture = run.captures["alpha"]
    gram = capture.gram.copy()
    gram[8, 1, 4] = 0.0  # |x+m|^2: the shapley split has no value there
    broken = {**run.captures, "alpha": replace(capture, gram=gram)}
    with np.errstate(divide="ignore", invalid="ignore"):
        data = data_behind(replace(run, captures=broken))
    values = data["models"][0]["maps"][0]["values"]
    assert np.isnan(unpack(values["attention/shapley"])).sum() == 1
    assert not np.isnan(unpack(values["attention/logmean"])).any()
    script_json(data)


def test_blocks_in_pieces_give_the_same_curves(run, monkeypatch):
    before = data_behind(run)
    monkeypatch.setattr("gainlens.report.explorer._CELLS_AT_ONCE", 1)
    assert data_behind(run) == before


def test_a_deep_run_with_long_prompts_stays_small():
    run = planted_run(depth=32, prompts=13, lengths=(390, 400), models=2)
    data = data_behind(run)
    cells = sum(
        len(map_["texts"]) * model["layers"] for model in data["models"] for map_ in model["maps"]
    )
    assert 0.5 * MAP_CELLS < cells <= MAP_CELLS
    assert {len(model["maps"]) for model in data["models"]} == {MAP_PROMPTS}
    assert len(script_json(data)) < 5e6
    assert data["models"][0]["maps"][1]["tokens"] >= 390
    assert shown_prompts(3) == [0, 1, 2]
    assert shown_prompts(100)[0] == 0
    assert shown_prompts(100)[-1] == 99
    assert LONGEST_MAP < 390


def test_building_a_page_imports_neither_torch_nor_pandas():
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'transformer_lens', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "sys.path.insert(0, 'tests')\n"
        "from planted_run import explored_of, planted_run\n"
        "from gainlens.page import page_html\n"
        "run = planted_run()\n"
        "print(len(page_html(run, {}, explored_of(run))) < 2e6)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


FLAGS = [
    [],
    ["--preset", "llama", "--prompts", "long", "--tokens", "512", "--device", "cuda"],
    ["--short", "a b/c", "--long", "d;e", "--control", "f", "--reference", "g", "--seed", "3"],
    ["--estimand", "all/median/path", "--confidence", "0.9", "--min-prompts", "8",
     "--allow-extrapolation", "--dtype", "bfloat16", "--backend", "native", "--revision", "main"],
    ["--sweep", "8", "--sweep-how", "zero", "--sweep-how", "mean", "--sweep-heads"],
    ["--theta", "1000", "--theta", "1e6", "--ablate", "blocks.-1.attn.hook_z[2]=mean",
     "--ablate", "blocks.0.hook_mlp_out=zero"],
    ["--no-interventions"],
    ["--controls"],
]  # fmt: skip


@pytest.mark.parametrize("flags", FLAGS)
def test_the_command_on_the_page_asks_for_the_same_run(flags):
    import shlex

    def spec_of(arguments: list[str]) -> ComparisonSpec:
        with cli.compare_command.make_context("compare", list(arguments)) as context:
            assert isinstance(context, click.Context)
            return spec_of(context.params)

    spec = spec_of(flags)
    words = shlex.split(command_of(spec))
    assert words[:2] == ["python", "scripts/compare.py"]
    assert spec_of(words[2:]) == spec


def test_a_spec_that_no_flag_can_say_has_no_command():
    for fields in ({"sweep": 0}, {"theta": ()}, {"sweep": 0, "theta": (), "sweep_heads": True}):
        assert command_of(ComparisonSpec(name="x", models=PRESETS["llama"], **fields)) is None
    spec = ComparisonSpec(name="x", models=PRESETS["llama"], rule=Rule(massive_ratio=5.0))
    assert command_of(spec) is None
    assert command_of(spec.model_copy(update={"rule": Rule()})) is not None
    renamed = [PRESETS["llama"][0].model_copy(update={"label": "mine"}), *PRESETS["llama"][1:]]
    assert command_of(ComparisonSpec(name="x", models=tuple(renamed))) is None


# ------------------------------------------------------------------------------------- frames


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
    write_run(folder, folder / "figures", run)
    (folder / "figures" / "mine.png").write_bytes(b"")
    assert (folder / "sweep.csv").exists()
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
    assert set(columns) <= set(DEFINITIONS)
    assert isinstance(run.captures[name], Capture)
