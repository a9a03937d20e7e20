"""The official code's numbers: a small copy in tests/fixtures, or the folder $COCOOP_PARITY."""

import json
import lzma
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors.torch import load_file
from torch import Tensor

from cocoop_tutorial import CoCoOp, CoOp, FrozenCLIP

FIXTURE = Path(__file__).parents[1] / "fixtures" / "parity"
CASES = ("cocoop_words", "cocoop_random8", "coop_end", "coop_words")
SOURCES = ("fixture", "folder")


@dataclass(frozen=True)
class World:
    clip: FrozenCLIP
    facts: dict[str, Any]
    golden: dict[str, Tensor]
    folder: Path

    @property
    def classnames(self) -> list[str]:
        return self.facts["classnames"]

    @property
    def features(self) -> Tensor:
        return torch.nn.functional.normalize(self.golden["image_features"], dim=-1)

    def case(self, name: str) -> dict[str, Tensor]:
        """The numbers of one case, without its prefix."""
        start = name + "."
        return {k.removeprefix(start): v for k, v in self.golden.items() if k.startswith(start)}

    def model(self, name: str) -> CoOp | CoCoOp:
        """A new model of the case, before its first parameters are loaded."""
        facts = self.facts["cases"][name]
        kind = CoCoOp if facts["method"] == "cocoop" else CoOp
        return kind(self.clip, self.classnames, facts["n_ctx"], facts["ctx_init"])

    def checkpoint(self, name: str, folder: Path) -> Path:
        """The official checkpoint of a case, as a file."""
        file = f"{name}.model.pth.tar-10"
        if (self.folder / file).exists():
            return self.folder / file
        target = folder / file
        target.write_bytes(lzma.decompress((self.folder / f"{file}.xz").read_bytes()))
        return target


@cache
def load_world(source: str) -> World:
    """Reads one of SOURCES, or skips the test."""
    folder = FIXTURE if source == "fixture" else Path(os.environ.get("COCOOP_PARITY", ""))
    if source == "folder" and "COCOOP_PARITY" not in os.environ:
        pytest.skip("COCOOP_PARITY names no folder; the fixture holds the same cases")
    weights = load_file(folder / "openai_clip_fp16.safetensors")
    if "token_rows" in weights:  # the fixture keeps only the rows that its prompts use
        ids, rows = weights.pop("token_ids").long(), weights.pop("token_rows")
        table = torch.full((49408, rows.shape[1]), float("nan"))
        table[ids] = rows.float()
        weights["token_embedding.weight"] = table
    weights = {name: value.float() for name, value in weights.items()}
    model = build_model_from_openai_state_dict(weights, cast_dtype=torch.float32).float()
    return World(
        clip=FrozenCLIP(model, "parity"),
        facts=json.loads((folder / "golden.json").read_text()),
        golden=load_file(folder / "golden.safetensors"),
        folder=folder,
    )
