"""figures/ holds what scripts/figures.py draws, and every picture that a page shows."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Text
from planting.drawings import boxes_of

import figures as script
from gainlens.figures import one_column
from gainlens.figures.style import root_figure

ROOT = Path(__file__).parents[2]


def test_the_folder_holds_exactly_what_the_script_draws():
    assert {path.name for path in script.FOLDER.iterdir()} == script.file_names()


@pytest.mark.parametrize("column", [nullcontext, one_column])
@pytest.mark.parametrize("name", script.all_drawings())
def test_every_figure_of_the_repository_clips_no_text_and_can_be_read_in_one_column(name, column):
    with column():
        figure = root_figure(script.all_drawings()[name]())
    figure.draw_without_rendering()
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6
    assert column is nullcontext or figure.get_figwidth() <= 3.3
    for artist, box in boxes_of(figure):
        low, high = figure.bbox.padded(1.0).get_points()  # rounding to pixels
        assert (box.get_points() >= low).all(), (artist, box, figure.bbox)
        assert (box.get_points() <= high).all(), (artist, box, figure.bbox)


def test_the_committed_run_names_no_folder_of_the_machine_that_made_it():
    text = script.RUN.read_text("utf-8")
    assert re.findall(r'"(?:/|[A-Z]:\\\\)[^"]*"', text) == []
    run, _ = script.kept()
    config = {**run.reports[0].checkpoint.config, "_name_or_path": "/somewhere"}
    report = replace(run.reports[0], checkpoint=replace(run.reports[0].checkpoint, config=config))
    assert "/somewhere" not in str(script._portable(report))


def test_every_picture_that_a_page_shows_is_drawn():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {
        name
        for page in pages
        for name in re.findall(r"figures/([\w.]+)\)", page.read_text("utf-8"))
    }
    assert len(shown) > 5
    assert shown <= script.file_names()
