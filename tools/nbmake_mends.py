"""A pytest plug-in with two mends that executing the chapters needs.

nbmake passes over every notebook below a folder named ``_build``, which is where ours are executed.

nbclient answers an Output widget on the socket that it polls, and can so miss the reply of the
cell, which then waits for its whole time limit. Asking the socket to look at its events again
after each such answer mends it. The call is not part of pyzmq's public interface.
"""

from pathlib import Path

import pytest
from nbclient.output_widget import OutputWidget
from nbmake.pytest_items import NotebookFile

_publish = OutputWidget._publish_msg


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> NotebookFile | None:
    """Collect the notebooks that nbmake itself leaves out."""
    if file_path.suffix == ".ipynb" and "_build" in file_path.parts:
        return NotebookFile.from_parent(parent, path=file_path)
    return None


def _publish_and_look_again(self: OutputWidget, *args: object, **kwargs: object) -> None:
    _publish(self, *args, **kwargs)
    socket = self.kernel_client.shell_channel.socket
    if hasattr(socket, "_schedule_remaining_events"):
        socket._schedule_remaining_events()


OutputWidget._publish_msg = _publish_and_look_again
