"""Add the shipped figures to the site, and let no page load anything from elsewhere."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

FIGURES = Path(__file__).parents[2] / "figures"
ELSEWHERE = re.compile(
    r'<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^>]*>', re.IGNORECASE
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the shipped figures to the site's files."""
    for picture in sorted(FIGURES.glob("*.svg")):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point the figures' links, which GitHub resolves in the repository, at the site's copies."""
    return re.sub(r"\]\((?:\.\./)+figures/", "](figures/", markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Raise PluginError if a page loads anything from elsewhere."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        if match := ELSEWHERE.search(page.read_text("utf-8")):
            raise PluginError(f"{page.name} loads from elsewhere: {match[0]}")
