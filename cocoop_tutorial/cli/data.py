"""`cocoop data ...`: make, fetch, list and check the data sets."""

import json
from typing import Annotated, Any

import typer

from cocoop_tutorial.cli.options import Json, Root

app = typer.Typer(
    help="The data sets: make the embedded ones, fetch the paper's, see and check what is there.",
    no_args_is_help=True,
)


def register(parent: typer.Typer) -> None:
    """Adds `cocoop data ...` to the command line."""
    parent.add_typer(app, name="data")


@app.command("build")
def build(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Make the icon and emoji data sets, except those that are there and up to date."""
    from cocoop_tutorial.datasets import emoji, icons

    for made in (icons, emoji):
        made.build(progress=not quiet)
    typer.echo(f"{len(icons.NAMES)} icon and {len(emoji.NAMES)} emoji data sets are ready.")


@app.command("show")
def show(as_json: Json = False, root: Root = None) -> None:
    """List the data sets of both worlds, and which of them are here."""
    import pandas as pd

    from cocoop_tutorial.datasets import emoji, icons
    from cocoop_tutorial.datasets.load import data_root

    table, folder = pd.concat([icons.summary(), emoji.summary()]), data_root(root)
    paper = _papers_data(root)
    if as_json:
        content = {"embedded": json.loads(table.reset_index().to_json(orient="records"))}
        typer.echo(json.dumps({**content, "paper": paper, "root": str(folder)}, indent=1))
        return
    typer.echo(f"Embedded world\n{table.to_string(na_rep='-', float_format='{:.0f}'.format)}\n")
    typer.echo(f"The paper's world, in {folder}")
    for facts in paper:
        how = f"cocoop data fetch {facts['dataset']}" if facts["fetch"] else "by hand"
        state = "here" if facts["ready"] else f"not here ({how})"
        typer.echo(f"{facts['dataset']:<16} {facts['folder']:<21} {state}")


def _papers_data(root: Root) -> list[dict[str, Any]]:
    """For each of the paper's data sets: its folder, whether it is there, how to get it."""
    from cocoop_tutorial.datasets.download import FILES
    from cocoop_tutorial.datasets.load import data_root
    from cocoop_tutorial.datasets.paper import NAMES, folder_of

    return [
        {
            "dataset": name,
            "ready": (data_root(root) / folder_of(name)).is_dir(),
            "folder": folder_of(name),
            "fetch": name in FILES,
        }
        for name in NAMES
    ]


@app.command("verify")
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A data set; without one, all embedded data sets.")
    ] = None,
    root: Root = None,
) -> None:
    """Compare every embedded image with its digest, or decode every image of one data set.

    The exit status is 1 if something is missing, changed or unreadable.
    """
    if name is None:
        from cocoop_tutorial.datasets import emoji, icons

        wrong = icons.verify() + emoji.verify()
        for line in wrong:
            typer.echo(line)
        typer.echo("All embedded images are unchanged." if not wrong else "Run: cocoop data build")
        raise typer.Exit(1 if wrong else 0)
    from cocoop_tutorial.datasets.images import check_images
    from cocoop_tutorial.datasets.load import load_dataset

    typer.echo(f"{check_images(load_dataset(name, root))!r}: every image is readable.")


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A data set; 'cocoop data show' lists them.")],
    root: Root = None,
) -> None:
    """Download one of the paper's data sets into its official folder."""
    from cocoop_tutorial.datasets.download import download
    from cocoop_tutorial.datasets.load import data_root, load_dataset

    download(name, data_root(root))
    typer.echo(repr(load_dataset(name, root)))
