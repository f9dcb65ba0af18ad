"""figures/ holds what scripts/figures.py draws, and every picture that a page shows."""

import re
from pathlib import Path

import figures as script

ROOT = Path(__file__).parents[2]


def test_the_folder_holds_exactly_what_the_script_draws():
    assert {path.name for path in script.FOLDER.iterdir()} == script.file_names()


def test_every_picture_that_a_page_shows_is_drawn():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {
        name
        for page in pages
        for name in re.findall(r"figures/([\w.]+)\)", page.read_text("utf-8"))
    }
    assert len(shown) > 5
    assert shown <= script.file_names()
