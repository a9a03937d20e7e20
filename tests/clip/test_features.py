"""Image features are kept in memory and on disk, and never outlive what they follow from."""

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from small_clips import small_clip
from torch import Tensor, nn

from cocoop_tutorial import FrozenCLIP, ImageFolder, Split, image_features
from cocoop_tutorial.clip import features as module
from cocoop_tutorial.clip.features import clear_cache
from cocoop_tutorial.clip.identity import describe_transform


class Counter:
    """Counts how often an image tower runs."""

    def __init__(self, clip: FrozenCLIP) -> None:
        self.runs, self.forward = 0, clip.model.visual.forward

    def __call__(self, images: Tensor) -> Tensor:
        self.runs += 1
        return self.forward(images)


@pytest.fixture
def clip() -> FrozenCLIP:
    return deepcopy(small_clip())


@pytest.fixture
def tower(clip: FrozenCLIP) -> Counter:
    clip.model.visual.forward = Counter(clip)
    return clip.model.visual.forward


@pytest.fixture
def split(image_folder: Path) -> Split:
    return ImageFolder(image_folder).train


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's features are kept."""
    monkeypatch.setenv("COCOOP_FEATURES", "1")
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path / "cache"))
    clear_cache()
    return tmp_path / "cache" / "features"


def features_of(clip: FrozenCLIP, split: Split, **options: object) -> Tensor:
    """The features as a new process would get them."""
    clear_cache()
    return image_features(clip, split, **options)[0]


def test_another_process_finds_them_on_disk(clip: FrozenCLIP, tower: Counter, split: Split) -> None:
    first = features_of(clip, split)
    assert tower.runs == 1
    again = features_of(clip, split)
    assert tower.runs == 1 and torch.equal(again, first)
    assert image_features(clip, split)[0] is again
    assert torch.equal(image_features(clip, split, cache=False)[0], first)
    clear_cache(disk=True)
    features_of(clip, split)
    assert tower.runs == 3


def test_they_are_known_by_content_not_by_path(
    clip: FrozenCLIP, tower: Counter, split: Split, tmp_path: Path
) -> None:
    first = features_of(clip, split)
    copy = Split(
        [(shutil.copy(p, tmp_path / f"{i}.png"), 0) for i, (p, _) in enumerate(split.samples)]
    )
    assert torch.equal(features_of(clip, copy), first) and tower.runs == 1
    assert torch.equal(features_of(clip, Split(split.samples[::-1])), first.flip(0))


@pytest.mark.parametrize("wait", [False, True], ids=["at once", "later"])
def test_an_image_that_was_replaced_is_seen(
    clip: FrozenCLIP, split: Split, wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wait:
        monkeypatch.setattr("cocoop_tutorial.datasets.images.SETTLED", -1.0)
    before = image_features(clip, split)[0]
    path, other = split.samples[0][0], split.samples[-1][0]
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    shutil.copyfile(other, path)
    os.utime(path, ns=times)  # as some tools do
    after = image_features(clip, split)[0]
    assert torch.equal(after[0], after[-1]) and not torch.equal(after[0], before[0])


def test_features_that_the_caller_changed_are_computed_again(
    clip: FrozenCLIP, split: Split
) -> None:
    first = image_features(clip, split)[0].clone()
    for change in (
        lambda x: x.mul_(2),
        lambda x: x.data.mul_(2),
        lambda x: x.data.copy_(x.flip(0)),
    ):
        change(image_features(clip, split)[0])
        assert torch.equal(image_features(clip, split)[0], first)


def test_features_computed_in_inference_mode_can_be_trained_on(
    clip: FrozenCLIP, split: Split
) -> None:
    with torch.inference_mode():
        found = [*image_features(clip, split), *image_features(clip, split, cache=False)]
    clear_cache()
    with torch.inference_mode():
        found += image_features(clip, split)  # from disk
    assert not any(value.is_inference() for value in found)


def test_equal_weights_with_another_activation_do_not_share(split: Split) -> None:
    plain, quick = small_clip("vit-gelu"), deepcopy(small_clip("vit-quickgelu"))
    quick.load_state_dict(plain.state_dict())
    assert not torch.equal(features_of(plain, split), features_of(quick, split))


def test_random_and_unknown_transforms_are_not_on_disk(
    clip: FrozenCLIP, tower: Counter, split: Split, folder: Path
) -> None:
    assert describe_transform(clip.preprocess) and not describe_transform(clip.preprocess_train)
    first = image_features(clip, split, clip.preprocess_train)[0]
    assert not torch.equal(image_features(clip, split, clip.preprocess_train)[0], first)

    def upside_down(image: object) -> Tensor:
        return clip.preprocess(image).flip(1)

    assert (
        image_features(clip, split, upside_down)[0] is image_features(clip, split, upside_down)[0]
    )
    assert tower.runs == 3 and not folder.exists()


def test_a_tower_of_ones_own_is_not_on_disk(split: Split, folder: Path) -> None:
    """The code of a notebook may change while its names stay."""

    class Negative(nn.GELU):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    clip = deepcopy(small_clip())
    clip.model.visual.transformer.resblocks[0].mlp.gelu = Negative()
    assert image_features(clip, split)[0] is image_features(clip, split)[0]
    assert not folder.exists()


@pytest.mark.parametrize("place", [0, 20, -200, -1])
def test_a_damaged_file_is_computed_again(
    clip: FrozenCLIP, tower: Counter, split: Split, folder: Path, place: int
) -> None:
    first = features_of(clip, split)
    (file,) = folder.iterdir()
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    for damaged in (bytes(data), bytes(data[:100]), b""):
        file.write_bytes(damaged)
        runs = tower.runs
        assert torch.equal(features_of(clip, split), first) and tower.runs == runs + 1
        assert torch.equal(features_of(clip, split), first) and tower.runs == runs + 1


def test_a_file_under_another_name_is_not_believed(
    clip: FrozenCLIP, split: Split, folder: Path
) -> None:
    first, few = features_of(clip, split), Split(split.samples[:4])
    (file,) = folder.iterdir()
    features_of(clip, few)
    (other,) = set(folder.iterdir()) - {file}
    shutil.copyfile(file, other)
    assert torch.equal(features_of(clip, few), image_features(clip, few, cache=False)[0])
    assert len(first) != len(few)


def test_a_folder_that_cannot_be_written_stops_nothing(
    clip: FrozenCLIP, tower: Counter, split: Split, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path / "file"))
    assert torch.equal(features_of(clip, split), features_of(clip, split)) and tower.runs == 2


