"""The figures of the documents are what `python scripts/draw_figures.py` draws, and each is shown somewhere."""

from __future__ import annotations

import importlib.util
import sys
from xml.etree import ElementTree

from tests.docs.pages import ROOT, pages

SCRIPT = ROOT / "scripts" / "draw_figures.py"
specification = importlib.util.spec_from_file_location("draw_figures", SCRIPT)
assert specification is not None and specification.loader is not None
draw_figures = importlib.util.module_from_spec(specification)
sys.modules["draw_figures"] = draw_figures
specification.loader.exec_module(draw_figures)


def test_figures_are_drawn_by_the_script_are_valid_xml_and_are_shown() -> None:
    """Each file is what the script draws; a page shows it, with a text for readers who do not see it."""
    shown = "\n".join(page.read_text("utf-8") for page in pages())
    for figure in draw_figures.figures():
        drawn = (ROOT / "docs" / "figures" / f"{figure.name}.svg").read_text("utf-8")
        assert drawn == figure.svg(), f"run: python scripts/draw_figures.py ({figure.name})"
        ElementTree.fromstring(drawn)
        assert f"/{figure.name}.svg)" in shown, figure.name
