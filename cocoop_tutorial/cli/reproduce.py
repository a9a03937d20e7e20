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


def _table(name: str) -> Callable[..., None]:
    def command(
        world: Annotated[str, typer.Option(help="embedded: icons, CPU; paper: its data, GPU.")] = (
            "embedded"
        ),
        datasets: Names = None,
        methods: Names = None,
        seeds: Annotated[str, typer.Option(help="Such as 1,2,3.")] = "1,2,3",
        quick: Annotated[
            bool, typer.Option("--quick", help="The smallest data set and one seed.")
        ] = False,
        jobs: Jobs = None,
        engine: Engine = "local",
        shard: Annotated[
            str, typer.Option(help="i/n: every n-th group of runs from the i-th on, for Slurm.")
        ] = "1/1",
        out: Annotated[Path | None, typer.Option(help="Folder of the result file.")] = None,
        cells: Annotated[
            Path | None, typer.Option(help="Folder of the finished runs, which are not repeated.")
        ] = None,
        backbone: Annotated[
            str | None, typer.Option(help="Instead of the world's; see load_clip.")
        ] = None,
        root: Root = None,
        device: Device = None,
        precision: PrecisionOption = Precision.fp32,
        as_json: Json = False,
    ) -> None:
        from cocoop_tutorial.experiments.report import show
        from cocoop_tutorial.experiments.tables import ask, reproduce

        asked = ask(name, world, _names(datasets), _names(methods), _names(seeds), quick, root)
        how = How(jobs, engine, cells, root, _shard(shard))
        clip = load_clip(backbone or asked.world.backbone, device, precision.value)
        rows = reproduce(name, clip, asked, how, out)
        typer.echo(show(name, rows, asked, as_json))

    return command
