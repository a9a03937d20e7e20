"""The command line: `cocoop doctor`, `data`, `train`, `evaluate` and `reproduce`."""

import dataclasses
import io
import json
import sys
import warnings
from typing import Annotated

import typer

from cocoop_tutorial import __version__
from cocoop_tutorial.cli import data, evaluate, reproduce, train
from cocoop_tutorial.cli.options import Json, Root
from cocoop_tutorial.errors import CocoopError

app = typer.Typer(
    name="cocoop",
    help="Learn to prompt CLIP: data, training and evaluation of CoOp and CoCoOp.",
    epilog="Start with 'cocoop doctor'. Every command has --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def doctor(as_json: Json = False, root: Root = None) -> None:
    """Check Python, packages, device, memory, disk, data and weights, and say what to do.

    The exit status is 1 if something must be fixed first, else 0.
    """
    from cocoop_tutorial.cli.doctor import FAIL, diagnose, report

    findings = diagnose(root)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=1))
    else:
        typer.echo(report(findings))
    if any(f.status == FAIL for f in findings):
        raise typer.Exit(1)


for command in (data, train, evaluate, reproduce):
    command.register(app)


def main() -> None:
    """Runs the command line; an error of this library or of a file becomes one line, status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app()
    except (CocoopError, OSError) as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _show_warning(message: Warning | str, *_: object) -> None:
    typer.secho(f"warning: {message}", fg=typer.colors.YELLOW, err=True)


if __name__ == "__main__":
    main()
