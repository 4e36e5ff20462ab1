"""Hooks of the documentation site: its navigation, and the pages that are not under docs/.

Knows: MkDocs' hooks, the folders of the repository. Does not know: the look of the site (mkdocs.yml).
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOT_PAGES = {
    "README.md": "Readme",
    "ARCHITECTURE.md": "Architecture",
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changes",
}
SECTIONS = ("understand", "tutorial", "build", "fields", "how-to", "compare", "explanation", "reference")
LINK = re.compile(r"(?P<start>\[[^\]]*\]\()(?P<target>[^)\s#]+)(?P<rest>(?:#[^)\s]*)?(?: \"[^\"]*\")?\))")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".yml": "yaml", ".ts": "typescript", ".sql": "sql"}
SOURCES = "source"  # the folder of the site for files of the repository to which pages link
API = "reference/python"
WORKER = (
    "https://unpkg.com/iframe-worker/shim"  # the theme would load it from there; docs/assets/worker.js is in its place
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation: the pages of a section in the order in which its index page links to them."""
    nav: list[Any] = [{"Home": "index.md"}]
    nav += [{_title(DOCS / section / "index.md"): list(_section(section))} for section in SECTIONS if _exists(section)]
    nav.append({"Project": [{title: f"project/{name.lower()}"} for name, title in ROOT_PAGES.items()]})
    config.nav = nav
    return config


def _exists(section: str) -> bool:
    return (DOCS / section / "index.md").exists()


def _section(section: str) -> Iterator[Any]:
    """The navigation of a folder: its index, the pages that it links to, in order, then the others."""
    folder = DOCS / section
    index = folder / "index.md"
    yield f"{section}/index.md"
    linked = [os.path.normpath(folder / match["target"]) for match in LINK.finditer(index.read_text("utf-8"))]
    pages = [Path(path) for path in dict.fromkeys(linked) if path.endswith(".md") and Path(path).is_file()]
    own = [page for page in pages if page.is_relative_to(folder) and page != index]
    own += [page for page in sorted(folder.glob("*.md")) if page not in own and page != index]
    for page in own:
        name = page.relative_to(DOCS)
        if page.name == "index.md":
            yield {_title(page): list(_section(name.parent.as_posix()))}
        elif page.parent == folder:
            yield name.as_posix()
    if section == "reference":
        yield {"Every class and function": [f"{API}/{name}.md" for name in _public_names()]}


def _title(page: Path) -> str:
    """The first heading of a page."""
    return page.read_text("utf-8").partition("\n")[0].removeprefix("# ").strip()


def _public_names() -> dict[str, str]:
    """Public classes and functions of the package, each with the module and name that define it."""
    import eventfold

    found: dict[str, str] = {}
    for name in sorted(eventfold.__all__, key=str.lower):
        value = getattr(eventfold, name)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("eventfold"):
            found[name] = f"{value.__module__}.{value.__qualname__}"
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made: those of the root, linked source files, and one for each public name."""
    made = {f"project/{name.lower()}": (ROOT / name).read_text("utf-8") for name in ROOT_PAGES}
    for name, path in _public_names().items():
        made[f"{API}/{name}.md"] = f"# {name}\n\n::: {path}\n    options:\n      show_root_heading: false\n"
    for source in sorted(_linked_sources()):
        made[_source_page(source)] = _as_page(source)
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def _linked_sources() -> set[Path]:
    """Files and folders outside docs/ to which a page links."""
    pages = [*DOCS.rglob("*.md"), *(ROOT / name for name in ROOT_PAGES)]
    targets = {
        Path(os.path.normpath(page.parent / match["target"]))
        for page in pages
        for match in LINK.finditer(page.read_text("utf-8"))
        if ":" not in match["target"]
    }
    outside = {path for path in targets if path.exists() and not path.is_relative_to(DOCS)}
    return {path for path in outside if path.is_relative_to(ROOT) and path.name not in ROOT_PAGES}


def _source_page(source: Path) -> str:
    return f"{SOURCES}/{source.relative_to(ROOT).as_posix()}.md"


def _as_page(source: Path) -> str:
    """A file, or each Python file of a folder, as a page."""
    files = [source] if source.is_file() else sorted(source.rglob("*.py"))
    parts = [f"# {source.relative_to(ROOT).as_posix()}"]
    for file in files:
        text = file.read_text("utf-8")
        if file.suffix == ".md":
            parts.append(text)
            continue
        heading = "" if file == source else f"## {file.relative_to(source).as_posix()}\n\n"
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
        parts.append(f"{heading}{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n{fence}")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to the pages made for them."""
    uri = PurePosixPath(page.file.src_uri)
    home = _home(uri)
    if home is None:
        return markdown

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        path = Path(os.path.normpath(home / target))
        if ":" in target or not path.exists():
            return match[0]
        if path.is_relative_to(DOCS) and home.is_relative_to(DOCS):
            return match[0]
        if path.name in ROOT_PAGES and path.parent == ROOT:
            there = f"project/{path.name.lower()}"
        elif path.is_relative_to(DOCS):
            there = path.relative_to(DOCS).as_posix()
        else:
            there = _source_page(path)
        return f"{match['start']}{os.path.relpath(there, uri.parent)}{match['rest']}"

    return LINK.sub(replaced, markdown)


def _home(uri: PurePosixPath) -> Path | None:
    """The folder from which the links of a page are meant; None for a page without links of its own."""
    if uri.parts[0] == "project":
        return ROOT
    if uri.parts[0] == SOURCES or uri.as_posix().startswith(API):
        return None
    return (DOCS / uri).parent


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Load nothing from other hosts, so that the search works offline."""
    return output.replace(WORKER, os.path.relpath("assets/worker.js", PurePosixPath(page.file.dest_uri).parent))


def on_post_template(output_content: str, *, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for the page that is shown for an unknown address."""
    return output_content.replace(WORKER, "/assets/worker.js")
