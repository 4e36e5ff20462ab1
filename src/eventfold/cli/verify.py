"""Room: `eventfold verify`: the log is as it was written, and nobody who follows it skipped or repeated anything.

Knows: tables, a progress bar, exit codes. Does not know: what a proof is made of.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.copy import progress
from eventfold.cli.options import Json, Url, Wide, addressed, opened
from eventfold.cli.running import imported
from eventfold.cli.screen import Column, Screen
from eventfold.cli.shown import counted, printable
from eventfold.cli.state import ImportPath
from eventfold.flow.prove import LogProof, Proof
from eventfold.running.row_check import RowProof

SHOWN = 20  # flaws of a log that are shown; all are counted


def verify(
    url: Url = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="Names, or MODULE:CLASS; else all, and the log.", show_default=False),
    ] = None,
    log: Annotated[
        bool | None,
        typer.Option("--log/--no-log", help="Check the log itself as well, or not.", show_default=False),
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Fold read models again into scratch rows, and compare every row.")
    ] = False,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Prove that the log is as it was written, and that read models and followers took every event exactly once.

    The engine compares what it has written twice. Then the log is counted again and held against the ledger of every
    checkpoint, which proves that each event was taken once, not what the rows hold: --rows proves that, and needs room
    for a second copy of the rows while it runs. Exits 1 if something is not proved, and names the first place where
    it went wrong.
    """
    screen = Screen(as_json, wide)
    store_url, others = addressed(url, names or [])
    with opened(store_url) as store:
        named = imported(others, import_path)
        found = None
        if log or (log is None and not named):
            with progress(screen, "checking") as bar:
                found = store.projections.verify_log(bar)
            tell_log(screen, found)
        with progress(screen, "counting") as bar:
            proofs = store.projections.verify(*named, progress=bar)
        compared: list[RowProof] = []
        if rows:
            with progress(screen, "folding again") as bar:
                compared = store.projections.verify_rows(*named, progress=bar)
    if screen.json:
        screen.lines(msgspec.json.encode(each) for each in (*proofs, *compared))
    elif proofs:
        tell_proofs(screen, proofs)
    elif found is None:
        screen.say("Nothing is kept in this store: no read model, no subscription, no follower by name.")
    if compared and not screen.json:
        print_rows(screen, compared)
    wrong = [*(each for each in proofs if each.failed), *(each for each in compared if not each.proved)]
    if wrong or (found is not None and not found.proved):
        raise typer.Exit(1)


def tell_log(screen: Screen, found: LogProof) -> None:
    """What the engine found."""
    if screen.json:
        screen.value({"log": found.engine, "proved": found.proved, **msgspec.structs.asdict(found)})
        return
    if not found.checked:
        size = counted(found.events, "event")
        screen.say(f"{found.engine} has no check of its own for its log of {size}; they are read to be counted below.")
        return
    if found.proved:
        screen.say(f"The log is as it was written: {counted(found.events, 'event')}, every index of them compared.")
        return
    screen.say(f"The log is not as it was written: {counted(len(found.flaws), 'flaw')}.", style="bold red")
    for flaw in found.flaws[:SHOWN]:
        where = "" if flaw.position is None else f"event {flaw.position:,}: "
        screen.say(f"  {where}{printable(flaw.what)}")
    if len(found.flaws) > SHOWN:
        screen.hint(f"  … and {len(found.flaws) - SHOWN:,} more (--json shows all)")


def proven(proof: Proof) -> str:
    """A proof in few words."""
    apart = [f"{n:,} {what}" for n, what in ((proof.parked, "parked"), (proof.skipped, "skipped")) if n]
    return f"{counted(proof.counted, 'event')}, each exactly once" + (f"; {', '.join(apart)}" if apart else "")


def tell_proofs(screen: Screen, proofs: list[Proof]) -> None:
    """One line for each checkpoint; what is not proved is told in full below."""
    columns = [Column(" "), Column("name", style="bold", elastic=True, least=12)]
    rows = [["✓" if p.proved else "✗" if p.failed else "–", p.name] for p in proofs]
    for title, values in (("gen", [p.generation for p in proofs]), ("part", [p.partition for p in proofs])):
        if len(set(values)) > 1:  # where there is one only, nobody needs its number
            columns.append(Column(title, True))
            rows = [[*row, str(value)] for row, value in zip(rows, values, strict=True)]
    columns += [Column("position", True), Column("verdict", elastic=True, least=24)]
    verdicts = [proven(each) if each.proved else printable(each.verdict) for each in proofs]
    rows = [[*row, f"{p.position:,}", said] for row, p, said in zip(rows, proofs, verdicts, strict=True)]
    screen.table(columns, rows)
    for each in proofs:
        if not each.proved:
            screen.say(f"{each.name}: {printable(each.verdict)}")


def print_rows(screen: Screen, compared: list[RowProof]) -> None:
    """One line for each read model; below it the rows that differ, as far as they were kept."""
    columns = (Column(" "), Column("rows of", style="bold", elastic=True, least=12), Column("position", True))
    columns += (Column("verdict", elastic=True, least=24),)
    marks = ["✓" if each.proved else "✗" for each in compared]
    rows = [(m, p.name, f"{p.position:,}", printable(p.verdict)) for m, p in zip(marks, compared, strict=True)]
    screen.table(columns, rows)
    for proof in compared:
        for each in proof.differences:
            key = ", ".join(map(str, each.key))
            screen.say(
                printable(f"{proof.name}, row {key}: {_values(each.before)}; the log folds to {_values(each.after)}")
            )


def _values(row: tuple[Any, ...] | None) -> str:
    return "there is none" if row is None else ", ".join(map(str, row))
