"""The page's text, without a browser: content, escaping, definitions, size."""

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

import numpy as np
import pytest
from planting.runs import (
    HOSTILE,
    HOSTILE_TOKEN,
    explored_of,
    planted_run,
    without_claim,
    without_interventions,
    write_files,
)

from gainlens.core.glossary import GLOSSARY
from gainlens.core.vocabulary import REDUCTIONS, SPLITS, TOKEN_CLASSES
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.records.comparison import Comparison
from gainlens.report.answer import answer, doubts, vetoes
from gainlens.report.explorer import LONGEST_MAP, MAP_CELLS, MAP_PROMPTS, page_data, shown_prompts
from gainlens.report.measurement import blocks_table, models_table
from gainlens.report.page import page_html, script_json
from gainlens.results.reading import read_run

SVG = (
    '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 5">'
    "<text style=\"fill: #222222; font-family: 'DejaVu Sans'\">&lt;b&gt; &amp;</text></svg>"
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
    return page_data(run, dict.fromkeys(run.captures, ("#000000", "#ffffff")), explored_of(run))


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="page-data">(.*?)</script>', page, re.S)[1])


def test_the_page_leads_with_the_answer(run, page):
    body = page[page.index("<body>") :]
    folded = ("why", "blocks", "figures", "tables", "method", "definitions")
    order = ["Answer <a", 'class="answer', "figure-headline", "table-gains", 'id="maps"']
    order += [f'<details id="{name}"' for name in folded]
    places = [body.index(word) for word in order]
    assert places == sorted(places)
    said = html.unescape(re.sub(r"<[^>]*>", "", body))
    assert answer(run.verdict) in said
    for line in (*doubts(run), *run.verdict.reasons, *map(str, run.verdict.dissent)):
        assert line in said
    assert run.reports[0].prompts.sha256 in said


def test_a_run_without_a_claim_has_its_figure_its_table_and_no_verdict(run):
    measured = without_claim(run)
    tables = [models_table(run.reports), blocks_table(run.reports[0])]
    page = page_html(measured, {"gain_curve": SVG}, explored_of(run), "it grows", tables)
    body = page[page.index("<body>") :]
    order = ["it grows.", "figure-gain_curve", "table-models", 'id="maps"', "table-blocks-"]
    places = [body.index(word) for word in order]
    assert places == sorted(places)
    for absent in (
        "The claim",
        'id="why"',
        "; they have no veto",
        "table-notebook",
        "table-components",
    ):
        assert absent not in body
    elements = Elements(page)
    ids = [found["id"] for _, found in elements.tags if "id" in found]
    assert {found["href"][1:] for found in elements.of("a")} <= set(ids)


def test_every_section_links_to_itself(elements):
    sections = [f["id"] for tag, f in elements.tags if tag in ("section", "details") and "id" in f]
    anchors = [found["href"] for found in elements.of("a") if found.get("class") == "anchor"]
    assert anchors == [f"#{name}" for name in sections]


def test_dissent_that_cannot_veto_is_folded_away(run, page):
    dissent = [str(cell) for cell in run.verdict.dissent]
    blind = [line for line in dissent if line not in vetoes(run.verdict)]
    assert blind, "the planted run has some"
    folded = re.search(
        r"<details><summary>(\d+) more at position 0 or after the final norm.*?</details>",
        page,
        re.S,
    )
    assert folded[1] == str(len(blind))
    for line in dissent:
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
    assert all(found["src"].startswith("data:") for found in elements.of("img"))
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
        if name in ("src", "srcset", "href", "action") and not value.startswith(("#", "data:"))
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
    assert len(elements.of("img")) == len(FIGURES)
    assert all(found["alt"] for found in elements.of("img"))
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
    table = page[page.index('id="table-gains"') : page.index('id="map"')]
    for report in run.reports:
        assert f"{report.blocks[-1].attention:+.3f}" in table
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
    assert run.verdict.ablated_outcome in table("ablated")


def test_a_run_without_interventions_has_no_empty_tables(run):
    page = page_html(without_interventions(run), {"headline": SVG}, explored_of(run))
    for name in ("sweep", "theta-dose", "ablated", "components", "token-controls"):
        assert f'id="table-{name}"' not in page


def test_a_figure_is_an_image_for_light_and_for_dark_paper(page):
    sources = re.findall(r'src(?:set)?="data:image/svg\+xml;base64,([^"]+)"', page)
    drawn = [base64.b64decode(source).decode() for source in sources]
    assert sum("#222222" in svg for svg in drawn) == len(FIGURES)
    assert sum("#e6e8ea" in svg for svg in drawn) == len(FIGURES)
    assert all("Verdana" in svg for svg in drawn)


def test_a_figure_that_is_no_svg_is_refused(run):
    with pytest.raises(ValueError, match="'x' is no SVG"):
        page_html(run, {"x": "<p>"}, explored_of(run))


def test_a_phone_gets_the_narrow_drawing(run):
    page = page_html(run, {"headline": SVG, "headline_narrow": SVG}, explored_of(run))
    assert page.count("max-width: 640px) and (prefers-color-scheme: dark)") == 1
    assert 'id="figure-headline_narrow"' not in page


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
    with np.errstate(divide="ignore", invalid="ignore"):
        tokens = decompose(replace(capture, gram=gram))
        data = data_behind(replace(run, decompositions={**run.decompositions, "alpha": tokens}))
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
        "from planting.runs import explored_of, planted_run\n"
        "from gainlens.report.page import page_html\n"
        "run = planted_run()\n"
        "print(len(page_html(run, {}, explored_of(run))) < 2e6)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
