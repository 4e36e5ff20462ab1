"""`eventfold schema`: export, check, diff, lint, scan and catalogue.

Knows: modules to import, files to read and write. Does not know: which change is breaking.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.command import Command, Group
from eventfold.cli.options import Json, Url, open_store, split_store_argument
from eventfold.cli.output import Column, Output, progress_bar, write_file_atomically
from eventfold.cli.state import ImportPath
from eventfold.core.counted import count_of
from eventfold.errors import InvalidInput
from eventfold.schema import Finding, LintWarning, build_lock, compare, event_classes, lint, scan
from eventfold.schema.catalogue import catalogue, to_html
from eventfold.schema.entries import entries
from eventfold.schema.lint import RULES

DEFAULT_LOCK_FILE = "eventfold.lock.json"

schema = typer.Typer(
    cls=Group,
    help="Schemas of event types: lock them, check a change, scan a log.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Modules = Annotated[list[str], typer.Argument(metavar="MODULE…", help="Modules that declare event classes.")]
Lock = Annotated[Path, typer.Option("--lock", metavar="FILE", help="The lock file, in your repository.")]


def import_event_classes(modules: list[str], path: str) -> list[type]:
    """Import modules and return their event classes. Raises InvalidInput if one cannot be imported, or has none."""
    if path not in sys.path:
        sys.path.insert(0, path)
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InvalidInput(
                f"The module {name} cannot be imported: {error}.", "Check its name, or give --import-path."
            ) from error
    found = event_classes(modules)
    if not found:
        raise InvalidInput(
            f"No event classes are declared in {', '.join(modules)}.", "Name the modules that declare them."
        )
    return found


def read_lock_file(path: Path) -> dict[str, Any]:
    """Read a lock file. Raises InvalidInput if there is none, or the file is not one."""
    try:
        lock = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise InvalidInput(
            f"There is no lock file at {path}.", f"Create it: eventfold schema export MODULE --lock {path}"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidInput(
            f"{path} cannot be read as a lock file: {error}.", "Write it again: eventfold schema export."
        ) from error
    if not isinstance(lock, dict) or "types" not in lock:
        raise InvalidInput(
            f"{path} is not a lock file of eventfold.", "Name the file that eventfold schema export wrote."
        )
    return lock  # pyright: ignore[reportUnknownVariableType]


@schema.command("export", cls=Command)
def export(
    modules: Modules, lock: Lock = Path(DEFAULT_LOCK_FILE), import_path: ImportPath = ".", as_json: Json = None
) -> None:
    """Write the lock file: JSON Schema of every type and version.

    Commit it. It changes if and only if a schema changes.
    """
    output = Output(as_json)
    found = build_lock(import_event_classes(modules, import_path))
    text = msgspec.json.format(msgspec.json.encode(found, order="deterministic"), indent=2) + b"\n"
    write_file_atomically(lock, text, "The schemas")
    if output.is_json:
        output.write_value(found)
    else:
        output.print(f"Wrote {count_of(len(found['types']), 'type')} to {lock}.")


@schema.command("diff", cls=Command)
def diff(
    modules: Modules, lock: Lock = Path(DEFAULT_LOCK_FILE), import_path: ImportPath = ".", as_json: Json = None
) -> None:
    """Show the changes since the lock file was written. Always exits 0."""
    print_findings(
        Output(as_json), compare(read_lock_file(lock), build_lock(import_event_classes(modules, import_path)))
    )


@schema.command("check", cls=Command)
def check(
    modules: Modules, lock: Lock = Path(DEFAULT_LOCK_FILE), import_path: ImportPath = ".", as_json: Json = None
) -> None:
    """Fail if old events could no longer be read or found, for use in CI.

    Exits 1 on a breaking change, with the code to write, and if the lock file is out of date; 0 otherwise.
    """
    output = Output(as_json)
    found = compare(read_lock_file(lock), build_lock(import_event_classes(modules, import_path)))
    print_findings(output, found)
    if not found:
        return
    breaking = sum(each.breaking for each in found)
    if breaking:
        reason = (
            f"{count_of(breaking, 'change')} {'is' if breaking == 1 else 'are'} breaking. Write what is given for each."
        )
    else:
        place = "" if lock == Path(DEFAULT_LOCK_FILE) else f" --lock {shlex.quote(str(lock))}"
        update = f"eventfold schema export {' '.join(modules)}{place}"
        reason = f"No change is breaking, but {lock} is out of date. Update it: {update}"
    if output.is_json:  # the lines on standard output are the changes alone
        typer.echo(reason, err=True)
    elif not breaking:
        output.print(reason)
    raise typer.Exit(1)


def print_findings(output: Output, found: list[Finding]) -> None:
    """Print findings, breaking ones first."""
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in found)
        return
    if not found:
        output.print("No schema has changed.")
        return
    from rich.padding import Padding
    from rich.text import Text

    for each in found:
        place = f"{each.type} v{each.version}" if each.version else each.type
        where = f"{place}.{each.field}" if each.field else place
        mark, style = ("breaks", "bold red") if each.breaking else ("fine", "green")
        output.print(Text.assemble((f"{mark:<8}", style), (where, "bold"), f" {each.what}."))
        if each.write:
            output.print(Padding(each.write, (0, 0, 0, 8)))
        if each.code:
            output.print(Padding(Text(each.code, style="cyan"), (0, 0, 1, 12)))


@schema.command("lint", cls=Command)
def lint_classes(
    modules: Modules,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="RULE", help="A rule to leave out; may be repeated.")
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Warn of unwise event classes: names, tags, money, times, personal data, events that no code takes.

    Each warning has its reason, and the comment that allows it. Exits 1 if there is one, for use in CI.
    """
    output = Output(as_json)
    ignored = set(ignore or ())
    if unknown := sorted(ignored - RULES.keys()):
        raise InvalidInput(f"There is no rule {unknown[0]!r}.", f"The rules are {', '.join(RULES)}.")
    import_event_classes(modules, import_path)
    found = [each for each in lint(modules) if each.code not in ignored]
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in found)
    else:
        print_warnings(output, found)
    if found:
        raise typer.Exit(1)


