"""The page in a real browser: it renders, asks nobody for anything, and its switches work.

Needs the playwright package and Chromium on the path; without them the tests are skipped, unless
GAINLENS_REQUIRE_BROWSER=1 says that they must run.
"""

import base64
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint
from planting.runs import HOSTILE, HOSTILE_TOKEN, explored_of, planted_run

from gainlens import figures
from gainlens.cli.compare import run as run_command
from gainlens.cli.measure import measure_command
from gainlens.metrics.metric import metric_values
from gainlens.metrics.registry import METRICS
from gainlens.report.page import page_html

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def missing(what: str) -> None:
    """Skip, or fail where a browser is required."""
    if os.environ.get("GAINLENS_REQUIRE_BROWSER") == "1":
        pytest.fail(f"GAINLENS_REQUIRE_BROWSER=1, but there is no {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright (pip install playwright)")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing(f"browser: none of {', '.join(BROWSERS)} is on the path")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    run = replace(planted_run(), command="gainlens compare --prompts '<b>mine</b>.txt'")
    folder = tmp_path_factory.mktemp("page")
    drawn = {"headline": figures.headline(run.reports, run.verdict, rule=run.spec.rule)}
    drawn["gain_curve"] = figures.gain_curve(run.reports)
    drawn["splits"] = figures.splits(run.reports)
    svgs = {
        name: figures.save(figure, folder, name, ("svg",))[0].read_text("utf-8")
        for name, figure in drawn.items()
    }
    path = folder / "report.html"
    path.write_text(page_html(run, svgs, explored_of(run)), encoding="utf-8")
    return path


@dataclass
class Opened:
    """A page with what went wrong in it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def box(self, selector: str) -> dict[str, float]:
        found = self.page.locator(selector).first
        found.scroll_into_view_if_needed()
        return found.bounding_box()

    def unfold(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")

    def choose(self, name: str, value: str) -> None:
        self.page.select_option(f"select[name={name}]", value)

    def html(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_html()

    def point(self, selector: str, x: float, y: float) -> None:
        """Move the mouse to a share of an element's width and height."""
        box = self.box(selector)
        self.page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)


def wait_for(opened: Opened, selector: str, text: str) -> None:
    """Wait until an element holds a text, without eval, which the page's policy forbids."""
    from playwright.sync_api import expect

    expect(opened.page.locator(selector)).to_contain_text(text)


@pytest.fixture
def visit(browser, file) -> Iterator[Any]:
    """Opens the page; in the end nothing may have been complained of or asked for."""
    visits: list[Opened] = []

    def opened(address: str | None = None, **options: Any) -> Opened:
        page = browser.new_page(**options)
        visited = Opened(page)
        visits.append(visited)

        def route(request: Any) -> None:
            visited.requests.append(request.request.url)
            request.abort()

        page.route(lambda url: not url.startswith(("file:", "data:")), route)
        page.on("request", lambda r: r.url.startswith("http") and visited.requests.append(r.url))
        page.on("console", lambda message: visited.complaints.append(message.text))
        page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (visited.complaints.append("alert"), dialog.dismiss()))
        page.goto(address or file.as_uri())
        page.wait_for_selector("#maps .prompt-text span")
        return visited

    yield opened
    for visited in visits:
        visited.page.close()
        assert visited.complaints == []
        assert visited.requests == []


def test_it_renders_without_a_complaint_or_a_request(visit):
    opened = visit()
    assert opened.page.locator("#maps > .map svg").count() == 1
    opened.unfold()
    assert opened.page.locator("#curves svg").count() == 3
    assert opened.box("#figures img")["height"] > 100
    assert "CONFIRMED" in opened.page.title()


def test_complaints_and_requests_are_seen(browser, file, tmp_path):
    """The checks above can fail: the same page with a script and an image from elsewhere."""
    text = file.read_text("utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", text)
    extra = '<img src="http://127.0.0.1:9/x.png"><script>console.log("seen"); alert(1)</script>'
    (tmp_path / "bad.html").write_text(text.replace("</main>", f"{extra}</main>"), "utf-8")
    page = browser.new_page()
    said: list[str] = []
    page.route(lambda url: url.startswith("http"), lambda r: (said.append("asked"), r.abort()))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: (said.append("alert"), dialog.dismiss()))
    page.goto((tmp_path / "bad.html").as_uri())
    page.close()
    assert {"asked", "seen", "alert"} <= set(said)


