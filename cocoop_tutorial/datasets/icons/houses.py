"""Who draws: the houses, their packages, and what each may be used for (chapter 2).

A *house* is a group of people who draw. Forks and editions of one house stay together, because
they share drawings. `houses.csv` is the whole table: all of Iconify's sets, also those left out,
each with the reason. Roles were given before any model was trained and are disjoint:

- `pretrain`: the backbone learns from these houses, and from nothing else;
- `source`: the datasets are drawn by these;
- `shift`: the shifted test sets are drawn by these.
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROLES = ("pretrain", "source", "shift")


@dataclass(frozen=True)
class House:
    """One row of `houses.csv`.

    Attributes:
        name: Empty for rows of what is left out.
        role: One of `ROLES`, or "left out".
        packages: Names under `@iconify-json/`, each with the medium of an icon whose name tells
            no style.
        licence: SPDX names, one or more.
        reason: Why it has this role.
    """

    name: str
    role: str
    packages: dict[str, str]
    licence: str
    reason: str


def rows(table: str) -> list[dict[str, str]]:
    """The rows of one of this folder's tables, for example those of `houses.csv`."""
    text = Path(__file__).with_name(f"{table}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _house(row: dict[str, str]) -> House:
    pairs = (entry.partition(":") for entry in row["packages"].split())
    packages = {name: medium.replace("_", " ") for name, _, medium in pairs}
    return House(row["house"], row["role"], packages, row["licence"], row["reason"])


TABLE: tuple[House, ...] = tuple(map(_house, rows("houses")))
HOUSES: tuple[House, ...] = tuple(house for house in TABLE if house.role in ROLES)


@lru_cache(maxsize=1)
def by_package() -> dict[str, House]:
    """The house of each package in use."""
    return {package: house for house in HOUSES for package in house.packages}


def packages(role: str) -> list[str]:
    """The packages of a role, in the table's order."""
    return [package for house in HOUSES if house.role == role for package in house.packages]
