"""figures/ holds what scripts/figures.py draws, and every picture that a page shows."""

import re
from dataclasses import replace
from pathlib import Path

import figures as script

ROOT = Path(__file__).parents[2]


def test_the_folder_holds_exactly_what_the_script_draws():
    assert {path.name for path in script.FOLDER.iterdir()} == script.file_names()


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