def test_the_policy_stops_an_injected_script(browser, file, tmp_path):
    bad = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'
    bad += '<img src="http://127.0.0.1:9/x.png">'
    text = file.read_text("utf-8").replace("</main>", f"{bad}</main>")
    (tmp_path / "injected.html").write_text(text, "utf-8")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda r: r.url.startswith("http") and asked.append(r.url))
    page.on("requestfailed", lambda r: asked.clear())  # refused by the policy: never sent
    page.goto((tmp_path / "injected.html").as_uri())
    page.wait_for_selector("#maps .prompt-text span")
    assert page.evaluate("window.hurt") is None
    page.close()
    assert asked == []


def test_hover_shows_the_tokens_text(visit):
    opened = visit(viewport={"width": 1200, "height": 900})
    drawing = "#maps .map svg"
    opened.point(drawing, 0.5, 0.5)
    wait_for(opened, "#readout", "nats")
    said = opened.page.locator("#readout").inner_text()
    position = int(re.search(r"position (\d+)", said)[1])
    assert 5 < position < 20
    assert f"“{HOSTILE[position]}”" in said
    assert "alpha: " in said
    tip = opened.page.locator(drawing).first.text_content()
    assert f"“{HOSTILE[position]}”, position {position}" in tip
    chosen = opened.page.locator(".prompt-text .chosen")
    assert chosen.all_inner_texts() == [HOSTILE[position]]


def test_the_map_shows_the_records_number(visit):
    run = planted_run()
    opened = visit(viewport={"width": 1200, "height": 900})
    opened.page.locator("#maps [role=application]").first.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowDown")
    said = opened.page.locator("#readout").inner_text().replace("−", "-")
    gain = run.decompositions["alpha"].log_gain[1, 1]
    assert said.startswith("alpha: “s”, position 1, block 1; ")
    assert float(re.search(r"log gain ([-+.\d]+) nats", said)[1]) == pytest.approx(gain, abs=2e-4)
    assert opened.page.locator("#maps .cursor").first.get_attribute("visibility") == "visible"


SWITCHES = (
    ("class", "bos", ("#maps",)), ("reduction", "frobenius", ("#curves",)),
    ("curve_split", "path", ("#curves",)), ("first", "1", ("#curves",)),
    ("curve_class", "bos", ("#curves",)), ("model", "m0", ("#maps",)),
    ("prompt", "line-23", ("#maps",)),
    ("part", "mlp", ("#maps", "#map-legend")), ("part", "norm", ("#maps", "#map-legend")),
)  # fmt: skip


def test_every_switch_changes_what_is_drawn(visit):
    opened = visit()
    opened.unfold()
    for name, value, changed in SWITCHES:
        before = {place: opened.html(place) for place in changed}
        opened.choose(name, value)
        for place in changed:
            assert opened.html(place) != before[place], name


def test_the_split_changes_the_map_of_a_part_and_not_of_the_gain(visit):
    opened = visit()
    # Plot gives clip paths and tips new ids at every drawing; the image is what is drawn
    image = (
        "document.querySelector('#maps image').getAttribute('xlink:href') || "
        "document.querySelector('#maps image').href.baseVal"
    )
    gain = opened.page.evaluate(image)
    opened.choose("split", "path")
    assert opened.page.evaluate(image) == gain
    opened.choose("part", "attention")
    path = opened.page.evaluate(image)
    opened.choose("split", "logmean")
    assert opened.page.evaluate(image) != path


def test_the_map_shows_any_metric_with_its_definition(visit):
    run = planted_run()
    opened = visit(viewport={"width": 1200, "height": 900})
    for name in ("norm", "angle"):
        opened.choose("part", name)
        assert METRICS[name].definition in opened.page.locator("#map-legend").inner_text()
        opened.page.locator("#maps [role=application]").first.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
            opened.page.keyboard.press(key)
        said = opened.page.locator("#readout").inner_text().replace("−", "-")
        value = metric_values(METRICS[name], run.decompositions["alpha"])[1, 1]
        shown = float(re.search(rf"([-.\d]+) \({METRICS[name].unit}\)", said)[1])
        assert shown == pytest.approx(value, rel=2e-3)


