"""CoCoOp with one thing changed, so that a difference has one cause (chapters 4 and 6)."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner


def noise_like(features: Tensor) -> Tensor:
    """The same random direction for every image, `[B, E]`, L2-normalised."""
    drawn = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0))
    return F.normalize(drawn, dim=0).to(features).expand_as(features)


def another_image(features: Tensor) -> Tensor:
    """The features of other images: half a batch away, which is another class."""
    return features.roll(len(features) // 2, dims=0)


class NoiseCoCoOp(CoCoOp):
    """CoCoOp whose Meta-Net reads one fixed random vector instead of the image's feature.

    It has all of CoCoOp's parameters and none of its information, so whatever it gains does not
    come from the image. Since all images share the context, they share the prompts.
    """

    image_conditioned = False
    can_be_recorded = True

    def context_of(self, features: Tensor | None = None) -> Tensor:
        """The one context of all images: `[1, 1, M, D]`."""
        device, dtype = self.clip.device, self.ctx.dtype
        return super().context_of(
            noise_like(torch.empty(1, self.clip.embed_dim, device=device, dtype=dtype))
        )


class ZeroStartCoCoOp(CoCoOp):
    """CoCoOp whose Meta-Net's last layer starts at zero: training starts at the words, as CoOp's.

    As published, the layer starts at random, so the first prompts are not "a photo of a" but that
    plus a random vector.
    """

    image_conditioned = True
    can_be_recorded = True

    def __init__(
        self, clip: FrozenCLIP, classnames: Sequence[str], n_ctx: int, ctx_init: str | None
    ) -> None:
        """As for `CoCoOp`."""
        super().__init__(clip, classnames, n_ctx, ctx_init)
        nn.init.zeros_(self.meta_net.linear2.weight)
        nn.init.zeros_(self.meta_net.linear2.bias)


class Fed(nn.Module):
    """A Meta-Net that reads something else than the image's feature."""

    def __init__(self, net: nn.Module, give: Callable[[Tensor], Tensor]) -> None:
        """`give` makes of features `[B, E]` what the net reads, `[B, E]` as well."""
        super().__init__()
        self.net, self.give = net, give

    def forward(self, features: Tensor) -> Tensor:
        """Computes pi, `[B, D]`."""
        return self.net(self.give(features))


def with_context(model: PromptLearner, context: Tensor) -> CoOp:
    """A CoOp of the same classes with this context `[M, D]`: a pi that is fixed makes a CoOp."""
    allowed = model.prompts.allow_duplicates
    fixed = CoOp(model.clip, model.classnames, n_ctx=len(context), allow_duplicates=allowed)
    fixed.load_prompt_state({"ctx": context})
    return fixed


@torch.no_grad()
def other_pis(model: CoCoOp, shots: Tensor) -> Iterator[tuple[str, PromptLearner]]:
    """A trained CoCoOp with another pi than each image's.

    Args:
        model: Trained.
        shots: `[N, E]`, features of the images that it trained on.

    Yields:
        The name of the control, and the model.
    """
    yield "mean", with_context(model, model.ctx + model.meta_net(shots).mean(dim=0))
    yield "noise", with_context(model, model.ctx + model.meta_net(noise_like(shots[:1]))[0])
    yield "none", with_context(model, model.ctx)
    other = model.with_classnames(model.classnames)
    other.meta_net = Fed(model.meta_net, another_image)
    yield "another image", other


@torch.no_grad()
def sizes(model: CoCoOp, shots: Tensor) -> dict[str, float]:
    """Lengths of vectors: how far the Meta-Net moves a context, beside the words' own length.

    Args:
        model: Trained or not.
        shots: `[N, E]`, image features.

    Returns:
        `words`: mean length of the token embeddings of the class names; `ctx`: of the context
        vectors; `mean`: of the mean pi; `image`: how far a pi is from the mean (root mean square).
    """
    pi = model.meta_net(shots)
    tokens = [t for name in model.classnames for t in model.clip.tokenizer.encode(name)]
    embeddings = model.clip.text_tower.token_embedding.weight[tokens]
    return {
        "words": embeddings.norm(dim=1).mean().item(),
        "ctx": model.ctx.norm(dim=1).mean().item(),
        "mean": pi.mean(dim=0).norm().item(),
        "image": (pi - pi.mean(dim=0)).norm(dim=1).square().mean().sqrt().item(),
    }


@torch.no_grad()
def explained(pi: Tensor, groups: Sequence[str]) -> float:
    """Share of the variance of pi `[N, D]` that lies between groups: 0 none, 1 all.

    Not-a-number where pi does not vary, but for rounding.
    """
    kinds = sorted(set(groups))
    member = F.one_hot(torch.tensor([kinds.index(g) for g in groups])).to(pi.dtype)  # [N, G]
    means = (member.T @ pi) / member.sum(dim=0, keepdim=True).T
    centred = pi - pi.mean(dim=0)
    if centred.norm() <= 1e-4 * pi.norm():
        return float("nan")
    return 1 - ((pi - member @ means).square().sum() / centred.square().sum()).item()
