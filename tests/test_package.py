"""The package as a whole: public names, errors, annotations, the wheel, the files around it."""

import ast
import contextlib
import importlib
import importlib.metadata
import inspect
import json
import os
import pkgutil
import re
import statistics
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors import safe_open

import cocoop_tutorial
from cocoop_tutorial import errors, load_clip
from cocoop_tutorial.clip.load import ICON_CLIP
from cocoop_tutorial.datasets.icons import houses

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = sorted(Path(cocoop_tutorial.__file__).parent.rglob("*.py"))
MB = 1e6


@pytest.mark.parametrize("name", [n for n in cocoop_tutorial.__all__ if n != "__version__"])
def test_public_name_is_importable_and_documented(name: str) -> None:
    value = getattr(cocoop_tutorial, name)
    assert (inspect.getdoc(value) or "").strip()
    assert name in dir(cocoop_tutorial)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cocoop_tutorial.no_such_name


def test_every_error_is_also_a_builtin_one() -> None:
    kinds = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]
    assert len(kinds) >= 9
    for kind in kinds:
        assert issubclass(kind, errors.CocoopError)
        if kind is not errors.CocoopError:
            assert issubclass(kind, ValueError | RuntimeError | FileNotFoundError)


def test_near_names() -> None:
    assert errors.suggest("COCOOP", ["CoOp", "CoCoOp"]).startswith("Did you mean 'CoCoOp'")
    assert errors.suggest("zzz", ["one", "two"]) == "There are: one, two."
    assert errors.suggest("zzz", [f"name{i}" for i in range(50)]).endswith("and others.")


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    used = set()
    for path in FILES:
        used |= set(re.findall(r'needs_extra\("(\w+)"\)', path.read_text(encoding="utf-8")))
    assert used and used <= set(PROJECT["optional-dependencies"])
    with (
        pytest.raises(errors.MissingDataError, match=r'no_such_package.*cocoop_tutorial\[book\]"'),
        errors.needs_extra("book"),
    ):
        import no_such_package  # noqa: F401
    with pytest.raises(errors.MissingDataError, match="no-such"), errors.needs_extra("book"):
        importlib.metadata.version("no-such-package")


