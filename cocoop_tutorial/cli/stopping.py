"""How a command ends when it is stopped."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import typer


@contextlib.contextmanager
def stoppable(kept: str) -> Iterator[None]:
    """Within the block, SIGTERM (from `kill` or a batch system) ends the command as Ctrl-C does.

    Temporary files are removed and other processes end. The exit status is 128 plus the signal.

    Args:
        kept: What to tell the user: what is kept, and how to go on.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        typer.echo(f"Stopped by {signal.Signals(number).name}. {kept}", err=True)
        raise typer.Exit(128 + number) from stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
