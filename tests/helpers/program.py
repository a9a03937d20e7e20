"""What the command line, run in the test process, gives back; conftest.py has the fixture."""

from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    status: int
    out: str
    err: str


Cocoop = Callable[..., Result]
