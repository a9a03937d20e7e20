"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cocoop_tutorial.precision import Precision

LARGEST = 2**31 - 1  # number of images, shots or epochs
Position = StrEnum("Position", ["end", "middle", "front"])

Root = Annotated[
    Path | None,
    typer.Option(help="Folder that holds caltech-101/ and the others [$COCOOP_DATA or ./data]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Of the backbone; amp: weights in fp32, products in half.")
]
Skip = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out broken images, and say how many.")
]
FeatureBatch = Annotated[
    int,
    typer.Option(
        min=1, max=LARGEST, help="Images in one pass of the image tower; fewer need less memory."
    ),
]
