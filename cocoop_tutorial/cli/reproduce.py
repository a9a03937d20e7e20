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


@app.command("zero-shot")
def zero_shot() -> None:
    """Score emoji-clip, without any training, on every evaluation house and emoji dataset."""
    from cocoop_tutorial.experiments import reproduce  # here, so that --help need not load PyTorch

    typer.echo(f"wrote {reproduce.zero_shot().name}")


@app.command("prompt-settings")
def prompt_settings(jobs: Jobs = None, engine: Engine = "local") -> None:
    """Choose the learning rates of CoOp and CoCoOp, on a dataset that no result uses."""
    from cocoop_tutorial.experiments import reproduce

    typer.echo(f"wrote {reproduce.prompt_settings(jobs, engine).name}")


@app.command("prompt-learning")
def prompt_learning(
    method: Annotated[
        list[str] | None, typer.Option(help="zero-shot, CoOp or CoCoOp; by default all.")
    ] = None,
    jobs: Jobs = None,
    engine: Engine = "local",
) -> None:
    """Train CoOp and CoCoOp on emoji datasets with three seeds; continues where it stopped."""
    from cocoop_tutorial.experiments import reproduce

    typer.echo(f"wrote {reproduce.prompt_learning(method, jobs, engine).name}")


@app.command("hero")
def hero(to: Annotated[Path, typer.Argument(help="Picture to write.")]) -> None:
    """Draw the README's picture: test images of each dataset, named by emoji-clip."""
    from cocoop_tutorial.book.hero import draw_hero

    draw_hero(to)


@app.command("world")
def world(jobs: Jobs = None) -> None:
    """Measure what the icon datasets can teach, by means that know no prompt learning."""
    from cocoop_tutorial.experiments import world

    typer.echo(f"wrote {world.measure(jobs=jobs).name}")


@app.command("first-look")
def first_look(jobs: Jobs = None) -> None:
    """Train CoOp and CoCoOp as the paper did on the datasets for settings, beside controls."""
    from cocoop_tutorial.experiments import first_look

    typer.echo(f"wrote {first_look.first_look(jobs=jobs).name}")
