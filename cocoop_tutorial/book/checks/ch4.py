"""Checkers for the exercises of chapter 4."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.models.cocoop import CoCoOp, MetaNet
from cocoop_tutorial.text_encoder.encode import encode_prompts


def _tensor(got: object) -> Tensor:
    """What a function returned, be it a tensor, an array or lists."""
    assert got is not None, "Your function returns None: it lacks a return with the result."
    return torch.as_tensor(got, dtype=torch.float32)


def check_count(count: Callable[[int, int, int, bool], int]) -> None:
    """Exercise 1: `count(n_ctx, joint, width, separate)` gives the numbers that CoCoOp trains."""
    cases = [(4, 512, 512, False), (3, 256, 192, False), (4, 1024, 512, True), (2, 8, 5, True)]
    for m, e, d, separate in cases:
        one = sum(p.numel() for p in MetaNet(e, d).parameters())
        wanted, got = m * d + one * (m if separate else 1), count(m, e, d, separate)
        hint = "Count the M networks, but the M context vectors only once." if separate else (
            "Add the context (M times D), two weight matrices and two biases; the hidden width is "
            "E // 16, and at least 1."
        )  # fmt: skip
        assert got == wanted, f"count({m}, {e}, {d}, {separate}) gives {got}, not {wanted}. {hint}"
    print("passed: right for one network and for M networks, with three widths")


def check_conditional_context(context: Callable[[Tensor, nn.Module, Tensor], Tensor]) -> None:
    """Exercise 2: `context(v [M, D], net, features [B, E])` is `[B, M, D]`, v_m + h(x)."""
    torch.manual_seed(0)
    net = MetaNet(32, 6)
    for images, n_ctx in ((4, 4), (5, 4), (1, 3)):  # with B = M a missing axis raises no error
        v, x = torch.randn(n_ctx, 6), F.normalize(torch.randn(images, 32), dim=-1)
        got, wanted = _tensor(context(v, net, x)), v + net(x)[:, None]
        shape = [images, n_ctx, 6]
        assert list(got.shape) == shape, (
            f"With B={images}, M={n_ctx}, D=6 your result is {list(got.shape)}, not {shape}. "
            "h(x) is [B, D]: give it an axis for the M vectors before you add."
        )
        assert torch.allclose(got, wanted, atol=1e-6), (
            "The shape is right, but the numbers are not. Every context vector of image b must "
            "move by the same h(x_b); check which axis of v your addition lines up with B."
        )
    print("passed: right for three sizes, including B = M")


def check_first_gradients(still: Collection[str]) -> None:
    """Exercise 3: parameters whose first gradient is zero if the output layer is zeroed."""
    torch.manual_seed(0)
    net, v = MetaNet(32, 6), nn.Parameter(torch.randn(6))
    nn.init.zeros_(net.linear2.weight)
    nn.init.zeros_(net.linear2.bias)
    x = F.normalize(torch.randn(4, 32), dim=-1)
    (v + net(x)).sin().sum().backward()
    named = {"ctx": v, **dict(net.named_parameters())}
    wanted = {name for name, p in named.items() if not p.grad.any()}
    unknown = set(still) - named.keys()
    assert not unknown, f"No parameter is called {sorted(unknown)}; they are {', '.join(named)}."
    extra = sorted(set(still) - wanted)
    assert not extra, f"{extra} do move: their gradient does not go through linear2.weight."
    missing = sorted(wanted - set(still))
    assert not missing, (
        f"{missing} are missing. Their gradient passes backward through linear2.weight, which is "
        "zero."
    )
    print("passed: only linear1 must wait for the second step, behind the zeroed weights")


@torch.no_grad()
def check_scaled(scaled: Callable[[CoCoOp, Tensor, float], Tensor], model: CoCoOp) -> None:
    """Exercise 4: `scaled(model, features, a)` gives the logits `[B, K]` with v_m + a h(x)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, model.clip.embed_dim, generator=generator)
    x = F.normalize(x, dim=-1).to(model.clip.device)
    shape = [3, len(model.classnames)]
    for a in (0.0, 1.0, 2.5):
        pi = (model.conditional_context(x) - model.ctx)[:, None]  # [B, 1, M, D]
        text = encode_prompts(model.clip, model.ctx + a * pi, model.prompts, model.encoder)
        got, wanted = _tensor(scaled(model, x, a)).to(x.device), model.scaled_cosines(x, text)
        assert list(got.shape) == shape, f"The logits are {list(got.shape)}, not {shape}."
        assert torch.allclose(got, wanted, atol=1e-3), (
            f"With a = {a} your logits are off by {float((got - wanted).abs().max()):.2g}. "
            "Multiply pi alone by a, not the context, and use the model's encoder and names."
        )
    print("passed: a = 0 gives one prompt for all images, a = 1 the model itself")