FULL_DISK = """
import resource, signal, sys
from small_clips import small_clip
from cocoop_tutorial import ImageFolder, image_features
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # no file may grow beyond this
print(image_features(small_clip(), ImageFolder(sys.argv[1]).train)[0].shape[0])
"""


def process(code: str, *arguments: Path) -> subprocess.Popen[str]:
    helpers = Path(__file__).parents[1] / "helpers"
    path = os.pathsep.join([str(helpers), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk_stops_nothing(image_folder: Path, folder: Path) -> None:
    out, _ = process(FULL_DISK, image_folder).communicate()
    assert out == "15\n" and not list(folder.iterdir())


def test_the_least_recently_used_are_removed(
    clip: FrozenCLIP, split: Split, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Split([sample]) for sample in split.samples[:4]]
    files = []
    for i, part in enumerate(parts[:3]):
        features_of(clip, part)
        (new,) = set(folder.iterdir()) - set(files)
        os.utime(new, (i, i))
        files.append(new)
    features_of(clip, parts[0])  # now the most recently used
    monkeypatch.setattr(module, "DISK_BYTES", 3 * files[0].stat().st_size)
    features_of(clip, parts[3])
    assert files[0].exists() and not files[1].exists() and files[2].exists()
    monkeypatch.setattr(module, "DISK_BYTES", 10)
    clear_cache(disk=True)
    features_of(clip, parts[3])
    assert not list(folder.iterdir()), "an entry larger than the limit is not written"


def test_what_killed_processes_left_is_removed(
    clip: FrozenCLIP, split: Split, folder: Path
) -> None:
    folder.mkdir(parents=True)
    for name in ("old", "new"):
        (folder / f".{name}.part").touch()
    os.utime(folder / ".old.part", (0, 0))
    features_of(clip, split)
    assert not (folder / ".old.part").exists() and (folder / ".new.part").exists()


WRITER = """
import sys, torch
from small_clips import small_clip
from cocoop_tutorial import ImageFolder, Split, image_features
from cocoop_tutorial.clip import features
torch.set_num_threads(1)
features.DISK_BYTES = 2500  # a few entries, so that writers remove each other's
clip, samples = small_clip(), ImageFolder(sys.argv[1]).train.samples
for _ in range(3):
    for n in range(1, 5):
        features.clear_cache()
        kept = image_features(clip, Split(samples[:n]))[0]
        assert torch.equal(kept, image_features(clip, Split(samples[:n]), cache=False)[0])
"""


@pytest.mark.slow
def test_several_writers(image_folder: Path, folder: Path) -> None:
    writers = [process(WRITER, image_folder) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert all(file.suffix == ".safetensors" for file in folder.iterdir())
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4 * 2500
