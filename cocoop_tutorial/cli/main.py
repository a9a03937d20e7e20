"""The command line: `cocoop doctor`, `cocoop data ...`, `cocoop train`, `cocoop evaluate`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cocoop_tutorial import __version__
from cocoop_tutorial.cli import reproduce as cli_reproduce
from cocoop_tutorial.cli import train as cli_train
from cocoop_tutorial.errors import CocoopError

app = typer.Typer(
    name="cocoop",
    help="Learn to prompt CLIP: data, training and evaluation of CoOp and CoCoOp.",
    epilog="Start with 'cocoop doctor'. Every command has --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(
    help="The data sets: make the emoji ones, fetch the paper's, see and check what is there.",
    no_args_is_help=True,
)
app.add_typer(data_app, name="data")

cli_train.register(app)
cli_reproduce.register(app)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder that holds caltech-101/ and the others [$COCOOP_DATA or ./data]."),
]


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def doctor(as_json: Json = False, root: Root = None) -> None:
    """Check Python, packages, device, memory, disk, data and weights, and say what to do.

    The exit status is 1 if something must be mended first, else 0.
    """
    from cocoop_tutorial.cli.doctor import FAIL, diagnose, report

    findings = diagnose(root)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=1))
    else:
        typer.echo(report(findings))
    if any(f.status == FAIL for f in findings):
        raise typer.Exit(1)


@data_app.command("build")
def build(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Make the emoji data sets; what is there and fresh is left alone."""
    from cocoop_tutorial.datasets import emoji

    emoji.build(progress=not quiet)
    typer.echo(f"{len(emoji.NAMES)} emoji data sets are ready.")


@data_app.command("show")
def show(as_json: Json = False, root: Root = None) -> None:
    """List the data sets of both worlds, and what of them is here."""
    from cocoop_tutorial.datasets import PAPER_NAMES, data_root, emoji
    from cocoop_tutorial.datasets.download import FILES
    from cocoop_tutorial.datasets.paper import folder_of

    table, folder = emoji.summary(), data_root(root)
    rows = [
        {
            "dataset": name,
            "ready": (folder / folder_of(name)).is_dir(),
            "folder": folder_of(name),
            "fetch": name in FILES,
        }
        for name in PAPER_NAMES
    ]
    if as_json:
        content = {"emoji": json.loads(table.reset_index().to_json(orient="records"))}
        typer.echo(json.dumps({**content, "paper": rows, "root": str(folder)}, indent=1))
        return
    typer.echo(f"Embedded world\n{table.to_string(na_rep='-', float_format='{:.0f}'.format)}\n")
    typer.echo(f"The paper's world, in {folder}")
    for row in rows:
        get = f"cocoop data fetch {row['dataset']}" if row["fetch"] else "by hand"
        state = "here" if row["ready"] else f"not here ({get})"
        typer.echo(f"{row['dataset']:<16} {row['folder']:<21} {state}")


@data_app.command("verify")
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A data set; none checks all emoji data sets.")
    ] = None,
    root: Root = None,
) -> None:
    """Compare every emoji image with its digest, or decode every image of one data set.

    The exit status is 1 if something is missing, changed or unreadable.
    """
    if name is None:
        from cocoop_tutorial.datasets import emoji

        wrong = emoji.verify()
        for line in wrong:
            typer.echo(line)
        typer.echo("All emoji images are as made." if not wrong else "Run: cocoop data build")
        raise typer.Exit(1 if wrong else 0)
    from cocoop_tutorial.datasets import check_images, load_dataset

    typer.echo(f"{check_images(load_dataset(name, root))!r}: every image is readable.")


@data_app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A data set; 'cocoop data show' lists them.")],
    root: Root = None,
) -> None:
    """Download one of the paper's data sets into its official folder."""
    from cocoop_tutorial.datasets import data_root, load_dataset
    from cocoop_tutorial.datasets.download import download

    download(name, data_root(root))
    typer.echo(repr(load_dataset(name, root)))


def main() -> None:
    """Runs the command line; an error of this library becomes one line and exit status 1."""
    try:
        app()
    except CocoopError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
