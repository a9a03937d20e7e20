"""Subclasses of prompt learners are saved and loaded as themselves, or refused."""

from pathlib import Path
from typing import Any

import pytest
from learners import NAMES, assert_same, shaken
from small_clips import small_clip
from torch import Tensor, nn

from cocoop_tutorial import CoOp, load_prompts, save_prompts
from cocoop_tutorial.errors import CheckpointError
from cocoop_tutorial.models.prompt_learner import PromptLearner


class Scaled(CoOp):
    """CoOp with another name and an option and a parameter of its own."""

    def __init__(self, *arguments: Any, extra: int = 1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scale = nn.Parameter(self.ctx.new_ones(extra))

    def logits_from_features(self, features: Tensor) -> Tensor:
        return super().logits_from_features(features) * self.scale.sum()

    def options(self) -> dict[str, Any]:
        return {**super().options(), "extra": len(self.scale)}


class Forgetful(CoOp):
    """Its options lack an argument that it needs."""

    def __init__(self, *arguments: Any, extra: int, **options: Any) -> None:
        super().__init__(*arguments, **options)


class Changed(CoOp):
    """Its parameters after it was made are others than when it is made again."""

    def grow(self) -> "Changed":
        self.bias = nn.Parameter(self.ctx.new_zeros(2))
        return self


def test_a_subclass_comes_back_as_itself(tmp_path: Path) -> None:
    model = shaken(Scaled(small_clip(), NAMES, 4, extra=3))
    assert_same(load_prompts(save_prompts(model, tmp_path / "file"), model.clip), model)
    folder = model.save_pretrained(tmp_path / "folder")
    assert_same(CoOp.from_pretrained(folder, model.clip), model)
    card = (folder / "README.md").read_text()
    assert "from where_it_is_defined import Scaled" in card and "arxiv" not in card


@pytest.mark.parametrize(
    "model",
    [Forgetful(small_clip(), NAMES, 4, extra=3), Changed(small_clip(), NAMES, 4).grow()],
    ids=lambda model: type(model).__name__,
)
def test_what_would_not_load_is_refused_before_anything_is_written(
    model: PromptLearner, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="could not be loaded again and was not saved"):
        save_prompts(model, tmp_path / "folder" / "file")
    with pytest.raises(CheckpointError, match="could not be loaded again and was not saved"):
        model.save_pretrained(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_another_class_of_the_same_name_is_refused(tmp_path: Path) -> None:
    impostor = type("CoOp", (Scaled,), {"__module__": __name__})
    with pytest.raises(CheckpointError, match="Another class is called CoOp"):
        save_prompts(impostor(small_clip(), NAMES, 4), tmp_path / "file")
    model = CoOp(small_clip(), NAMES, 4)
    assert type(load_prompts(save_prompts(model, tmp_path / "file"), model.clip)) is CoOp


def test_a_class_may_be_defined_again_as_in_a_notebook(tmp_path: Path) -> None:
    first, again = (type("Mine", (Scaled,), {"__module__": __name__}) for _ in range(2))
    path = save_prompts(first(small_clip(), NAMES, 4), tmp_path / "file")
    assert type(load_prompts(path, small_clip())) is again
