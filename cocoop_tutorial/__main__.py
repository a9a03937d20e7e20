"""`python -m cocoop_tutorial`: the same as `cocoop`, for torchrun."""

from cocoop_tutorial.cli.main import main

main()
