"""The embedded world: who drew what, splits without leaks, and builds that can be cut off."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cocoop_tutorial import Dataset, load_dataset
from cocoop_tutorial.datasets import emoji
from cocoop_tutorial.datasets.emoji import datasheet, drawings, making, sources
from cocoop_tutorial.errors import MissingDataError

MAIN = tuple(making.SUBGROUPS)
TEN = tuple(name for name in MAIN if name != emoji.SOURCE)
SMALL = "emoji_clothing"
# Shapes that leave a house no choice: their thumbnails agree although other hands drew them.
SAME_SHAPE = {
    "balloon", "crescent-moon", "droplet", "first-quarter-moon", "full-moon",
    "last-quarter-moon", "light-bulb", "new-moon", "star", "sunglasses",
    "waning-gibbous-moon", "waxing-crescent-moon",
}  # fmt: skip


@pytest.fixture(scope="module")
def datasets() -> dict[str, Dataset]:
    """All fifteen, built first where the cache lacks one."""
    emoji.build(progress=False)
    return {name: load_dataset(name) for name in emoji.NAMES}


def packages(role: str) -> list[sources.Package]:
    return [package for package in sources.PACKAGES if package.role == role]


def drawn_in(data: Dataset, *splits: str) -> set[tuple[str, str]]:
    """The drawings that the images of some splits are poses of."""
    return {emoji.drawing(path) for split in splits for path, _ in data.split(split).samples}


# --- houses ---


def test_pretraining_and_evaluation_share_no_house_and_no_drawing_set() -> None:
    train, test = packages("pretrain"), packages("evaluate")
    assert {p.role for p in sources.PACKAGES} == {"pretrain", "evaluate"}
    assert not {p.house for p in train} & {p.house for p in test}
    assert not {p.drawing_set for p in train} & {p.drawing_set for p in test}
    for drawing_set in {p.drawing_set for p in sources.PACKAGES}:
        assert len({p.house for p in sources.PACKAGES if p.drawing_set == drawing_set}) == 1


def test_all_renderings_of_a_drawing_belong_to_one_set() -> None:
    sets = {p.name: p.drawing_set for p in sources.PACKAGES}
    fluent = {sets[n] for n in sets if n.startswith("fluent-emoji")}
    assert fluent == {"fluent"}
    assert sets["emojione-monotone"] == sets["emojione"]


def test_datasets_are_made_of_evaluation_houses_only(datasets: dict[str, Dataset]) -> None:
    allowed = {p.drawing_set for p in packages("evaluate")}
    for data in datasets.values():
        assert {house for _, house in drawn_in(data, "train", "val", "test")} <= allowed


def test_no_evaluation_drawing_copies_a_pretraining_drawing() -> None:
    ours = [p.name for p in packages("evaluate")]
    theirs = [p.name for p in packages("pretrain") if p.emoji]
    slugs = {concept.slug for name in MAIN for concept in making.classes(name)}
    near, nearest, compared = Counter(), 0.0, 0
    for slug in slugs:
        mine = [making.thumbnail(p, slug) for p in ours if slug in sources.drawn(p)]
        other = [making.thumbnail(p, slug) for p in theirs if slug in sources.drawn(p)]
        for one in mine:
            alike = max((float(one @ two) for two in other), default=0.0)
            near[slug] += alike > making.SAME_DRAWING
            nearest, compared = max(nearest, alike), compared + 1
    assert compared > 2000
    assert {slug for slug, n in near.items() if n} <= SAME_SHAPE
    assert nearest < 0.995  # what a copied file would reach


def test_thumbnails_do_find_a_copy() -> None:
    """Google kept some drawings from one edition to the next: the measure must see them."""
    both = sources.drawn("noto").keys() & sources.drawn("noto-v1").keys()
    alike = [float(making.thumbnail("noto", s) @ making.thumbnail("noto-v1", s)) for s in both]
    assert max(alike) > 0.995
    copied = sum(a > making.SAME_DRAWING for a in alike)
    assert 0 < copied < len(alike) / 4


# --- splits ---


@pytest.mark.parametrize("name", MAIN)
def test_no_test_image_shares_a_drawing_with_a_shot(
    datasets: dict[str, Dataset], name: str
) -> None:
    data = datasets[name]
    assert not drawn_in(data, "test") & drawn_in(data, "train", "val")
    if name in TEN:
        assert not drawn_in(data, "train") & drawn_in(data, "val")


@pytest.mark.parametrize("name", MAIN)
def test_no_test_drawing_looks_like_a_training_drawing_of_its_class(
    datasets: dict[str, Dataset], name: str
) -> None:
    by_set = {p.drawing_set: p.name for p in reversed(packages("evaluate"))}
    tests = dict(drawn_in(datasets[name], "test"))
    assert len(tests) == len(datasets[name].classnames), "one test drawing a class"
    for slug, drawing_set in drawn_in(datasets[name], "train", "val"):
        one = making.thumbnail(by_set[drawing_set], slug)
        two = making.thumbnail(by_set[tests[slug]], slug)
        assert one @ two < making.SAME_DRAWING, (slug, drawing_set, tests[slug])


def test_the_splits_mix_the_same_houses(datasets: dict[str, Dataset]) -> None:
    houses = {p.drawing_set for p in packages("evaluate")}
    for split in ("train", "val", "test"):
        seen = Counter(h for n in TEN for _, h in drawn_in(datasets[n], split))
        assert seen.keys() == houses
        assert min(seen.values()) > 0.05 * seen.total()


def test_eleven_datasets_of_twenty_classes(datasets: dict[str, Dataset]) -> None:
    assert len(MAIN) >= 11
    for name in MAIN:
        data = datasets[name]
        k = len(data.classnames)
        assert k >= 20
        for split, poses in making.POSES.items():
            assert Counter(data.split(split).labels) == dict.fromkeys(range(k), poses)
    assert making.POSES["train"] >= 16


def test_class_names_are_natural(datasets: dict[str, Dataset]) -> None:
    everywhere = [name for n in MAIN for name in datasets[n].classnames]
    assert len(set(everywhere)) == len(everywhere), "a class is in one data set only"
    for name in everywhere:
        assert name == name.strip() and "_" not in name and ":" not in name and "’" not in name
        assert name[0].isalnum() and len(name.split()) <= 6
    for data in datasets.values():
        assert data.template == "an emoji of {}."
        assert data.classnames == sorted(data.classnames, key=str.casefold)


# --- shifts ---


def test_targets_have_the_source_classes_and_a_test_split_only(
    datasets: dict[str, Dataset],
) -> None:
    source = datasets[emoji.SOURCE].classnames
    for name in emoji.SHIFTS:
        data = datasets[name]
        assert not data.train.samples and not data.val.samples
        assert [c for c in source if c in set(data.classnames)] == data.classnames
        if name != "emoji_objects_a":
            assert data.classnames == source


def test_each_target_is_drawn_by_its_packages(datasets: dict[str, Dataset]) -> None:
    shot = drawn_in(datasets[emoji.SOURCE], "train", "val", "test")
    assert {house for _, house in shot} == {"noto", "noto-v1"}
    for name, allowed in emoji.SHIFTS.items():
        files = [path.stem.rsplit("-", 2)[0] for path, _ in datasets[name].test.samples]
        assert set(files) == set(allowed)
        assert not drawn_in(datasets[name], "test") & shot


def test_sketch_is_black_and_white() -> None:
    loaded = drawings.load("fluent-emoji-high-contrast", progress=False)
    for concept in making.classes("emoji_objects_sketch"):
        pixels = loaded.rgba[loaded.keys.index(concept.slug)]
        inked = pixels[pixels[..., 3] > 0, :3]
        assert len(inked) and int(inked.max()) == int(inked.min()) == 0, concept.slug


def test_hard_images_come_from_the_candidates(datasets: dict[str, Dataset]) -> None:
    hard, candidates = making.hard_pictures(), set(making.hard_candidates())
    assert len(set(hard)) == len(hard) and set(hard) < candidates
    files = {p.file for p in hard}
    stored = {"/".join(path.parts[-2:]) for path, _ in datasets["emoji_objects_a"].test.samples}
    assert stored == files


# --- the build ---


def test_every_image_is_as_it_was_made(datasets: dict[str, Dataset]) -> None:
    assert emoji.verify() == []
    assert emoji.summary().ready.all()


def test_images_are_the_same_in_every_build() -> None:
    digests = json.loads((making.folder(SMALL) / "meta.json").read_text())["sha256"]
    made = [picture for part in making.pictures(SMALL).values() for picture, _ in part]
    assert {picture.file for picture in made} == digests.keys()
    for picture in made[::97]:
        stored = Image.open(making.folder(SMALL) / "images" / picture.file)
        assert stored.size == (64, 64) and stored.mode == "RGB"
        assert np.array_equal(np.asarray(stored), np.asarray(making.compose(picture)))
        buffer = io.BytesIO()
        making.compose(picture).save(buffer, "PNG", compress_level=4)
        assert hashlib.sha256(buffer.getvalue()).hexdigest() == digests[picture.file]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own that has the drawings and no data set."""
    emoji.build(progress=False, names=(SMALL,))
    (tmp_path / "drawings").symlink_to(sources.cache_root() / "drawings")
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path))
    return tmp_path


