"""Every `cocoop` command that the book or the README prints exists, with its options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import BOOK, NOTEBOOKS, ROOT, markdown_of, read_source
from program import Cocoop

BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def printed() -> Iterator[tuple[str, str]]:
    """Pages and their texts."""
    for path in (ROOT / "README.md", *BOOK.glob("*.md")):
        yield path.name, path.read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        yield name, markdown_of(read_source(name))


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `cocoop` in the bash blocks of a page."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0]:  # settings before a command
                words.pop(0)
            if words and Path(words[0]).name == "cocoop":
                yield words[1:]


def test_every_printed_command_exists(cocoop: Cocoop) -> None:
    found = [(page, words) for page, text in printed() for words in commands(text)]
    assert len(found) >= 10
    for page, words in found:
        # The program reads all options before it shows the help, and runs nothing.
        result = cocoop(*words, "--help")
        assert result.status == 0, f"{page}: cocoop {shlex.join(words)}\n{result.err}"


@pytest.mark.parametrize("text", ["reproduce table99", "reproduce table1 --wrld paper", "fly"])
def test_a_wrong_command_is_noticed(cocoop: Cocoop, text: str) -> None:
    assert cocoop(*shlex.split(text), "--help").status != 0
