"""Every number of the official code, case by case."""

import pytest
import torch
from parity_world import CASES, SOURCES, World, load_world
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial import ZeroShotCLIP
from cocoop_tutorial.checkpoints.official import load_official
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.encode import ENCODERS

RELATIVE = 1e-4


@pytest.fixture(params=SOURCES)
def world(request: pytest.FixtureRequest) -> World:
    return load_world(request.param)


def assert_near(actual: Tensor, wanted: Tensor, what: str) -> None:
    """Relative to the largest number: float32 rounding, nothing more."""
    assert actual.shape == wanted.shape, what
    error = (actual.detach() - wanted).abs().max() / wanted.abs().max()
    assert error < RELATIVE, f"{what}: relative difference {error:.1e}"


def sgd_steps(model: PromptLearner, world: World, name: str) -> list[float]:
    """The steps that golden.json describes; CoCoOp sees one image a step, CoOp all."""
    optimizer = torch.optim.SGD(
        model.prompt_parameters().values(), lr=0.002, momentum=0.9, weight_decay=5e-4
    )
    facts, losses = world.facts["cases"][name], []
    for step in range(facts["steps"]):
        n = len(world.golden["labels"])
        rows = [step % n] if facts["method"] == "cocoop" else list(range(n))
        logits = model(world.golden["images"][rows])
        loss = F.cross_entropy(logits, world.golden["labels"][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_no_case_is_left_out(world: World) -> None:
    assert sorted(world.facts["cases"]) == sorted(CASES)


def test_image_features(world: World) -> None:
    assert_near(world.clip.encode_image(world.golden["images"]), world.features, "features")


def test_zero_shot(world: World) -> None:
    model = ZeroShotCLIP(world.clip, world.classnames)
    text = F.normalize(world.golden["zeroshot.text_features"], dim=-1)
    assert_near(model.weights, text, "text features")
    assert_near(model(world.golden["images"]), world.golden["zeroshot.logits"], "logits")


@pytest.mark.parametrize("name", ["cocoop_words", "coop_words"])
def test_context_from_words(world: World, name: str) -> None:
    assert_near(world.model(name).ctx, world.case(name)["init.ctx"], "ctx")


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", CASES)
def test_logits_gradients_and_steps(world: World, name: str, encoder: str) -> None:
    numbers, model = world.case(name), world.model(name)
    model.encoder = encoder
    assert sorted(model.prompt_state()) == sorted(world.facts["cases"][name]["parameters"])
    model.load_prompt_state({n: numbers[f"init.{n}"] for n in model.prompt_state()})
    assert_near(model(world.golden["images"]), numbers["logits"], "first logits")

    rows = [0] if world.facts["cases"][name]["method"] == "cocoop" else list(range(4))
    loss = F.cross_entropy(model(world.golden["images"][rows]), world.golden["labels"][rows])
    loss.backward()
    for parameter, value in model.prompt_parameters().items():
        assert_near(value.grad, numbers[f"grad.{parameter}"], f"gradient of {parameter}")

    losses = torch.tensor(sgd_steps(model, world, name))
    assert_near(losses, torch.tensor(world.facts["cases"][name]["losses"]), "losses")
    for parameter, value in model.prompt_parameters().items():
        assert_near(value, numbers[f"after.{parameter}"], f"{parameter} after the steps")
    assert_near(model(world.golden["images"]), numbers["after.logits"], "last logits")


@pytest.mark.parametrize("name", ["cocoop_words", "coop_words"])
def test_official_checkpoint(world: World, name: str, tmp_path) -> None:
    model = load_official(world.checkpoint(name, tmp_path), world.clip, world.classnames)
    numbers = world.case(name)
    for parameter, value in model.prompt_state().items():
        assert torch.equal(value, numbers[f"after.{parameter}"]), parameter
    assert_near(model(world.golden["images"]), numbers["after.logits"], "logits")
