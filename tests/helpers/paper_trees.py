"""The paper's fifteen data sets as small trees in the official layout, each with its quirks."""

import json
from collections.abc import Callable
from pathlib import Path

from cocoop_tutorial.datasets.paper import SOURCES, folder_of

MakeImage = Callable[[Path, int], Path]
SPLITS = ("train", "val", "test")

# Data sets with a split file: class name to image path, in the split file's spelling; "{}" is a
# number, or "{s}" a split. The names are not always those of the folders.
SPLIT_FILES = {
    "caltech101": {"face": "Faces/image_{:04d}.jpg", "airplane": "airplanes/image_{:04d}.jpg"},
    "oxford_pets": {
        "abyssinian": "Abyssinian_{}.jpg",
        "american_bulldog": "american_bulldog_{}.jpg",
    },
    "stanford_cars": {
        "2000 AM General Hummer SUV": "cars_{s}/1{:04d}.jpg",
        "2012 Acura TL Sedan": "cars_{s}/2{:04d}.jpg",
    },
    "oxford_flowers": {
        "pink primrose": "image_1{:04d}.jpg",
        "canterbury bells": "image_2{:04d}.jpg",
    },
    "food101": {"apple_pie": "apple_pie/1{}.jpg", "baby_back_ribs": "baby_back_ribs/2{}.jpg"},
    "sun397": {"abbey": "a/abbey/sun_a{}.jpg", "indoor apse": "a/apse/indoor/sun_b{}.jpg"},
    "dtd": {"banded": "banded/banded_{:04d}.jpg", "blotchy": "blotchy/blotchy_{:04d}.jpg"},
    "eurosat": {
        "Annual Crop Land": "AnnualCrop/AnnualCrop_{}.jpg",
        "Sea or Lake": "SeaLake/SeaLake_{}.jpg",
    },
    "ucf101": {
        "Apply_Eye_Makeup": "Apply_Eye_Makeup/v_ApplyEyeMakeup_g{:02d}_c01.jpg",
        "Yo_Yo": "Yo_Yo/v_YoYo_g{:02d}_c01.jpg",
    },
}  # fmt: skip
# What else lies in the folders, and is neither a class nor an image of the split.
BESIDE = {
    "caltech101": ("101_ObjectCategories/BACKGROUND_Google/a.jpg",
                   "101_ObjectCategories/Faces_easy/a.jpg"),
    "oxford_pets": ("images/Abyssinian_100.mat", "annotations/list.txt"),
    "stanford_cars": ("cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"),
    "imagenet_a": ("imagenet-a/README.txt",),
    "imagenet_r": ("imagenet-r/README.txt",),
}  # fmt: skip
# ImageNet's classes, in the order of classnames.txt; two of the real list share a name, too.
WNIDS = {
    "n01440764": "tench",
    "n02510455": "giant panda",
    "n03773504": "missile",
    "n04008634": "missile",
}
VARIANTS = ("707-320", "F/A-18")


def plant(name: str, root: Path, make_image: MakeImage) -> Path:
    """Makes a data set of two to four classes, with an image of each in each of its splits.

    Returns:
        Its folder.
    """
    folder = root / folder_of(name)
    if name in SPLIT_FILES:
        _with_split_file(name, folder, make_image)
    elif name == "fgvc_aircraft":
        _aircraft(folder, make_image)
    else:
        _imagenet(name, folder, make_image)
    for path in BESIDE.get(name, ()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("not part of the data set")
    return folder


def _with_split_file(name: str, folder: Path, make_image: MakeImage) -> None:
    content: dict[str, list] = {split: [] for split in SPLITS}
    for label, (classname, form) in enumerate(SPLIT_FILES[name].items()):
        for i, split in enumerate(SPLITS):
            path = form.format(i, s="test" if split == "test" else "train")
            make_image(folder / SOURCES[name].images / path, 10 * label + i)
            content[split].append([path, label, classname])
    (folder / SOURCES[name].split).write_text(json.dumps(content))


def _aircraft(folder: Path, make_image: MakeImage) -> None:
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    for label, variant in enumerate(VARIANTS):
        for i, split in enumerate(SPLITS):
            image = f"{label}{i:06d}"
            make_image(folder / "images" / f"{image}.jpg", 10 * label + i)
            lines[split].append(f"{image} {variant}")
    (folder / "variants.txt").write_text("\n".join(VARIANTS) + "\n")
    for split, content in lines.items():
        (folder / f"images_variant_{split}.txt").write_text("\n".join(content) + "\n")


def _imagenet(name: str, folder: Path, make_image: MakeImage) -> None:
    folder.mkdir(parents=True)
    names = "".join(f"{wnid} {classname}\n" for wnid, classname in WNIDS.items())
    (folder / "classnames.txt").write_text(names)
    for label, wnid in enumerate(WNIDS):
        if name == "imagenet":
            for i, image in enumerate(("train/{}/1.JPEG", "train/{}/0.JPEG", "val/{}/2.JPEG")):
                make_image(folder / "images" / image.format(wnid), 10 * label + i)
        elif name == "imagenetv2":  # its folders have the labels as names
            images = folder / "imagenetv2-matched-frequency-format-val"
            make_image(images / str(label) / "3.jpeg", label)
        elif name == "imagenet_sketch":
            make_image(folder / "images" / wnid / "sketch_4.JPEG", label)
        elif label % 2 == 0:  # -A and -R have 200 of the 1,000 classes
            make_image(folder / name.replace("_", "-") / wnid / "5.jpg", label)
