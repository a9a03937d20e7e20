"""The checkers of chapter 4 pass the right answers and refuse the likely mistakes."""

import pytest
import torch
from small_clips import small_clip
from torch import Tensor, nn

from cocoop_tutorial import CoCoOp
from cocoop_tutorial.book.checks import ch4
from cocoop_tutorial.text_encoder.encode import encode_prompts


def count(m: int, e: int, d: int, separate: bool) -> int:
    hidden = max(e // 16, 1)
    return m * d + (m if separate else 1) * (e * hidden + hidden + hidden * d + d)


def test_count() -> None:
    ch4.check_count(count)
    with pytest.raises(AssertionError, match="M networks"):
        ch4.check_count(lambda m, e, d, separate: count(m, e, d, False))
    with pytest.raises(AssertionError, match="biases"):
        ch4.check_count(lambda m, e, d, separate: m * d + (e // 16) * (e + d))


def test_conditional_context() -> None:
    ch4.check_conditional_context(lambda v, net, x: v + net(x).unsqueeze(1))
    ch4.check_conditional_context(lambda v, net, x: (v + net(x)[:, None]).detach().double().numpy())
    with pytest.raises(AssertionError, match="None"):
        ch4.check_conditional_context(lambda v, net, x: None)
    with pytest.raises(AssertionError, match="axis"):
        ch4.check_conditional_context(lambda v, net, x: v + net(x).mean(0))
    with pytest.raises(AssertionError, match="axis"):
        ch4.check_conditional_context(lambda v, net, x: v + net(x))

    def transposed(v: Tensor, net: nn.Module, x: Tensor) -> Tensor:
        good = v + net(x).unsqueeze(1)
        return good.flip(1)

    with pytest.raises(AssertionError, match="numbers"):
        ch4.check_conditional_context(transposed)


def test_first_gradients() -> None:
    ch4.check_first_gradients({"linear1.weight", "linear1.bias"})
    ch4.check_first_gradients(["linear1.bias", "linear1.weight"])
    with pytest.raises(AssertionError, match="missing"):
        ch4.check_first_gradients({"linear1.weight"})
    with pytest.raises(AssertionError, match="do move"):
        ch4.check_first_gradients({"linear1.weight", "linear1.bias", "ctx"})
    with pytest.raises(AssertionError, match="No parameter"):
        ch4.check_first_gradients({"linear3.weight"})


@pytest.mark.parametrize("separate", [False, True])
def test_scaled(separate: bool) -> None:
    torch.manual_seed(0)
    clip = small_clip()
    model = CoCoOp(clip, ["cat", "hot dog"], separate_meta_nets=separate)

    def scaled(model: CoCoOp, x: Tensor, a: float) -> Tensor:
        context = model.ctx + a * (model.conditional_context(x) - model.ctx)
        text = encode_prompts(clip, context.unsqueeze(1), model.prompts)
        return model.scaled_cosines(x, text)

    ch4.check_scaled(scaled, model)
    ch4.check_scaled(lambda m, x, a: scaled(m, x, a).tolist(), model)
    with pytest.raises(AssertionError, match="None"):
        ch4.check_scaled(lambda m, x, a: None, model)
    with pytest.raises(AssertionError, match="off by"):
        ch4.check_scaled(lambda m, x, a: m.logits_from_features(x), model)
    with pytest.raises(AssertionError, match="not"):
        ch4.check_scaled(lambda m, x, a: scaled(m, x, a).T, model)
    with pytest.raises(AssertionError, match="off by"):  # the whole context is scaled
        ch4.check_scaled(
            lambda m, x, a: m.scaled_cosines(
                x, encode_prompts(clip, a * m.context_of(x), m.prompts)
            ),
            model,
        )