def test_every_module_imports() -> None:
    for module in pkgutil.walk_packages(cocoop_tutorial.__path__, "cocoop_tutorial."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_functions_are_annotated(path: Path) -> None:
    for node in functions(path):
        named = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        bare = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare, f"{path.name}:{node.lineno} {node.name}: {bare}"
        assert node.returns is not None, f"{path.name}:{node.lineno} {node.name}: returns"


def test_functions_are_short() -> None:
    package = Path(cocoop_tutorial.__file__).parent
    lengths = {
        f"{path.relative_to(package)} {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > 50} == {}
    assert statistics.median(lengths.values()) <= 10


# --- the shipped weights ---


def test_icon_clip_is_small_and_whole() -> None:
    assert sum(f.stat().st_size for f in ICON_CLIP.iterdir()) <= 40 * MB
    with safe_open(ICON_CLIP / "open_clip_model.safetensors", framework="pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]
    for tensor in tensors:
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float16
            assert tensor.isfinite().all()


def test_plain_open_clip_loads_icon_clip() -> None:
    name = f"local-dir:{ICON_CLIP}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(["an icon of a red apple.", "an icon of a bus."])
    clip = load_clip("icon-clip", device="cpu")
    with torch.no_grad():
        plain = model.eval().encode_text(tokens, normalize=True)
    ours = clip.encode_text(["an icon of a red apple.", "an icon of a bus."])
    torch.testing.assert_close(ours, plain)
    assert str(preprocess.transforms) == str(clip.preprocess.transforms)


def test_model_card_agrees_with_the_model() -> None:
    card = ModelCard.load(ICON_CLIP / "README.md")
    assert card.data.library_name == "open_clip" and card.data.license == "cc-by-sa-4.0"
    config = json.loads((ICON_CLIP / "open_clip_config.json").read_text())["model_cfg"]
    image, text = config["vision_cfg"], config["text_cfg"]
    blocks = ", ".join(map(str, image["layers"][:-1])) + f" and {image['layers'][-1]}"
    words = [f"{blocks} blocks", f"width {image['width']}", f"{image['image_size']}-pixel"]
    words += [f"{text['layers']} layers, width {text['width']}, {text['heads']} heads"]
    words += [f"{text['context_length']} tokens", f"{config['embed_dim']} dimensions"]
    assert [word for word in words if word not in card.content] == []
    for section in ("What it is", "What it was trained on", "Licence"):
        assert f"\n## {section}\n" in card.content


def test_model_card_names_the_houses() -> None:
    text = (ICON_CLIP / "README.md").read_text().split("## What it was trained on")[1]
    trained = text.split("No other house was used")[0]
    for house in houses.HOUSES:
        assert (f"| {house.name} |" in trained) == (house.role == "pretrain")


# --- the wheel ---


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built by the project's own build back end."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_wheel_holds_what_the_library_reads_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {i.filename: i.compress_size for i in archive.infolist()}
    package = {n: s for n, s in sizes.items() if not n.split("/")[0].endswith(".dist-info")}
    assert all(name.startswith("cocoop_tutorial/") for name in package)
    weights = {n: s for n, s in package.items() if "/weights/" in n}
    assert {n.rsplit("/", 1)[1] for n in weights} == {f.name for f in ICON_CLIP.iterdir()}
    assert sum(weights.values()) <= 20 * MB
    assert sum(sizes.values()) <= 21 * MB
    there = {Path(name) for name in package}
    assert {path.relative_to(ROOT) for path in FILES} <= there
    npm = Path("cocoop_tutorial/datasets/icons/npm")
    assert {npm / "package.json", npm / "package-lock.json"} <= there
    results = {p.name for p in (ROOT / "results").iterdir()}
    assert {p.name for p in there if p.parent.name == "results"} == results
    kinds = {path.suffix for path in there}
    assert kinds <= {".py", ".json", ".md", ".safetensors", ".html", ".css", ".js", ".svg", ".csv"}


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_the_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = """if True:
        from pathlib import Path
        import cocoop_tutorial
        from cocoop_tutorial import load_clip, load_result
        from cocoop_tutorial.datasets.icons import sources
        print(Path(cocoop_tutorial.__file__).parents[1].name)
        print(tuple(load_clip("icon-clip", device="cpu").encode_text(["a bus"]).shape))
        print("average" in load_result("paper_tables")["data"]["table1_base_to_new"]["values"])
        print(len(sources.lock()) > 20, sources.npm_folder())
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("COCOOP_")}
    env |= {"PYTHONPATH": str(tmp_path / "site"), "COCOOP_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    width = load_clip("icon-clip", device="cpu").embed_dim
    npm = tmp_path / "cache" / "npm"
    assert done.stdout.splitlines() == ["site", f"(1, {width})", "True", f"True {npm}"]


# --- the files around the package ---


def locked() -> list[tuple[Requirement, list[str]]]:
    """The packages of requirements.txt, each with its hashes."""
    lines = (ROOT / "requirements.txt").read_text().replace("\\\n", "").splitlines()
    pins = [line.split() for line in lines if line and not line.startswith(("#", "--"))]
    cuts = [next(i for i, word in enumerate(pin) if word.startswith("--")) for pin in pins]
    return [(Requirement(" ".join(p[:i])), p[i:]) for p, i in zip(pins, cuts, strict=True)]


def test_every_locked_package_has_its_version_and_hashes() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert "\n--only-binary :all:\n" in text, "nothing is built from source, which would run it"
    assert "://" not in text, "the index is the user's"
    for package, hashes in locked():
        assert re.fullmatch(r"==[\w.+!]+", str(package.specifier)), package
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), package


def test_the_lock_meets_the_lower_bounds() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"embedded", "book", "test", "cluster"}
    own = f"{PROJECT['name']}[embedded]"
    assert own in extras["book"], "the book draws its own pictures"
    found = {canonicalize_name(p.name): str(p.specifier)[2:] for p, _ in locked()}
    for text in (*PROJECT["dependencies"], *(r for group in extras.values() for r in group)):
        wanted = Requirement(text)
        if wanted.name == PROJECT["name"]:
            continue
        assert wanted.specifier.contains(found[canonicalize_name(wanted.name)]), text
    pinned = [r for r in PROJECT["dependencies"] if re.search(r"[=<~]=?\d", r.replace(">=", ""))]
    assert pinned == [], "the library itself has lower bounds only"


def test_the_lock_is_complete() -> None:
    """pip installs it without dependencies, so what a package needs must be there too."""
    here = [p for p, _ in locked() if p.marker is None or p.marker.evaluate()]
    names = {canonicalize_name(package.name) for package in here}
    assert len(names) == len(here), "one version of each for this Python and system"
    for package in here:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.distribution(package.name)
            of_this_version = package.specifier.contains(found.version)
            for needed in map(Requirement, found.requires or [] if of_this_version else []):
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    assert canonicalize_name(needed.name) in names, (package.name, str(needed))


def test_every_way_to_install_reads_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python, *others = environment["dependencies"]
    assert python == "python=3.11"
    assert [item["pip"] for item in others if isinstance(item, dict)] == [["-r requirements.txt"]]
    alone = "pip install --no-deps --no-build-isolation -e ."
    assert alone in (ROOT / "postBuild").read_text() and os.access(ROOT / "postBuild", os.X_OK)
    make = (ROOT / "Makefile").read_text().replace("install -q", "install")
    assert alone in make and "pip install --no-deps --require-hashes -r requirements.txt" in make


def test_actions_are_pinned_by_commit() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for line in re.findall(r"uses: (.*)", path.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line), (path.name, line)


def test_one_version_everywhere() -> None:
    version = PROJECT["version"]
    assert cocoop_tutorial.__version__ == version
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == version
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_changelog_names_every_chapter() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb"):
        assert re.search(rf"[Cc]hapters? [^.]*\b{int(path.name[:2])} \(", text), path.name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "data/README.md"])
def test_links_and_paths_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []
    tops = "|".join(path.name for path in ROOT.iterdir() if path.is_dir())
    paths = re.findall(rf"(?<![\w./])((?:{tops})/[\w./-]+)", text)
    made = [path for path in paths if not path.startswith("_build/") and "NAME" not in path]
    assert [path for path in made if not (ROOT / path).exists()] == []


def test_contributing_names_what_the_library_defines() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Where to add what")[1].split("## ")[0]
    for name, path in re.findall(r"`([A-Z]\w+)`[^|`]*`(cocoop_tutorial/[\w/]+\.py)`", table):
        defined = rf"^(class )?{name}\b"
        assert re.search(defined, (ROOT / path).read_text(), re.MULTILINE), f"{name} in {path}"


def test_readme_begins_with_the_two_commands_and_what_they_take() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1]
    assert "\nmake book" in first and "\nmake test" in first
    settings = ("two CPU cores", "GPU machine", "Colab", "conda")
    assert sorted(settings, key=text.index) == list(settings)
    folders = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    assert set(folders) >= {"book", "cocoop_tutorial", "data", "results", "tests", "benchmarks"}
    assert all((ROOT / folder).is_dir() for folder in folders)


@pytest.mark.slow
def test_the_readmes_example_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert "epochs=10" in code
    names: dict = {}
    exec(code.replace("epochs=10", "epochs=1"), names)
    assert len(names["history"]) and names["model"].clip is names["clip"]