def test_one_model_or_all_side_by_side(visit):
    opened = visit(viewport={"width": 1280, "height": 900})
    opened.unfold()
    tops = [
        box["y"]
        for box in (opened.page.locator("#curves svg").nth(i).bounding_box() for i in range(3))
    ]
    assert max(tops) - min(tops) < 2
    opened.choose("model", "all")
    assert opened.page.locator("#maps h4").count() == 3
    opened.choose("model", "m0")
    assert opened.page.locator("#maps h4").all_inner_texts() == ["m0 (reference)"]


def test_a_hostile_prompt_shows_as_text(visit):
    opened = visit()
    assert opened.page.locator(".prompt-text").first.inner_text() == HOSTILE + HOSTILE_TOKEN
    assert opened.page.locator("#maps script, #maps img").count() == 0
    opened.unfold()
    assert opened.page.locator("text=beta <img src=x onerror=alert(2)>").count() > 3


CUT = """() => [...document.querySelectorAll('body *')]
  .filter((e) => e.clientWidth && e.checkVisibility())
  .filter((e) => !e.closest('.skip, .map, .scrolls picture, svg, thead'))
  .filter((e) => e.scrollWidth > e.clientWidth + 1
    || e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((e) => e.outerHTML.slice(0, 120))"""
"""Elements wider than their box or than the page; a map of a long prompt, and on a
phone a wide figure, may scroll in its box."""
BROKEN = """() => [...document.querySelectorAll('td.number')]
  .filter((cell) => cell.checkVisibility() && !/\\s/.test(cell.textContent))
  .filter((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return new Set([...range.getClientRects()].map((box) => box.top)).size > 1;
  }).map((cell) => cell.textContent)"""
