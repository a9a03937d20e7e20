"""`python -m cocoop_tutorial`: the same as `cocoop`, for torchrun."""

from .cli import main

main()
