"""Builds of the icon data that are stopped, killed, doubled, or find no room."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer
from processes import descendants, largest_file, python, run_on, wait_until

from cocoop_tutorial.cli.stopping import stoppable
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.icons import drawings, making
from cocoop_tutorial.errors import FileError, MemoryLimitError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix signals and limits")
SMALL = "icons_games"  # the fewest classes
BUILD = f"""
from cocoop_tutorial.datasets import icons
if __name__ == "__main__":
    icons.build(False, names=({SMALL!r},))
"""
WORK = """
import time
from cocoop_tutorial.datasets.icons import drawings
if __name__ == "__main__":
    with drawings.workers() as pool:
        print(pool.submit(abs, -1).result(), flush=True)
        list(pool.map(time.sleep, [60] * 8))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path))
    return tmp_path


def left_of_builds(cache: Path) -> list[str]:
    return [path.name for path in cache.glob("datasets/.*") if path.is_dir()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(number: signal.Signals) -> None:
    with subprocess.Popen(python(WORK), stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        workers = descendants(process.pid)
        process.send_signal(number)
    assert workers and not run_on(workers, seconds=20)


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(MemoryLimitError, match="memory ran out"), drawings.workers() as pool:
        pool.submit(os._exit, 9).result()


def test_ctrl_c_does_not_wait_for_what_is_not_begun() -> None:
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), drawings.workers() as pool:
        for _ in range(1000):
            pool.submit(time.sleep, 0.5)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 120, "a thousand naps take more than two minutes"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_what_is_kept(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as stop, stoppable("All is kept."):
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert stop.value.exit_code == 128 + number
    assert capsys.readouterr().err == f"Stopped by {number.name}. All is kept.\n"


@pytest.mark.slow
def test_a_stopped_build_cleans_up_and_a_killed_one_is_swept(cache: Path) -> None:
    def begin(*command: str) -> subprocess.Popen:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        begun = lambda: len(list(cache.glob("datasets/.*/images/*/*.png"))) >= 50  # noqa: E731
        ready = wait_until(lambda: begun() or process.poll() is not None, 900)
        if not ready or process.poll() is not None:
            process.kill()
            pytest.fail(f"the build did not get far: {process.communicate()[1]}")
        return process

    process = begin(sys.executable, "-m", "cocoop_tutorial", "data", "build", "--quiet")
    workers = descendants(process.pid)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("Stopped by SIGTERM. Finished data sets stay.")
    assert "Traceback" not in said and left_of_builds(cache) == []
    assert workers and not run_on(workers, seconds=20)

    process = begin(*python(BUILD))
    process.kill()
    process.communicate()
    assert left_of_builds(cache) == [f".{SMALL}-new"]
    assert not making.is_fresh(SMALL)
    data = icons.load(SMALL)  # builds again, from the start
    assert left_of_builds(cache) == [] and making.damage(SMALL) == []
    assert all(path.is_file() for path, _ in data.test.samples)
    usual = cache / "usual"
    usual.mkdir()
    assert making.folder(SMALL).stat().st_mode == usual.stat().st_mode, "open to other users"


@pytest.mark.slow
def test_two_builds_of_a_stale_cache(cache: Path) -> None:
    folder = making.folder(SMALL)
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"fingerprint": "of another version"}))
    builds = [subprocess.Popen(python(BUILD), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(build.communicate(timeout=600)[1] for build in builds)
    assert [build.returncode for build in builds] == [0, 0], said
    assert said == ["", "Another process is making the icon data. Waiting for it.\n"]
    assert making.is_fresh(SMALL) and making.damage(SMALL) == []


def test_a_full_disk_leaves_the_old_data(cache: Path) -> None:
    old = making.folder(SMALL)
    old.mkdir(parents=True)
    reason = r"could not be made \(File too large\). Finished datasets stay; free some space"
    with pytest.raises(FileError, match=reason), largest_file(1000):
        icons.build(False, (SMALL,))
    assert old.is_dir() and left_of_builds(cache) == []


def test_a_cache_that_cannot_be_written(cache: Path) -> None:
    (cache / "datasets").write_text("in the way")
    with pytest.raises(FileError, match=f"{cache}/datasets"):
        icons.build(False, (SMALL,))


def test_a_lock_is_free_after_its_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from cocoop_tutorial.files import locked

    code = f"""
import pathlib, time
from cocoop_tutorial.files import locked
with locked(pathlib.Path({str(tmp_path / "lock")!r}), "sleeping"):
    print("held", flush=True); time.sleep(60)
"""
    with subprocess.Popen(python(code), stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        threading.Timer(0.5, process.kill).start()
        with locked(tmp_path / "lock", "sleeping") as waited:
            assert waited and process.wait() == -signal.SIGKILL
    assert "Another process is sleeping. Waiting for it." in capsys.readouterr().err
    with locked(tmp_path / "lock", "sleeping") as waited:
        assert not waited
