"""Every option of every command with values that nobody should give: a message, never a crash."""

from pathlib import Path

import pytest
from program import Cocoop
from typer.main import get_command

from cocoop_tutorial.cli.main import app

ODD = [
    "", " ", ",", "1,,2", "nan", "-inf", "-1", "0", "1.5", "1e400", "0x10", "9" * 30, "9" * 5000,
    "\u00b2", "\u00b2/\u00b3", "0/0", "1/1/1", "true", "None", "meta", "cuda:99", "/dev/null",
    "/dev/null/x", "x" * 300, "x" * 5000, "caf\udce9", "~nobody-here/x", "{}", "<b>", "\\",
    "local-dir:", "local-dir:~nobody-here", "ViT-B-16/", "no/such",
]  # fmt: skip
STEP = 5  # each option gets every fifth value, and the next option of its kind other ones
# Each ends early whatever the option is: there are no such images, or nothing can be kept.
COMMANDS = {
    "train": ("--data", "my/photos", "--out", "run"),
    "evaluate": ("zero-shot", "--data", "my/photos"),
    "data check": ("my/photos",),
    "data fetch": ("sun397",),
    "reproduce table2": ("--cells", "/dev/null/x", "--out", "/dev/null/x"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_options(
    command: str, cocoop: Cocoop, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = get_command(app)
    for word in command.split():
        program = program.commands[word]
    names = [p.opts[0] for p in program.params if p.opts[0].startswith("--") and not p.is_flag]
    small = ("--backbone", f"local-dir:{model_dir}") if "--backbone" in names else ()
    for i, name in enumerate(names):
        for value in ODD[i % STEP :: STEP]:
            done = cocoop(*command.split(), *COMMANDS[command], *small, name, value)
            assert done.status in (1, 2) and (done.err + done.out).strip(), (name, value, done)
    assert command.startswith("reproduce") or not list(tmp_path.iterdir()), "nothing is left"


@pytest.mark.parametrize("value", ["", " ", "my/photos", "/dev/null", "x" * 5000, "caf\udce9"])
@pytest.mark.parametrize("command", ["evaluate", "data check", "data fetch", "reproduce hero"])
def test_arguments(command: str, value: str, cocoop: Cocoop, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cocoop(*command.split(), value)
    assert done.status in (1, 2) and (done.err + done.out).strip()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("table1 --datasets ,", "',' is not a list"),
        ("table1 --methods coop,", "is not a list such as"),
        ("table1 --seeds \u00b2", "is not a list of numbers"),
        ("table1 --seeds -1", "seed is -1"),
        ("table1 --shard \u00b2/\u00b3", "is not i/n"),
        ("table1 --source icons_games", "table1 always has the same source"),
        ("shots --shots 4", "shots always has the same shots"),
        ("search --datasets icons_games", "always has the same datasets"),
        ("search --methods clip", "clip is not trained"),
        ("search --world paper", "The paper world has no data sets to choose settings"),
        ("table1 --cells /dev/null/x", "/dev/null/x cannot be written to"),
        ("table1 --out /dev/null/x", "/dev/null/x cannot be written to"),
        ("table1 --device meta", "no usable device 'meta'"),
        ("hero picture.jpg", "must end with .png"),
        ("hero /dev/null/x.png", "/dev/null cannot be written to"),
    ],
)
def test_reproduce_says_what_is_wrong(
    cocoop: Cocoop, command: str, told: str, tmp_path: Path
) -> None:
    done = cocoop("reproduce", *command.split(), COCOOP_CACHE=str(tmp_path))
    assert done.status in (1, 2)
    assert told in " ".join(done.err.replace("\u2502", " ").split())
