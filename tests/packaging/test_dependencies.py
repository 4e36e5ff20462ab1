"""The licences of what is installed with eventfold: each is declared, and the page lists it."""

from __future__ import annotations

from tests.packaging.dependencies import PAGE, licence, page, users


def test_every_dependency_declares_a_licence() -> None:
    """Of eventfold, of each extra, and of what these need."""
    assert [name for name in users() if not licence(name)] == []


def test_the_page_lists_what_is_installed() -> None:
    """`python -m tests.packaging.dependencies` brings it up to date."""
    assert PAGE.read_text("utf-8") == page()