def start_build(cache: Path) -> subprocess.Popen:
    code = (
        f"from cocoop_tutorial.datasets import emoji; emoji.build(False, names=({SMALL!r},))\n"
        "print('done')"
    )
    env = os.environ | {"COCOOP_CACHE": str(cache)}
    return subprocess.Popen([sys.executable, "-c", code], env=env, start_new_session=True)


def test_a_killed_build_leaves_nothing_half_made(cache: Path) -> None:
    process = start_build(cache)
    try:
        while process.poll() is None and len(list(cache.glob("datasets/.*/images/*/*.png"))) < 50:
            time.sleep(0.02)
        assert process.poll() is None, "the build ended before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert list(cache.glob("datasets/.*/images/*/*.png")), "it was killed in the middle"
    assert not making.folder(SMALL).exists()
    assert not making.is_fresh(SMALL)
    (left,) = cache.glob("datasets/.*")
    os.utime(left, (0, 0))  # of long ago
    data = load_dataset(SMALL)  # builds again, from the start
    assert not left.exists()
    assert making.is_fresh(SMALL)
    assert [line for line in emoji.verify() if SMALL in line] == []
    assert all(path.is_file() for path, _ in data.test.samples)


def test_a_stale_or_damaged_cache_is_noticed(cache: Path) -> None:
    data = load_dataset(SMALL)
    image = data.test.samples[0][0]
    image.write_bytes(b"no picture")
    assert [line for line in emoji.verify() if SMALL in line] == [f"{image}: changed"]
    image.unlink()
    assert [line for line in emoji.verify() if SMALL in line] == [f"{image}: missing"]
    with pytest.raises(FileNotFoundError, match=f"{image.name}.*cocoop data build"):
        load_dataset(SMALL)
    emoji.build(progress=False, names=(SMALL,))  # what the message says
    assert [line for line in emoji.verify() if SMALL in line] == []
    meta = making.folder(SMALL) / "meta.json"
    content = json.loads(meta.read_text())
    meta.write_text(json.dumps(content | {"fingerprint": "of another version"}))
    assert not making.is_fresh(SMALL)
    load_dataset(SMALL)  # stale: rebuilt
    assert json.loads(meta.read_text()) == content
    assert [line for line in emoji.verify() if SMALL in line] == []


def test_other_content_makes_the_cache_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    emoji.build(progress=False, names=(SMALL,))
    locked = sources.lock()
    for package in ("noto", "streamline-emojis"):
        changed = {k: dict(v) for k, v in locked.items()}
        changed[f"@iconify-json/{package}"]["integrity"] = "sha512-another"
        monkeypatch.setattr(sources, "lock", lambda changed=changed: changed)
        assert not drawings.is_fresh(package)
        assert not making.is_fresh(SMALL)
    monkeypatch.undo()
    assert drawings.is_fresh("noto") and making.is_fresh(SMALL)
    monkeypatch.setattr(making, "FORMAT", making.FORMAT + 1)
    assert not making.is_fresh(SMALL)


def test_drawings_that_were_cut_off_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = "streamline-emojis"  # the smallest
    whole = drawings.load(package, progress=False)
    shutil.copytree(sources.cache_root() / "drawings" / package, tmp_path / "drawings" / package)
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path))
    assert drawings.is_fresh(package)
    stored = tmp_path / "drawings" / package / "rgba.npy"
    os.truncate(stored, stored.stat().st_size // 2)
    assert not drawings.is_fresh(package)
    again = drawings.load(package, progress=False)
    assert again.keys == whole.keys and np.array_equal(again.rgba, whole.rgba)


# --- npm ---


def test_npm_comes_from_the_wheel_where_the_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = sources.npm_command()
    assert command[0] == sys.executable
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().count(".") == 2


def test_packages_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(sources.REPO_DATA / name, tmp_path / name)
    monkeypatch.setattr(sources, "REPO_DATA", tmp_path)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")  # nobody answers there
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(MissingDataError, match=r"(?s)npm could not install.*cocoop data build"):
        sources.install()


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"split_zhou_{SMALL}.json"):
        load_dataset(SMALL, root=tmp_path)
    shutil.copytree(making.folder(SMALL), tmp_path / SMALL)
    assert load_dataset(SMALL, root=tmp_path).test.samples[0][0].is_relative_to(tmp_path)


# --- the datasheet ---


def test_datasheet_tables_are_current(datasets: dict[str, Dataset]) -> None:
    text = (sources.REPO_DATA / "README.md").read_text(encoding="utf-8")
    assert datasheet.render(text) == text, "run python -m cocoop_tutorial.datasets.emoji.datasheet"
    table = datasheet.datasets().set_index("dataset")
    assert table.classes.to_dict() == {n: len(d.classnames) for n, d in datasets.items()}
    assert table.test.to_dict() == {n: len(d.test) for n, d in datasets.items()}


def test_datasheet_names_every_package_licence_and_author() -> None:
    text = (sources.REPO_DATA / "README.md").read_text(encoding="utf-8")
    pinned = json.loads((sources.REPO_DATA / "package.json").read_text())["dependencies"]
    for package, version in pinned.items():
        name = package.removeprefix("@iconify-json/")
        line = next(x for x in text.splitlines() if x.startswith((f"| [{name}]", f"| {name} ")))
        assert f" {version} " in line
    assert {p.name for p in sources.PACKAGES} == {
        p.removeprefix("@iconify-json/") for p in pinned if p.startswith("@iconify-json/")
    }


def test_datasheet_without_a_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="begin packages"):
        datasheet.render("no marks here")


def test_lock_has_hashes_and_no_registry_address() -> None:
    text = (sources.REPO_DATA / "package-lock.json").read_text()
    assert "resolved" not in text and "https://registry" not in text
    assert all(entry["integrity"].startswith("sha512-") for entry in sources.lock().values())
