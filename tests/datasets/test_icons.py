"""The icon world: who drew what, splits without copies, and builds that can be cut off."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.icons import (
    copies,
    datasheet,
    drawings,
    hard,
    houses,
    making,
    names,
    sources,
)
from cocoop_tutorial.datasets.icons.names import Drawing
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.errors import DataError, FileError, MissingDataError
from cocoop_tutorial.files import read_json, write_json

GROUPS = (*icons.MAIN, *icons.SETTINGS)
SMALL = "icons_games"  # the fewest classes


@pytest.fixture(scope="module")
def datasets() -> dict[str, Dataset]:
    """All eighteen, built first where the cache lacks one."""
    icons.build(progress=False)
    return {name: icons.load(name) for name in icons.NAMES}


@pytest.fixture(scope="module")
def pool() -> ProcessPoolExecutor:
    with drawings.workers() as pool:
        yield pool


def shown(data: Dataset, *splits: str) -> dict[tuple[int, str, str], Path]:
    """Label, package and icon of each image of some splits."""
    found = {}
    for split in splits:
        for path, label in data.split(split).samples:
            facts = icons.facts(path)
            found[label, facts["package"], facts["icon"]] = path
    return found


def houses_of(data: Dataset, split: str) -> set[tuple[int, str]]:
    return {(label, icons.drawing(path)[0]) for path, label in data.split(split).samples}


# --- houses ---


def test_every_package_has_one_house_and_every_house_one_role() -> None:
    packages = [package for house in houses.TABLE for package in house.packages]
    assert len(set(packages)) == len(packages)
    assert {house.role for house in houses.TABLE} == {*houses.ROLES, "left out"}
    named = [house.name for house in houses.HOUSES]
    assert len(set(named)) == len(named) > 90
    assert all(house.reason and house.licence for house in houses.TABLE)


def test_editions_and_forks_are_of_one_house() -> None:
    of = {package: house.name for package, house in houses.by_package().items()}
    families = [
        ("fa-solid", "fa7-regular"), ("lucide", "feather"), ("ion", "famicons"), ("mdi", "noto"),
        ("material-symbols", "ic"), ("bx", "boxicons"), ("fluent", "fluent-emoji-flat"),
        ("streamline", "streamline-freehand"), ("la", "flat-color-icons"), ("ph", "ph"),
    ]  # fmt: skip
    for one, other in families:
        assert of[one] == of[other], (one, other)


def test_licences_allow_use_and_change_with_attribution() -> None:
    for house in houses.HOUSES:
        stated = {
            sources.read_json(f"@iconify-json/{package}", "info.json")["license"]["spdx"]
            for package in house.packages
        }
        assert stated == set(house.licence.split()), house.name
        assert not any("GPL" in licence or "NC" in licence for licence in stated)


def test_only_packages_in_use_are_pinned() -> None:
    pinned = json.loads((sources.REPO_DATA / "package.json").read_text())["dependencies"]
    drawn = {name for name in pinned if name.startswith("@iconify-json/")}
    assert {f"@iconify-json/{package}" for package in houses.by_package()} <= drawn
    assert all(version[0].isdigit() for version in pinned.values())
    lock = (sources.REPO_DATA / "package-lock.json").read_text()
    assert '"resolved"' not in lock, "a registry's address does not belong in the lock"


# --- names ---


@pytest.mark.parametrize(
    ("package", "icon", "concept", "medium"),
    [
        ("ph", "traffic-sign-duotone", "traffic sign", "duotone"),
        ("tabler", "plane-filled", "plane", "solid"),
        ("tabler", "plane", "plane", "outline"),
        ("solar", "home-2-bold-duotone", "home", "duotone"),
        ("solar", "home-bold", "home", "solid"),
        ("ic", "twotone-home", "home", "duotone"),
        ("bxs", "bus", "bus", "solid"),
        ("noto", "airplane", "airplane", "emoji"),
        ("streamline-pixel", "email-mailbox", "email mailbox", "pixel art"),
        ("lucide", "bell-off", "bell off", "outline"),
        ("fa6-solid", "bell-slash", "bell off", "solid"),
    ],
)
def test_style_becomes_the_medium(package: str, icon: str, concept: str, medium: str) -> None:
    (found,) = [drawing for drawing in names.read(package) if drawing.icon == icon]
    assert (found.concept, found.medium) == (concept, medium)


def test_a_word_that_is_no_style_stays() -> None:
    assert names.split_style("mdi", "traffic-light")[0] == ["traffic", "light"]
    assert names.split_style("mdi", "timeline-outline")[0] == ["timeline"]
    assert names.split_style("fa6-solid", "chart-line")[0] == ["chart", "line"]


def test_the_backbone_can_learn_ten_thousand_names() -> None:
    drawn = names.drawings("pretrain")
    concepts = {drawing.concept for drawing in drawn}
    assert len(concepts) > 10_000
    assert not any("skin tone" in concept for concept in concepts)
    assert all(concept == concept.lower().strip() and "_" not in concept for concept in concepts)
    assert sum(bool(drawing.subjects) for drawing in drawn) > 10_000
    assert sum(bool(drawing.synonyms) for drawing in drawn) > 5_000


# --- splits ---


def test_eleven_datasets_and_three_for_settings(datasets: dict[str, Dataset]) -> None:
    assert len(icons.MAIN) == 11 and len(icons.SETTINGS) == 3
    for name in GROUPS:
        data = datasets[name]
        classes = range(len(data.classnames))
        assert len(classes) >= 20
        for split, least in making.LEAST.items():
            count = Counter(data.split(split).labels)
            assert all(count[label] >= least for label in classes), (name, split)
    assert making.LEAST == {"train": 16, "val": 3, "test": 7}


@pytest.mark.parametrize("name", GROUPS)
def test_no_house_and_no_drawing_is_in_two_splits(datasets: dict[str, Dataset], name: str) -> None:
    data = datasets[name]
    splits = ("train", "val", "test")
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            assert not houses_of(data, one) & houses_of(data, other)
    images = sum(len(data.split(split)) for split in splits)
    assert len(shown(data, *splits)) == images, "one image per drawing"
    assert len({key[1:] for key in shown(data, *splits)}) == images, "one class per drawing"


@pytest.mark.parametrize("name", GROUPS)
def test_no_two_drawings_of_a_class_are_copies_and_none_of_the_backbones(
    datasets: dict[str, Dataset], name: str, pool: ProcessPoolExecutor
) -> None:
    data = datasets[name]
    by_label: dict[int, list[Drawing]] = {}
    for label, package, icon in shown(data, "train", "val", "test"):
        by_label.setdefault(label, []).append(Drawing(package, icon, "", "", ""))
    for label, classname in enumerate(data.classnames):
        mine = drawings.thumbnails(by_label[label], pool)
        alike = copies.correlations(mine, mine) - 2 * np.eye(len(mine))
        assert alike.max() <= copies.SAME, classname
        known = making.known(making.table()[name][classname])
        assert len(known) == 0 or (
            copies.correlations(mine, drawings.thumbnails(known, pool)).max() <= copies.SAME
        )


def test_datasets_are_drawn_by_source_houses(datasets: dict[str, Dataset]) -> None:
    role = {house.name: house.role for house in houses.HOUSES}
    for name in icons.NAMES:
        wanted = "shift" if name in icons.SHIFTS else "source"
        drawn_by = {image["house"] for image in making.images(name).values()}
        assert {role[house] for house in drawn_by} == {wanted}, name
        if name in GROUPS:
            assert len(drawn_by) >= 25


def test_class_names_are_natural_and_unique(datasets: dict[str, Dataset]) -> None:
    everywhere = [c for n in GROUPS if n != icons.SOURCE for c in datasets[n].classnames]
    assert [name for name, n in Counter(everywhere).items() if n > 1] == []
    for name in {*everywhere, *datasets[icons.SOURCE].classnames}:
        assert name == name.strip() and "_" not in name and ":" not in name
        assert name[0].isalnum() and len(name.split()) <= 6
    for data in datasets.values():
        assert data.classnames == sorted(data.classnames, key=str.casefold)


def test_a_name_belongs_to_one_class_of_a_dataset() -> None:
    for name, classes in making.table().items():
        concepts = [concept for row in classes.values() for concept in row]
        assert [c for c, n in Counter(concepts).items() if n > 1] == [], name


def test_the_medium_of_every_image_is_recorded(datasets: dict[str, Dataset]) -> None:
    for name in icons.NAMES:
        for split in ("train", "val", "test"):
            for path, _ in datasets[name].split(split).samples:
                assert icons.medium(path) in making.media(name)
    for name in GROUPS:
        media = Counter(icons.medium(path) for path, _ in datasets[name].train.samples)
        assert {"outline", "solid", "duotone"} <= media.keys()
    path = datasets[SMALL].test.samples[0][0]
    house, icon = icons.drawing(path)
    assert house in {h.name for h in houses.HOUSES} and icon.replace(":", "--") == path.stem
    with pytest.raises(KeyError):
        icons.medium(path.with_name("nobody--nothing.png"))


def test_too_few_drawings_are_named() -> None:
    few = [Drawing("p", f"i{i}", f"house {i}", "thing", "outline") for i in range(25)]
    with pytest.raises(DataError, match="a class: 25 drawings by 25 houses"):
        making.divide(few, "a class")
    parts = making.divide([*few, Drawing("p", "i25", "house 25", "thing", "outline")], "a class")
    assert {split: len(part) for split, part in parts.items()} == making.LEAST


# --- copies ---


def test_copies_are_found_and_the_first_is_kept() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 400), dtype=np.uint8)
    nearly = np.clip(one.astype(int) + rng.integers(-9, 10, 400), 0, 255).astype(np.uint8)
    empty = np.zeros(400, dtype=np.uint8)
    assert copies.distinct(np.stack([one, other, nearly, empty])) == [0, 1]
    assert copies.distinct(np.stack([one, other]), forbidden=nearly[None]) == [1]
    expected = np.corrcoef(one, other)[0, 1]
    assert copies.correlations(one[None], other[None])[0, 0] == pytest.approx(expected)


def test_a_forks_drawing_is_a_copy(pool: ProcessPoolExecutor) -> None:
    pairs = [("ion", "bicycle", "famicons", "bicycle"), ("mi", "cloud", "mono-icons", "cloud")]
    for package, icon, other, also in pairs:
        thumbs = drawings.thumbnails(
            [Drawing(package, icon, "", "", ""), Drawing(other, also, "", "", "")], pool
        )
        assert len(copies.distinct(thumbs)) == 1, (icon, also)


# --- shifts ---


def test_targets_have_the_source_classes_and_a_test_split_only(
    datasets: dict[str, Dataset],
) -> None:
    source = datasets[icons.SOURCE].classnames
    for name in icons.SHIFTS:
        data = datasets[name]
        assert not data.train.samples and not data.val.samples
        assert [c for c in source if c in set(data.classnames)] == data.classnames
        assert len(data.classnames) >= 40
        assert max(Counter(data.test.labels).values()) <= making.MOST_SHIFTED


def test_the_source_holds_no_medium_of_sketch_and_renditions(
    datasets: dict[str, Dataset],
) -> None:
    held = {image["medium"] for image in making.images(icons.SOURCE).values()}
    for name in ("icons_general_sketch", "icons_general_r"):
        media = {image["medium"] for image in making.images(name).values()}
        assert media == set(icons.SHIFTS[name]) and not media & held
    assert {image["medium"] for image in making.images("icons_general_v2").values()} <= held


def test_hard_images_are_those_that_the_other_model_gets_wrong(
    datasets: dict[str, Dataset],
) -> None:
    seen, labels = [], []
    source = datasets[icons.SOURCE]
    for path, label in source.train.samples:
        seen.append(features(path))
        labels.append(source.classnames[label])
    data = datasets["icons_general_a"]
    for path, label in data.test.samples[::7]:
        nearest = labels[int((np.stack(seen) @ features(path)).argmax())]
        assert nearest != data.classnames[label], path


def features(path: Path) -> np.ndarray:
    return hard.gradients(np.asarray(Image.open(path).convert("L"), dtype=np.float64))


# --- the build ---


def test_every_image_is_as_it_was_made(datasets: dict[str, Dataset]) -> None:
    assert icons.verify() == []
    assert icons.summary().ready.all()


def test_images_are_the_same_in_every_build(
    datasets: dict[str, Dataset], pool: ProcessPoolExecutor
) -> None:
    parts = making.plan(SMALL, pool)
    stored = making.images(SMALL)
    made = [picture for part in parts.values() for picture in part]
    assert {picture.file for picture in made} == stored.keys()
    for picture in made[::97]:
        content = drawings.png(picture.svg())
        assert hashlib.sha256(content).hexdigest() == stored[picture.file]["sha256"]
        image = Image.open(io.BytesIO(content))
        assert image.size == (64, 64) and image.mode == "RGB"


def test_ink_stands_out_from_the_background() -> None:
    for seed in range(200):
        random = drawings.rng("ink", seed)
        behind = np.mean(drawings.background(random), axis=0)
        ink = drawings.ink(random, behind)
        levels = [int(ink[i : i + 2], 16) for i in (1, 3, 5)]
        assert abs(np.mean(levels) - behind.mean()) > 78


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path))
    return tmp_path


def test_a_stale_or_damaged_cache_is_noticed(datasets: dict[str, Dataset], cache: Path) -> None:
    made = Path(datasets[SMALL].test.samples[0][0]).parents[2]
    shutil.copytree(made, making.folder(SMALL))
    image = icons.load(SMALL).test.samples[0][0]
    image.write_bytes(b"no picture")
    assert making.damage(SMALL) == [f"{image}: changed"]
    image.unlink()
    assert [line for line in icons.verify() if SMALL in line] == [f"{image}: missing"]
    with pytest.raises(FileNotFoundError, match=f"{image.name}.*cocoop data build"):
        icons.load(SMALL)
    meta = making.folder(SMALL) / "meta.json"
    content = read_json(meta, "")
    meta.write_text(meta.read_text().replace("outline", "solid", 1))
    assert not making.is_fresh(SMALL), "the list of images was changed"
    write_json(meta, {key: content[key] for key in ("fingerprint", "images")})
    assert not making.is_fresh(SMALL), "an older cache, whose split file has no digest"
    write_json(meta, content | {"fingerprint": "of another version"})
    assert not making.is_fresh(SMALL)
    icons.load(SMALL)  # stale: made again
    assert json.loads(meta.read_text())["images"] == content["images"]
    assert making.damage(SMALL) == []
    split = making.split_file(SMALL)
    split.write_text(split.read_text().replace(", 1, ", ", 0, ", 1))
    assert making.damage(SMALL) == [f"{split}: changed"]
    split.write_text("[")
    with pytest.raises(DataError, match=f"{split.name} is not JSON"):
        icons.summary()


def test_other_content_makes_the_cache_stale(
    datasets: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert making.is_fresh(SMALL)
    changed = {key: dict(entry) for key, entry in sources.lock().items()}
    changed["@iconify-json/tabler"]["integrity"] = "sha512-another"
    monkeypatch.setattr(sources, "lock", lambda: changed)
    assert not making.is_fresh(SMALL)
    monkeypatch.undo()
    monkeypatch.setattr(drawings, "FORMAT", drawings.FORMAT + 1)
    assert not making.is_fresh(SMALL)


# --- npm ---


def test_npm_comes_from_the_wheel_where_the_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = sources.npm_command()
    assert command[0] == sys.executable
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().count(".") == 2


@pytest.fixture
def no_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own without packages, and an npm that nobody answers."""
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(sources.REPO_DATA / name, tmp_path / name)
    monkeypatch.setattr(sources, "REPO_DATA", tmp_path)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    return tmp_path


