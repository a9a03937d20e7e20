"""Execute one chapter from a clean kernel, and note what it cost.

Usage: ``python tools/execute.py book/01_clip.ipynb _build/executed/01_clip.ipynb``.
The source is left as it is. The copy gets the outputs and, in its metadata, the seconds and
the peak memory that the status page shows.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nbformat

TIMEOUT = 600  # seconds a cell may take: cold imports on a slow disk are the longest


def run_nbmake(notebook: Path) -> int:
    """Run the notebook in place and return pytest's exit status."""
    tools = str(Path(__file__).parent)
    paths = [tools, os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    env.pop("MPLBACKEND", None)  # the kernel chooses its own inline backend
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "nbmake_mends",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--rootdir", str(notebook.parent), "-c", os.devnull, "--nbmake", "--overwrite"]
    command += ["--nbmake-kernel=python3", f"--nbmake-timeout={TIMEOUT}", str(notebook)]
    return subprocess.run(command, env=env, check=False).returncode


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
