"""A pytest plug-in that keeps a notebook with an Output widget from standing still.

nbclient answers an Output widget on the socket that it polls, and can so miss the reply of the
cell, which then waits for its whole time limit. Asking the socket to look at its events again
after each such answer mends it. The call is not part of pyzmq's public interface.
"""

from nbclient.output_widget import OutputWidget

_publish = OutputWidget._publish_msg


def _publish_and_look_again(self: OutputWidget, *args: object, **kwargs: object) -> None:
    _publish(self, *args, **kwargs)
    socket = self.kernel_client.shell_channel.socket
    if hasattr(socket, "_schedule_remaining_events"):
        socket._schedule_remaining_events()


OutputWidget._publish_msg = _publish_and_look_again