def test_packages_that_cannot_be_fetched(no_packages: Path) -> None:
    with pytest.raises(MissingDataError, match=r"(?s)npm could not install.*Check the network"):
        sources.install()


def test_a_full_disk_is_not_blamed_on_the_network(
    no_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = no_packages / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOSPC' >&2; exit 228\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(no_packages), prepend=os.pathsep)
    with pytest.raises(FileError, match=r"ENOSPC. Free some space, then run"):
        sources.install()


def test_a_package_that_is_cut_off_is_installed_again(
    no_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """npm's own list says that everything is there, and is not believed."""
    cut = no_packages / "node_modules/@iconify-json/tabler/icons.json"
    cut.parent.mkdir(parents=True)
    cut.write_text('{"icons": {"plane"')
    have = {f"node_modules/{name}": entry for name, entry in sources.lock().items()}
    (no_packages / sources.MARKER).write_text(json.dumps({"packages": have}))
    sources.install()  # does nothing
    with pytest.raises(MissingDataError, match="npm could not install"):
        sources.read_json("@iconify-json/tabler", "icons.json")


def test_a_wrong_folder_is_named(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"split_zhou_{SMALL}.json"):
        icons.load(SMALL, root=tmp_path)
    shutil.copytree(making.folder(SMALL), tmp_path / SMALL)
    assert icons.load(SMALL, root=tmp_path).test.samples[0][0].is_relative_to(tmp_path)


# --- the datasheet ---


def test_datasheet_tables_are_current(datasets: dict[str, Dataset]) -> None:
    text = datasheet.FILE.read_text(encoding="utf-8")
    assert datasheet.render(text) == text, "run python -m cocoop_tutorial.datasets.icons.datasheet"


def test_a_lost_mark_of_the_datasheet_is_named() -> None:
    with pytest.raises(DataError, match="begin houses"):
        datasheet.render("nothing")