"""Numbers over two lines."""


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1400, "light")])
def test_nothing_is_cut_at_any_width(visit, width, scheme):
    opened = visit(
        viewport={"width": width, "height": 900}, is_mobile=width < 500, color_scheme=scheme
    )
    assert opened.page.evaluate(CUT) == []
    opened.unfold()
    assert opened.page.evaluate(CUT) == []
    assert opened.page.evaluate(BROKEN) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A measurement of one model at two prompt lengths, whose prompts differ."""
    folder = tmp_path_factory.mktemp("measured")
    planted_checkpoint(folder / "a", 1.25)
    (folder / "prompts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    flags = ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / "run")]
    flags += ["--tokens", "4,8", "--backend", "native", "--resamples", "200", "--quiet"]
    assert run_command(measure_command, [str(folder / "a"), *flags]) == 0
    return folder / "run" / "report.html"


@pytest.mark.parametrize("width", [390, 1400])
def test_a_measurements_page_leads_with_answer_figure_table_and_map(visit, measured, width):
    opened = visit(
        measured.as_uri(), viewport={"width": width, "height": 900}, is_mobile=width < 500
    )
    shown = (".answer", "#figure-series img", "#table-models", "#maps .map")
    tops = [opened.page.locator(selector).first.bounding_box()["y"] for selector in shown]
    assert tops == sorted(tops)
    assert tops[-1] <= 2 * 900
    assert opened.page.evaluate("document.documentElement.scrollHeight") <= 6 * 900
    assert opened.page.evaluate(CUT) == []
    opened.unfold()
    assert opened.page.evaluate(CUT) == []


def test_a_measurements_map_shows_any_metric_of_every_length(visit, measured):
    opened = visit(measured.as_uri())
    tokens = pd.read_parquet(measured.parent / "tokens.parquet")
    for name in ("a@8", "a@4"):
        opened.choose("model", name)
        opened.choose("part", "attention_write")
        assert opened.page.locator("#maps h4").all_inner_texts() == [name]
        opened.page.locator("#maps [role=application]").first.focus()
        for key in ("ArrowRight", "ArrowDown"):
            opened.page.keyboard.press(key)
        said = opened.page.locator("#readout").inner_text()
        shown = float(re.search(r"([.\d]+) \(ratio\)", said)[1])
        rows = tokens[
            (tokens["model"] == name) & (tokens["position"] == 0) & (tokens["layer"] == 1)
        ]
        cell = rows.iloc[0]
        assert shown == pytest.approx((cell["aa"] / cell["xx"]) ** 0.5, rel=2e-3)


def test_a_wide_figure_scrolls_on_a_phone_in_readable_text(visit):
    opened = visit(viewport={"width": 390, "height": 900}, is_mobile=True)
    opened.unfold()
    drawn = opened.page.locator("#figure-splits img").bounding_box()["width"]
    assert 7 * drawn / (7.1 * 72) >= 8  # its smallest text has 7 pt in 7.1 inches
    scrolls = "e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX"
    assert opened.page.locator("#figure-splits picture").evaluate(scrolls) == "auto"
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_cut_text_is_seen(visit):
    opened = visit(viewport={"width": 390, "height": 900}, is_mobile=True)
    opened.page.evaluate("document.querySelector('.answer').style.whiteSpace = 'nowrap'")
    assert opened.page.evaluate(CUT) != []


def test_two_screens_hold_the_answer_the_figure_the_table_and_the_map(visit):
    opened = visit(viewport={"width": 1400, "height": 900})
    ends = [
        opened.page.locator(selector).first.bounding_box()
        for selector in (".answer", "#figure-headline img", "#table-gains", "#maps .map")
    ]
    tops = [box["y"] for box in ends]
    assert tops == sorted(tops)
    assert max(box["y"] + box["height"] for box in ends) <= 2 * 900
    assert opened.page.evaluate("document.documentElement.scrollHeight") <= 6 * 900


def test_a_link_opens_the_fold_that_holds_its_target(visit, file):
    opened = visit(file.as_uri() + "#table-unembedding")
    assert opened.page.locator("#table-unembedding").is_visible()
    assert not opened.page.locator("#figures figure").first.is_visible()
    opened.page.locator("nav a", has_text="Figures").click()
    opened.page.wait_for_selector("#figures figure")


def test_the_command_can_be_copied(visit):
    opened = visit()
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.unfold()
    opened.page.locator("#copy").click()
    wait_for(opened, "#copy", "Copied")
    copied = opened.page.evaluate("navigator.clipboard.readText()")
    assert copied == opened.page.locator("#command").inner_text()


Colour = tuple[float, float, float]
"""Shares of red, green and blue, 0 to 1."""


def colour_of(text: str) -> Colour:
    red, green, blue = (int(value) / 255 for value in re.findall(r"\d+", text)[:3])
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, other: Colour) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


CONTRASTS = """() => [...document.querySelectorAll(
    'p, h1, h2, h3, h4, a, dt, dd, dd span, td, th, caption, caption span, label, select, summary,'
    + ' output, code, strong, figcaption, .prompt-text span')]
  .filter((e) => e.textContent.trim() && e.checkVisibility() && !e.matches('.skip'))
  .map((e) => {
    let at = e;
    const back = (x) => getComputedStyle(x).backgroundColor;
    while (at.parentElement && back(at) === 'rgba(0, 0, 0, 0)') at = at.parentElement;
    return [getComputedStyle(e).color, back(at), e.tagName + ' ' + e.textContent.slice(0, 30)];
  })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(visit, scheme):
    opened = visit(color_scheme=scheme)
    back = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(colour_of(back)) < 0.05) == (scheme == "dark")
    opened.unfold()
    found = opened.page.evaluate(CONTRASTS)
    assert len(found) > 200
    for ink, paper, what in found:
        assert contrast(colour_of(ink), colour_of(paper)) >= 4.5, (what, ink, paper)
    drawn = opened.page.evaluate("document.querySelector('#figures img').currentSrc")
    svg = base64.b64decode(drawn.partition(",")[2]).decode()
    assert ("#e6e8ea" in svg) == (scheme == "dark")


def test_print_leaves_the_controls_out_and_is_light(visit):
    opened = visit(color_scheme="dark")
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("#controls").is_visible()
    assert not opened.page.locator("nav").is_visible()
    back = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour_of(back) == (1, 1, 1)
    drawn = opened.page.evaluate("document.querySelector('#figures img').currentSrc")
    assert "#222222" in base64.b64decode(drawn.partition(",")[2]).decode()


def test_everything_can_be_reached_by_keyboard(visit):
    opened = visit()
    opened.unfold()
    reached = set()
    for _ in range(90):
        opened.page.keyboard.press("Tab")
        reached.add(
            opened.page.evaluate(
                "document.activeElement.name || document.activeElement.getAttribute('role')"
                " || document.activeElement.className"
            )
        )
    assert {"skip", "application", "class", "curve_class", "reduction", "split", "model", "prompt",
            "part"} <= reached  # fmt: skip


def test_definitions_are_a_click_away(visit):
    opened = visit()
    opened.page.locator("#table-gains th a").nth(2).click()
    assert opened.page.url.endswith("#define-gain")
    assert opened.page.locator("#define-gain").evaluate("e => e.matches(':target')")
