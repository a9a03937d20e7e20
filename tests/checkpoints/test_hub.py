import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from hub_server import hub_server
from huggingface_hub import ModelCard
from learners import NAMES, assert_same, shaken
from markdown_it import MarkdownIt
from safetensors.torch import save_file
from small_clips import TEXT, VIT, small_clip

from cocoop_tutorial import CoCoOp, CoOp, load_clip
from cocoop_tutorial.errors import CheckpointError, MissingDataError
from cocoop_tutorial.models.prompt_learner import PromptLearner


def test_a_local_folder(tmp_path: Path) -> None:
    model = shaken(CoCoOp(small_clip(), NAMES))
    folder = model.save_pretrained(tmp_path / "my-prompt", {"epochs": 10})
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert_same(CoCoOp.from_pretrained(folder, model.clip), model)
    assert_same(PromptLearner.from_pretrained(str(folder), model.clip), model)
    other = CoCoOp.from_pretrained(folder, model.clip, ["ketch"])
    assert_same(other, model.with_classnames(["ketch"]))
    config = json.loads((folder / "config.json").read_text())
    assert config["method"] == "CoCoOp"
    assert config["training"] == {"epochs": 10}
    assert config["classnames"] == NAMES


def render(card: ModelCard) -> str:
    return MarkdownIt().enable(["table", "strikethrough"]).render(card.text)


def shown(card: ModelCard) -> str:
    """What a reader of the rendered card sees, each run of white space as one blank."""
    return " ".join(BeautifulSoup(render(card), "html.parser").get_text().split())


def test_model_card(tmp_path: Path) -> None:
    folder = CoOp(small_clip(), NAMES).save_pretrained(tmp_path)
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "cocoop_tutorial"
    assert "coop" in card.data.tags
    assert "CoOp.from_pretrained" in card.text and "2109.01134" in card.text
    assert all(name in shown(card) for name in NAMES)
    (folder / "README.md").write_text("mine")
    CoOp(small_clip(), NAMES).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


HOSTILE = [
    "{{ 7 * 7 }}",
    "{{ cycler.__init__.__globals__.os.system('touch hacked') }}",
    "{% for i in range(3) %}x{% endfor %}",
    "{# gone #}",
    "<script>alert(1)</script>",
    "AT&T *bold* _under_ [link](https://example.org) `code` | $x$ ~~no~~",
    "two\n\n# lines",
    "---",
]


def test_class_names_are_never_run_as_a_template(tmp_path: Path, monkeypatch) -> None:
    """A card shows names from folders and other people's files; Markdown renders them unchanged."""
    monkeypatch.chdir(tmp_path)
    folder = CoOp(small_clip(), HOSTILE, n_ctx=1).save_pretrained(tmp_path / "prompt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompt"]
    card = ModelCard.load(folder / "README.md")
    html = render(card)
    assert all(" ".join(name.split()) in shown(card) for name in HOSTILE)
    assert "<script>" not in html and "<em>" not in html and 'example.org"' not in html


def test_wrong_method_and_missing_weights(tmp_path: Path) -> None:
    folder = CoOp(small_clip(), NAMES).save_pretrained(tmp_path / "coop")
    with pytest.raises(CheckpointError, match=r"Use CoOp\.from_pretrained"):
        CoCoOp.from_pretrained(folder, small_clip())
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"model\.safetensors"):
        CoCoOp.from_pretrained(tmp_path / "empty", small_clip())
    with pytest.raises(MissingDataError, match="no folder here"):
        CoOp.from_pretrained("three/part/name", small_clip())


# The Hub's address is read when huggingface_hub is imported, so this runs on its own.
PUSH_AND_PULL = """
import sys, torch
from small_clips import random_features, small_clip
from cocoop_tutorial import CoCoOp
from cocoop_tutorial.errors import MissingDataError
model = CoCoOp(small_clip(), ["cat", "hot_dog"])
print(model.push_to_hub("my-prompt", token="hf_none", training={"epochs": 10}))
pulled = CoCoOp.from_pretrained("owner/my-prompt", model.clip)
features = random_features(model.clip, 3)
assert pulled.classnames == model.classnames
assert torch.equal(pulled.logits_from_features(features), model.logits_from_features(features))
again = CoCoOp.from_pretrained("owner/my-prompt", model.clip, local_files_only=True)
assert torch.equal(again.ctx, model.ctx)
try:
    CoCoOp.from_pretrained("owner/none", model.clip)
except MissingDataError as error:
    print(error)
"""


def test_push_and_pull_through_a_hub_on_this_machine(tmp_path: Path) -> None:
    with hub_server(tmp_path / "hub") as address:
        hub = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        run = subprocess.run(
            [sys.executable, "-c", PUSH_AND_PULL],
            env={**os.environ, **hub, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers")},
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stderr
    url, missing = run.stdout.splitlines()
    assert url.startswith(f"{address}/owner/my-prompt/commit/")
    assert "'owner/none' is no folder here" in missing
    repo = tmp_path / "hub" / "owner" / "my-prompt"
    assert {"README.md", "config.json", "model.safetensors"} <= {p.name for p in repo.iterdir()}


def test_from_pretrained_finds_the_backbone_itself(tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    folder.mkdir()
    config = {"model_cfg": {"embed_dim": 48, "vision_cfg": VIT, "text_cfg": TEXT}}
    (folder / "open_clip_config.json").write_text(json.dumps(config | {"preprocess_cfg": {}}))
    save_file(small_clip().model.state_dict(), folder / "open_clip_model.safetensors")
    clip = load_clip(f"local-dir:{folder}", "cpu")
    model = shaken(CoOp(clip, NAMES, 4))
    loaded = CoOp.from_pretrained(model.save_pretrained(tmp_path / "prompt"))
    assert loaded.clip.name == clip.name
    assert_same(loaded.to("cpu"), model)
