"""Execute one chapter from a clean kernel, and note what it cost.

Usage: ``python tools/execute.py book/01_clip.ipynb _build/executed/01_clip.ipynb``.
The source is left as it is. The copy gets the outputs and, in its metadata, the seconds and
the peak memory that the status page shows.

pytest and nbmake do the work, and this module is also the pytest plug-in that corrects two things:

- nbmake skips every notebook below a folder named ``_build``, which is where ours are executed.
- nbclient answers an Output widget on the socket that it polls. It can therefore miss the reply of
  the cell, which then waits for its whole time limit, unless the socket is asked to look at its
  events again after each such answer. The call is not part of pyzmq's public interface.
"""

import os
import platform
import resource
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbclient.output_widget import OutputWidget

TIMEOUT = 600  # seconds a cell may take: cold imports on a slow disk take longest

_publish = OutputWidget._publish_msg


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """Collect the notebooks that nbmake itself leaves out."""
    from nbmake.pytest_items import NotebookFile  # pytest wants to import its plug-ins itself

    if file_path.suffix == ".ipynb" and "_build" in file_path.parts:
        return NotebookFile.from_parent(parent, path=file_path)
    return None


def _publish_and_look_again(self: OutputWidget, *args: object, **kwargs: object) -> None:
    _publish(self, *args, **kwargs)
    socket = self.kernel_client.shell_channel.socket
    if hasattr(socket, "_schedule_remaining_events"):
        socket._schedule_remaining_events()


def run_nbmake(notebook: Path) -> int:
    """Run the notebook in place and return pytest's exit status."""
    os.environ.pop("MPLBACKEND", None)  # the kernel chooses its own inline backend
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(notebook.parent), "-c", os.devnull]
    options += ["--nbmake", "--overwrite", "--nbmake-kernel=python3", f"--nbmake-timeout={TIMEOUT}"]
    OutputWidget._publish_msg = _publish_and_look_again
    return pytest.main([*options, str(notebook)], plugins=[sys.modules[__name__]])


def describe_run(seconds: float) -> dict[str, str | float | int]:
    """Return the facts of a run: seconds, peak megabytes, processors, versions."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    per_mb = 1024 if sys.platform != "darwin" else 1024**2
    facts = {"seconds": round(seconds, 1), "peak_mb": round(peak / per_mb)}
    can_ask = hasattr(os, "sched_getaffinity")  # macOS cannot
    cores = len(os.sched_getaffinity(0)) if can_ask else os.cpu_count() or 1
    facts |= {"cores": cores, "machine": platform.machine()}
    facts |= {"python": platform.python_version()}
    return facts | {name: version(name) for name in ("torch", "open_clip_torch")}


def main(source: Path, target: Path) -> int:
    """Copy ``source`` to ``target``, execute it there, and write the cost into it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    print(f"executing {source.name}", flush=True)
    start = time.perf_counter()
    status = run_nbmake(target)
    if status:
        target.rename(target.with_suffix(".failed.ipynb"))
        return status
    notebook = nbformat.read(target, as_version=4)
    notebook.metadata["cocoop_run"] = describe_run(time.perf_counter() - start)
    nbformat.write(notebook, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