def print_warnings(output: Output, found: list[LintWarning]) -> None:
    """Print warnings by class, each with its reason; the reason of a rule once."""
    if not found:
        output.print("No event class is unwise.")
        return
    from rich.padding import Padding
    from rich.text import Text

    explained = set[str]()
    for each in found:
        where = f"{each.type}.{each.field}" if each.field else each.type
        output.print(Text.assemble((where, "bold"), f"  {each.what}. ", (f"[{each.code}]", "yellow")))
        if each.code not in explained:
            output.print(Padding(each.why, (0, 0, 0, 4)))
            output.print(Padding(Text(each.allow, style="cyan"), (0, 0, 0, 4)))
        explained.add(each.code)


@schema.command("scan", cls=Command)
def scan_log(
    url: Url = None,
    modules: Annotated[
        list[str] | None, typer.Argument(metavar="MODULE…", help="Modules that declare event classes.")
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Read a whole log with the present classes, and report events that do not fit.

    By type, version and field, with the first position of each. Exits 1 if any event does not fit.
    """
    url, names = split_store_argument(url, list(modules or ()), needed=1)
    if not names:
        raise typer.BadParameter("name the modules that declare your events.", param_hint="MODULE…")
    output = Output(as_json)
    import_event_classes(names, import_path)
    with open_store(url) as store:
        total = store.head()
        with progress_bar(output, "scanning") as bar:
            result = scan(store, lambda done: bar(done, total))
    if output.is_json:
        output.write_value(msgspec.to_builtins(result))
    elif result.fits:
        events, types = count_of(result.events, "event"), count_of(len(result.types), "type")
        output.print(f"All {events} fit, of {types}, each version counted.")
    else:
        columns = (
            Column("type", elastic=True, style="bold", min_width=12),
            Column("v", align_right=True),
            Column("field", elastic=True),
            Column("events", align_right=True, style="cyan"),
            Column("first", align_right=True, style="dim"),
            Column("why", elastic=True),
        )
        rows = [
            (m.type, str(m.version), m.field or "·", f"{m.count:,}", f"{m.first:,}", m.code) for m in result.misfits
        ]
        output.print_table(columns, rows)
        for misfit in result.misfits:
            output.print_hint(misfit.what)
    if not result.fits:
        raise typer.Exit(1)


@schema.command("catalogue", cls=Command)
def write_catalogue(
    modules: Modules,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file; HTML if it ends in .html.")
    ] = None,
    import_path: ImportPath = ".",
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines: one for each version of each type.")] = False,
) -> None:
    """Write the event catalogue: types, versions, fields, tags, and the code that decides and projects them.

    Markdown on standard output; in a file, Markdown or HTML by its ending, or JSON lines with --json.
    """
    output = Output(False)
    import_event_classes(modules, import_path)
    if as_json:
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in entries(modules))
        if file is None:
            output.write_text(lines.decode().rstrip("\n"))
        else:
            write_file_atomically(file, lines, "The catalogue")
        return
    page = catalogue(modules)
    if file is None:
        output.write_text(page.rstrip("\n"))
        return
    text = to_html(page) if file.suffix in (".html", ".htm") else page
    write_file_atomically(file, text.encode(), "The catalogue")
    output.print(f"Wrote the catalogue to {file}.")
