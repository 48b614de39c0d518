"""Adds files from outside of `docs` to the site, without copies or symbolic links.

These files are notebooks, experiments and pictures of measurements. Pages and notebooks link to
each other by their paths in the repository, so links work there and in Jupyter as well. The hooks
translate the links for the site.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

_ROOT = Path(__file__).parents[1]
_NOTEBOOKS = "notebooks/*.ipynb"
_OUTSIDE = (
    _NOTEBOOKS,
    "benchmarks/results/*.png",
    "experiments/README.md",
    "experiments/GPU.md",
    "experiments/results/*.md",
    "experiments/results/*.png",
)
_log = logging.getLogger("mkdocs.hooks")


def _found(pattern: str) -> list[str]:
    return sorted(path.relative_to(_ROOT).as_posix() for path in _ROOT.glob(pattern))


def on_config(config: Any) -> None:
    """Replaces the pattern of notebooks in the navigation by the notebooks."""
    nav = [
        {k: _found(v) if v == _NOTEBOOKS else v for k, v in entry.items()} for entry in config.nav
    ]
    config.nav = [entry for entry in nav if all(entry.values())]


@event_priority(100)  # Runs before the plugin that reads notebooks.
def on_files(files: Any, config: Any) -> None:
    """Adds the files outside of `docs`."""
    for pattern in _OUTSIDE:
        for name in _found(pattern):
            files.append(File(name, str(_ROOT), config.site_dir, config.use_directory_urls))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Translates links between pages and files outside of `docs`."""
    if page.file.src_uri.startswith("experiments/"):
        return re.sub(r"(\]\(\.\./)docs/", r"\1", markdown)
    folders = "|".join(posixpath.dirname(pattern) for pattern in _OUTSIDE)
    return re.sub(rf"(\]\((?:\.\./)*)\.\./(?=(?:{folders})/)", r"\1", markdown)


def on_page_content(html: str, page: Any, files: Any, **_: Any) -> str:
    """Translates links in notebooks, because their plugin does not."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[2]))
        file = files.get_file_from_path(path.removeprefix("docs/"))
        if file is None:
            _log.warning(
                "%s links to %s, which is not a page of the site", page.file.src_uri, match[2]
            )
            return match[0]
        return match[1] + file.url_relative_to(page.file)

    return re.sub(r'(<(?:a|img)\b[^>]*?\b(?:href|src)=")(?![a-z]+:|[#/])([^"#]+)', link, html)
