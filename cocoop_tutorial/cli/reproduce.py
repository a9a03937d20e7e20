"""`cocoop reproduce ...`: makes the files of `results/` again, each with its provenance."""

from pathlib import Path
from typing import Annotated

import typer

Jobs = Annotated[
    int | None, typer.Option(min=1, help="Processes, of one thread each; by default one per core.")
]

app = typer.Typer(help="Make the measured results of the book again.", no_args_is_help=True)
Engine = Annotated[
    str, typer.Option(help="local, or dask: the cluster that DASK_SCHEDULER_ADDRESS names.")
]


def register(parent: typer.Typer) -> None:
    """Adds `cocoop reproduce ...` to the command line."""
    parent.add_typer(app, name="reproduce")


@app.command("hero")
def hero(to: Annotated[Path, typer.Argument(help="Picture to write.")]) -> None:
    """Draw the README's picture: test images of each dataset, named by icon-clip."""
    from cocoop_tutorial.book.hero import draw_hero

    draw_hero(to)


@app.command("world")
def world(jobs: Jobs = None) -> None:
    """Measure what the icon datasets can teach, by means that know no prompt learning."""
    from cocoop_tutorial.experiments import world

    typer.echo(f"wrote {world.measure(jobs=jobs).name}")


@app.command("first-look")
def first_look(jobs: Jobs = None, engine: Engine = "local") -> None:
    """Train CoOp and CoCoOp as the paper did on the datasets for settings, beside controls."""
    from cocoop_tutorial.experiments import first_look

    typer.echo(f"wrote {first_look.first_look(jobs=jobs, engine=engine).name}")
