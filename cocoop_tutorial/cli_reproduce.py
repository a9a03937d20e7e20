"""`cocoop reproduce ...`: makes the files of `results/` again, each with its provenance."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make the measured results of the book again.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Adds `cocoop reproduce ...` to the command line."""
    parent.add_typer(app, name="reproduce")


@app.command("zero-shot")
def zero_shot() -> None:
    """Score emoji-clip, untrained on them, on every evaluation house and every emoji dataset."""
    from . import reproduce  # here, so that --help need not load PyTorch

    typer.echo(f"wrote {reproduce.zero_shot().name}")


@app.command("prompt-learning")
def prompt_learning(
    method: Annotated[
        list[str] | None, typer.Option(help="zero-shot, CoOp or CoCoOp; none means all.")
    ] = None,
) -> None:
    """Train CoOp and CoCoOp on three emoji datasets with three seeds; goes on where it stopped."""
    from . import reproduce

    typer.echo(f"wrote {reproduce.prompt_learning(method).name}")


@app.command("prompt-settings")
def prompt_settings() -> None:
    """Try learning rates on a data set that no result uses; the best ones are the defaults."""
    from . import reproduce

    typer.echo(f"wrote {reproduce.prompt_settings().name}")


@app.command("hero")
def hero(to: Annotated[Path, typer.Argument(help="Picture to write.")]) -> None:
    """Draw the README's picture: test images of each dataset, named by emoji-clip."""
    from . import reproduce

    reproduce.hero(to)
