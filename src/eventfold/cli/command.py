"""Room: what every command has in common: how it ends, and examples under its help.

Knows: typer. Does not know: any command.
"""

from __future__ import annotations

import inspect
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import eventfold.cli
from eventfold.cli.ending import ASKED_FOR_JSON, ended
from eventfold.cli.examples import EXAMPLES


def plain_flags(parameters: list[Any]) -> list[Any]:
    """Flags need no word for their values: typer would write <bool> beside each."""
    for each in parameters:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return parameters


class Group(TyperGroup):
    """A group of commands; the outermost one turns errors into words and exit codes."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, as help shows them."""
        return plain_flags(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        if ctx.parent is not None:
            return super().invoke(ctx)
        return ended(lambda: super(Group, self).invoke(ctx), lambda: bool(ctx.meta.get(ASKED_FOR_JSON)))

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order in which one meets them."""
        return list(self.commands)


class Command(TyperCommand):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.help = paragraphs(self.help)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, as help shows them."""
        return plain_flags(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help, then the examples, each a line that can be typed as it stands."""
        super().format_help(ctx, formatter)
        examples = EXAMPLES.get(self.name or "", ())
        if examples:
            tell_examples(examples)


def tell_examples(examples: tuple[tuple[str, str], ...]) -> None:
    """Examples under a help text."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(" Examples", style="bold")
    for what, line in examples:
        console.print(Text(f"   {what}:", style="dim"))
        console.print(Text(f"     {line}"), soft_wrap=True)
    console.print()


def paragraphs(docstring: str | None) -> str:
    """A docstring as help: each paragraph is one line, which the terminal breaks where it needs to."""
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(docstring or "").split("\n\n"))


def version(wanted: bool) -> None:
    """`--version`."""
    if wanted:
        typer.echo(eventfold.cli.version())
        raise typer.Exit
