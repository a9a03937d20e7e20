"""`cocoop data ...`: make, fetch, list and check the data sets."""

import dataclasses
import json
from typing import Annotated, Any

import typer

from cocoop_tutorial.cli.options import Json, Root
from cocoop_tutorial.cli.stopping import stoppable

app = typer.Typer(
    help="The data sets: make the icon ones, fetch the paper's, see and check what is there.",
    no_args_is_help=True,
)


def register(parent: typer.Typer) -> None:
    """Adds `cocoop data ...` to the command line."""
    parent.add_typer(app, name="data")


@app.command("build")
def build(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Make the icon data sets, except those that are there and up to date."""
    from cocoop_tutorial.datasets import icons

    with stoppable("Finished data sets stay. Run 'cocoop data build' again to make the others."):
        icons.build(progress=not quiet)
    typer.echo(f"{len(icons.NAMES)} icon data sets are ready.")


@app.command("show")
def show(as_json: Json = False, root: Root = None) -> None:
    """List the data sets of both worlds, and which of them are here."""
    from cocoop_tutorial.datasets import icons
    from cocoop_tutorial.datasets.load import data_root

    table, folder = icons.summary(), data_root(root)
    paper = _papers_data(root)
    if as_json:
        content = {"icons": json.loads(table.reset_index().to_json(orient="records"))}
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


@app.command("check")
def check(
    name: Annotated[
        str | None,
        typer.Argument(help="A data set, or a folder of images; without one, all icon data sets."),
    ] = None,
    as_json: Json = False,
    root: Root = None,
) -> None:
    """Check whether a data set is complete, readable and the published one.

    It counts classes and images, compares the split file with the official one, decodes every
    image, and looks for images that are in several splits. Icons are compared with their digests.
    Of a folder of your own, it also counts each class and says which files are left out.
    The exit status is 1 if there is a problem.
    """
    from cocoop_tutorial.datasets import icons
    from cocoop_tutorial.datasets.check import check, describe

    if name is None:
        problems = icons.verify()
        facts = {"problems": problems}
        text = "\n".join([*problems, "Run: cocoop data build"]) if problems else ""
    else:
        report = check(name, root)
        problems, facts, text = report.problems, dataclasses.asdict(report), describe(report)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, default=str))
    else:
        typer.echo(text or "All icon data sets are as they were made.")
    raise typer.Exit(1 if problems else 0)


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A data set; 'cocoop data show' lists them.")],
    root: Root = None,
) -> None:
    """Download one of the paper's data sets into its official folder."""
    from cocoop_tutorial.datasets.download import download
    from cocoop_tutorial.datasets.load import data_root, load_dataset

    with stoppable(f"Run 'cocoop data fetch {name}' again, which continues where it stopped."):
        download(name, data_root(root))
        typer.echo(repr(load_dataset(name, root)))
