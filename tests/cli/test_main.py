"""The command line, as a program."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from program import Cocoop

import cocoop_tutorial

MakeImage = Callable[[Path, int], Path]


@pytest.fixture
def root(tmp_path: Path, make_image: MakeImage) -> Path:
    folder = tmp_path / "dtd"
    split = {"train": [], "val": [], "test": []}
    for i, part in enumerate(split):
        for y, name in enumerate(["banded", "woven"]):
            make_image(folder / "images" / name / f"{i}.jpg", 10 * i + y)
            split[part].append([f"{name}/{i}.jpg", y, name])
    (folder / "split_zhou_DescribableTextures.json").write_text(json.dumps(split))
    return tmp_path


def test_help_and_version(cocoop: Cocoop) -> None:
    assert cocoop("--version").out.strip() == cocoop_tutorial.__version__
    result = cocoop("--help")
    assert result.status == 0
    assert "doctor" in result.out and "data" in result.out
    assert "fetch" in cocoop("data", "--help").out


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, cocoop_tutorial.cli; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "False"


def test_show_lists_both_worlds(cocoop: Cocoop, root: Path, tmp_path: Path) -> None:
    result = cocoop("data", "show", "--root", str(root), COCOOP_CACHE=str(tmp_path / "cache"))
    assert result.status == 0
    assert "icons_weather" in result.out
    (line,) = [x for x in result.out.splitlines() if x.startswith("dtd ")]
    assert line.endswith("here") and "not here" not in line
    assert "cocoop data fetch caltech101" in result.out
    as_json = cocoop("data", "show", "--json", COCOOP_DATA=str(root), COCOOP_CACHE=str(tmp_path))
    content = json.loads(as_json.out)
    assert [r["dataset"] for r in content["paper"] if r["ready"]] == ["dtd"]
    assert content["icons"] and not any(r["ready"] for r in content["icons"])


def test_check_of_icon_data_that_were_never_made(cocoop: Cocoop, tmp_path: Path) -> None:
    for args in ([], ["icons_games"]):
        result = cocoop("data", "check", *args, COCOOP_CACHE=str(tmp_path))
        assert result.status == 1 and "icons_games: not made" in result.out
        assert "cocoop data build" in result.out
    assert not list(tmp_path.iterdir()), "a check makes nothing"


def test_errors_are_one_line(cocoop: Cocoop, tmp_path: Path) -> None:
    for args, words in [
        (("data", "fetch", "sun397"), "cannot be downloaded"),
        (("data", "check", "dtdd"), "Did you mean 'dtd'"),
    ]:
        result = cocoop(*args)
        assert result.status == 1
        assert result.err.startswith("error: ") and words in result.err
        assert len(result.err.strip().splitlines()) == 1


def test_usage_mistakes_have_their_own_status(cocoop: Cocoop) -> None:
    assert cocoop("no-such-command").status == 2
    assert cocoop("data", "fetch").status == 2


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-m", "cocoop_tutorial", "data", "fetch", "nonsense"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: 'nonsense' cannot be downloaded")
