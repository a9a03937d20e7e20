"""`cocoop reproduce ...`: makes the files of `results/` again, each with its provenance."""

from pathlib import Path
from typing import Annotated

import typer

from cocoop_tutorial.cli.options import LARGEST, Device, Json, PrecisionOption, Root
from cocoop_tutorial.precision import Precision

World = Annotated[str, typer.Option(help="embedded: icons, on a CPU; paper: its data, on a GPU.")]
Datasets = Annotated[str | None, typer.Option(help="Some of the world's, with commas between.")]
Methods = Annotated[str | None, typer.Option(help="Instead of the table's, with commas between.")]
Seeds = Annotated[str, typer.Option(help="Of the shots and of the training.")]
Shots = Annotated[int, typer.Option(min=1, max=LARGEST, help="Training images per class.")]
Epochs = Annotated[
    int | None, typer.Option(min=1, max=LARGEST, help="Of every method, for a trial.")
]
Source = Annotated[str | None, typer.Option(help="What transfer learns from, if not the world's.")]
Quick = Annotated[bool, typer.Option("--quick", help="The smallest data set, one seed: minutes.")]
Shard = Annotated[
    str, typer.Option(help="i/n: every n-th group of runs from the i-th on, as for a Slurm array.")
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the result file; a part of a table needs one.")
]
Cells = Annotated[Path | None, typer.Option(help="Folder of finished runs, never repeated.")]
Backbone = Annotated[str | None, typer.Option(help="Instead of the world's; see load_clip.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, max=LARGEST, help="Processes, of one thread each; by default one per core."
    ),
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


def _table(name: str, title: str) -> None:
    """Adds `cocoop reproduce NAME`."""

    @app.command(name, help=f"{title}: make the runs that are not there yet, and the table.")
    def command(
        world: World = "embedded",
        datasets: Datasets = None,
        methods: Methods = None,
        seeds: Seeds = "1,2,3",
        shots: Shots = 16,
        epochs: Epochs = None,
        source: Source = None,
        quick: Quick = False,
        jobs: Jobs = None,
        engine: Engine = "local",
        shard: Shard = "1/1",
        out: Out = None,
        cells: Cells = None,
        backbone: Backbone = None,
        root: Root = None,
        device: Device = None,
        precision: PrecisionOption = Precision.fp32,
        as_json: Json = False,
    ) -> None:
        from cocoop_tutorial.clip.load import check_backbone, load_clip
        from cocoop_tutorial.experiments import grid, report, tables, worlds
        from cocoop_tutorial.files import check_folder

        chosen = worlds.world(world)
        which = _words("--datasets", datasets), _words("--methods", methods), _seeds(seeds)
        asked = tables.ask(chosen, *which, source, shots=shots, epochs=epochs)
        tables.check(name, asked)
        how = grid.How(jobs, engine, cells, root, _shard(shard))
        here = chosen.backbone if backbone is None else backbone, device, precision.value
        check_backbone(*here)
        for folder in filter(None, (how.cells, out)):
            check_folder(folder)
        asked = tables.quick(name, asked, root) if quick else asked
        clip = load_clip(*here)
        rows = tables.reproduce(name, clip, asked, how, out)
        typer.echo(report.show(name, rows, as_json))


def _words(option: str, text: str | None) -> list[str]:
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if "" in words:
        raise typer.BadParameter(f"{text!r} is not a list such as a,b,c", param_hint=option)
    return words


def _seeds(text: str) -> list[int]:
    try:
        return [int(word) for word in _words("--seeds", text)]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers such as 1,2,3", param_hint="--seeds"
        ) from None


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and len(n) < 10 and 1 <= int(i) <= int(n)):
        raise typer.BadParameter(f"{text!r} is not i/n with i from 1 to n", param_hint="--shard")
    return int(i), int(n)


TABLES = {
    "table1": "Base to new",
    "table2": "Cross-dataset transfer",
    "table3": "Domain generalization",
    "table4": "Class-incremental test",
    "table5": "A bigger CoOp",
    "init": "First words",
    "length": "Length of the context",
    "shots": "Fewer shots",
    "matrix": "Every data set as the source",
    "search": "Settings, on data sets kept for them",
    "tuned": "The settings that search found best",
}
for _name, _title in TABLES.items():
    _table(_name, _title)
