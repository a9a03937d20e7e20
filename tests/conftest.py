"""What several test files share. Models that are small but real are in small_clips.py."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from program import Cocoop, Result
from safetensors.torch import save_file

torch.set_num_threads(1)
# A slow machine is no failure: no deadlines. The same examples every time.
settings.register_profile("here", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("here")

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a small open_clip model directory and returns it."""
    import open_clip

    def save(config: dict = TINY, custom: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("model")
        content = {**config, **({"custom_text": True} if custom else {})}
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": content, "preprocess_cfg": {"mean": [0.5] * 3}})
        )
        kind = open_clip.model.CustomTextCLIP if custom else open_clip.CLIP
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            save_file(kind(**config).state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return save


@pytest.fixture(scope="session")
def model_dir(save_model: Callable[..., Path]) -> Path:
    """A ResNet CLIP of 0.9 M parameters as an open_clip model directory."""
    return save_model()


@pytest.fixture
def make_image() -> Callable[[Path, int], Path]:
    """A function that writes a small picture: noise, a different one for each seed."""

    def make(path: Path, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def image_folder(tmp_path: Path, make_image: Callable[[Path, int], Path]) -> Path:
    """Three classes of ten PNG pictures each: cat, dog, sea_lion."""
    root = tmp_path / "pets"
    for k, name in enumerate(["cat", "dog", "sea_lion"]):
        for i in range(10):
            make_image(root / name / f"{i:02d}.png", 100 * k + i)
    return root


@pytest.fixture(scope="session")
def caltech_root() -> Path:
    """The folder that holds the real `caltech-101`, or a skip."""
    root = Path(os.environ.get("COCOOP_DATA", ""))
    if "COCOOP_DATA" not in os.environ or not (root / "caltech-101").is_dir():
        pytest.skip("COCOOP_DATA names no folder with caltech-101 in it")
    return root


@pytest.fixture
def cocoop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cocoop:
    """Runs the program in this process: status, standard output, standard error."""
    from cocoop_tutorial.cli.main import main

    def run(*args: object, **env: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["cocoop", *map(str, args)])
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stop:
            main()
        return Result(int(stop.value.code or 0), *capsys.readouterr())

    return run
