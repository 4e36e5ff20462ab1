"""The site: it builds without a warning, loads nothing from other hosts, and fits every screen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.docs.pages import ROOT

WIDTHS = (390, 768, 1920)  # CSS pixels: a phone, a tablet, a large screen
LOOKED_AT = ("index.html", "how-to/postgresql.html", "reference/python/Store.html", "reference/errors.html")


def build(folder: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run what `make docs` runs."""
    command = [sys.executable, str(root / "scripts" / "build_site.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this version's site."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return next(path for path in folder.iterdir() if path.is_dir())


def test_every_page_is_in_the_site_and_loads_nothing_from_other_hosts(site: Path) -> None:
    """Each page under docs/ has its HTML file, and no file loads a script, a style or a font from elsewhere."""
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").exists(), page
    foreign = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//')
    for page in site.rglob("*.html"):
        assert not foreign.search(page.read_text("utf-8")), page


def test_the_site_is_searched_from_files_and_fits_small_and_large_screens(site: Path, browser: Browser) -> None:
    """Opened without a server, pages do not scroll sideways at any width, and the search finds a page."""
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 900})
        for name in LOOKED_AT:
            page.goto((site / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        page.close()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("s")
    page.locator("input.md-search__input").press_sequentially("restored backup")
    page.locator(".md-search-result__item").first.wait_for()
    assert errors == []


def test_a_broken_link_ends_the_build_and_is_named(tmp_path: Path) -> None:
    """A link to a page that is not there is an error that names page and link."""
    root = tmp_path / "copy"
    for name in ("docs/index.md", "docs/figures", "docs/assets", "scripts", "src", "mkdocs.yml", "pyproject.toml"):
        source, copy = ROOT / name, root / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        (root / name).write_text("# A page\n")
    (root / "docs" / "index.md").write_text("# A page\n\n[nowhere](nowhere.md)\n")
    done = build(tmp_path / "site", root)
    assert done.returncode == 1
    assert "index.md" in done.stderr and "nowhere.md" in done.stderr
