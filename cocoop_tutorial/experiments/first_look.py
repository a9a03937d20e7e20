"""When does conditioning on the image help? The paper's settings on three datasets (chapter 4).

The three serve for choosing settings, so that nothing here looks at the eleven. All runs take the
published learning rate and schedule. Beside CoOp and CoCoOp there are runs that differ from them in
one thing, so that a difference has one cause:

- *CoOp, 10 x 1*: as many epochs and images a step as CoCoOp, so that only the Meta-Net differs;
- *CoCoOp, noise*: the Meta-Net reads one fixed random vector, so that only the image is missing;
- *CoCoOp, zero start*: the Meta-Net's last layer starts at zero, so that training starts at the
  words, as CoOp's does;
- other first words; one medium against all, with as many shots.

A trained CoCoOp is also scored with another pi than the image's: the mean over the shots, that of
another image, that of noise, and none.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from joblib import cpu_count
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.load import load_dataset
from cocoop_tutorial.datasets.splits import Dataset, Split, base_new, few_shot
from cocoop_tutorial.evaluation.accuracy import evaluate, harmonic_mean
from cocoop_tutorial.experiments.cells import Cell, Row, run_cells
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.training.loop import TrainConfig, train

RESULT = "first_look"  # name of the result file
BACKBONE = "icon-clip"
SEEDS = (1, 2, 3)
COOP, COCOOP = TrainConfig(epochs=200, batch_size=32), TrainConfig(epochs=10, batch_size=1)
WORDS = "a photo of a"
STARTS = {"random": None, "an icon of a": "an icon of a", "the opposite of a": "the opposite of a"}
ONE = "icons_tools"  # the smallest of the three
MEDIUM, FEW = "outline", 7  # the commonest medium, and the shots that every class has of it


@dataclass(frozen=True)
class Recipe:
    """How one kind of run is made.

    Attributes:
        kind: "CoOp" or "CoCoOp".
        config: How to train.
        words: What the four context vectors start as; None draws them at random.
        shots: Training images of each class.
        medium: Leave only images of this medium in train, val and test; None leaves all.
        zero: Whether the Meta-Net's last layer starts at zero.
        noise: Whether the Meta-Net reads a fixed random vector instead of the image's feature.
        seeds: Of the shots, their order, and what is drawn at random.
        datasets: Where it is made. What is compared most has three seeds on three datasets, the
            rest one on one, because a run takes most of a minute.
    """

    kind: str
    config: TrainConfig
    words: str | None = WORDS
    shots: int = 16
    medium: str | None = None
    zero: bool = False
    noise: bool = False
    seeds: tuple[int, ...] = SEEDS
    datasets: tuple[str, ...] = icons.SETTINGS


def _recipes() -> dict[str, Recipe]:
    """All kinds of runs, in the order in which they are made."""
    coop, cocoop = Recipe("CoOp", COOP), Recipe("CoCoOp", COCOOP)
    found = {"CoOp": coop, "CoCoOp": cocoop, "CoOp, 10 x 1": replace(coop, config=COCOOP)}
    once = {name: replace(r, seeds=SEEDS[:1], datasets=(ONE,)) for name, r in found.items()}
    found["CoCoOp, zero start"] = replace(cocoop, zero=True, seeds=SEEDS[:1])
    found["CoCoOp, noise"] = replace(once["CoCoOp"], noise=True)
    for start, words in STARTS.items():
        for name in ("CoOp", "CoCoOp"):
            found[f"{name}, {start}"] = replace(once[name], words=words)
    for name in ("CoOp", "CoCoOp"):
        few = replace(once[name], shots=FEW)
        found |= {f"{name}, {MEDIUM} only": replace(few, medium=MEDIUM), f"{name}, all media": few}
    return found


RECIPES = _recipes()
METHODS = ("CLIP", *RECIPES)
MAIN = ("CLIP", "CoOp", "CoCoOp")


@cache
def whole(dataset: str, medium: str | None) -> Dataset:
    """A dataset, or what it has in one medium."""
    data = load_dataset(dataset)
    return data if medium is None else only(data, lambda path: icons.medium(path) == medium)


def only(data: Dataset, keep: Callable[[Path], bool]) -> Dataset:
    """The same dataset with the images that `keep` wants."""
    parts = (Split([s for s in p.samples if keep(s[0])]) for p in (data.train, data.val, data.test))
    train, val, test = parts
    return replace(data, train=train, val=val, test=test)


class Fed(nn.Module):
    """A Meta-Net that reads something else than the image's feature."""

    def __init__(self, net: nn.Module, give: Callable[[Tensor], Tensor]) -> None:
        """`give` makes of features `[B, E]` what the net reads, `[B, E]` as well."""
        super().__init__()
        self.net, self.give = net, give

    def forward(self, features: Tensor) -> Tensor:
        """Computes pi, `[B, D]`."""
        return self.net(self.give(features))


def noise_like(features: Tensor) -> Tensor:
    """The same random direction for every image, `[B, E]`, L2-normalised."""
    drawn = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0))
    return F.normalize(drawn, dim=0).to(features).expand_as(features)


def another_image(features: Tensor) -> Tensor:
    """The features of other images: half a batch away, which is another class."""
    return features.roll(len(features) // 2, dims=0)


def build(recipe: Recipe, clip: FrozenCLIP, data: Dataset, seed: int) -> PromptLearner:
    """The model of a recipe before training; the seed is of a Meta-Net and of random contexts."""
    torch.manual_seed(seed)
    kind = {"CoOp": CoOp, "CoCoOp": CoCoOp}[recipe.kind]
    model = kind(clip, data.classnames, n_ctx=4, ctx_init=recipe.words)
    if recipe.zero:
        nn.init.zeros_(model.meta_net.linear2.weight)
        nn.init.zeros_(model.meta_net.linear2.bias)
    if recipe.noise:
        model.meta_net = Fed(model.meta_net, noise_like)
    return model


def with_context(model: PromptLearner, context: Tensor) -> CoOp:
    """A CoOp of the same classes with this context `[M, D]`: a pi that is fixed makes a CoOp."""
    fixed = CoOp(model.clip, model.classnames, n_ctx=len(context))
    fixed.load_prompt_state({"ctx": context})
    return fixed


@torch.no_grad()
def other_pis(model: CoCoOp, shots: Tensor) -> Iterator[tuple[str, PromptLearner]]:
    """A CoCoOp with another pi than each image's.

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


def score(model: nn.Module, base: Dataset, new: Dataset) -> tuple[Row, list[Tensor]]:
    """Test accuracy (%) on both halves, their harmonic mean, and the logits `[N, K]` of each."""
    batch = len(base.test) + len(new.test)  # all at once, for `another_image`
    on_base = evaluate(model, base, batch_size=batch)
    on_new = evaluate(model.with_classnames(new.classnames), new, batch_size=batch)
    b, n = on_base.accuracy, on_new.accuracy
    return {"base": b, "new": n, "H": harmonic_mean(b, n)}, [on_base.logits, on_new.logits]


def changes(mine: list[Tensor], theirs: list[Tensor]) -> dict[str, float]:
    """What one classifier changes of another's logits, each a list of `[N, K]`.

    Returns:
        `same`: the share (%) of predictions that stay; `shift`: how far all classes of an image
        move alike, which no prediction notices; `turn`: how far they move apart (both root mean
        square, in logits).
    """
    pairs = list(zip(mine, theirs, strict=True))
    same = torch.cat([a.argmax(dim=1) == b.argmax(dim=1) for a, b in pairs])
    shift = torch.cat([(a - b).mean(dim=1) for a, b in pairs])
    apart = [a - b - (a - b).mean(dim=1, keepdim=True) for a, b in pairs]
    turn = torch.cat([part.flatten() for part in apart])
    squares = {"shift": shift.square(), "turn": turn.square()}
    roots = {name: value.mean().sqrt().item() for name, value in squares.items()}
    return {"same": 100 * same.float().mean().item(), **roots}


@torch.no_grad()
def sizes(model: CoCoOp, shots: Tensor) -> dict[str, float]:
    """Lengths of vectors: how far the Meta-Net moves a context, beside the words' own length.

    Args:
        model: Trained or not.
        shots: `[N, E]`, image features.

    Returns:
        `words`: mean length of the token embeddings of the class names; `ctx`: of the context
        vectors; `bias`: of pi for a feature of zeros, so of what the biases alone make; `mean`:
        of the mean pi; `image`: how far a pi is from the mean (root mean square).
    """
    pi, zeros = model.meta_net(shots), torch.zeros_like(shots[:1])
    tokens = [t for name in model.classnames for t in model.clip.tokenizer.encode(name)]
    embeddings = model.clip.text_tower.token_embedding.weight[tokens]
    return {
        "words": embeddings.norm(dim=1).mean().item(),
        "ctx": model.ctx.norm(dim=1).mean().item(),
        "bias": model.meta_net(zeros).norm().item(),
        "mean": pi.mean(dim=0).norm().item(),
        "image": (pi - pi.mean(dim=0)).norm(dim=1).square().mean().sqrt().item(),
    }


@torch.no_grad()
def explained(pi: Tensor, groups: list[str]) -> float:
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


def pi_facts(model: CoCoOp, base: Dataset) -> dict[str, float]:
    """The `sizes`, and what classes and media explain of the pi of test images, beside chance."""
    shots, _ = image_features(model.clip, base.train)
    features, _ = image_features(model.clip, base.test)
    with torch.no_grad():
        pi = model.meta_net(features)
    facts = sizes(model, shots)
    media = [icons.medium(path) for path, _ in base.test.samples]
    for name, groups in {"class": [str(y) for y in base.test.labels], "medium": media}.items():
        facts[f"by_{name}"] = explained(pi, groups)
        facts[f"by_{name}_chance"] = (len(set(groups)) - 1) / (len(groups) - 1)
    return facts


def look(model: nn.Module, base: Dataset, new: Dataset) -> tuple[Row, list[Tensor]]:
    """Scores a model with its own pi: a row, and the logits."""
    scores, logits = score(model, base, new)
    if isinstance(model, CoCoOp):
        return {"pi": "image", **scores, **pi_facts(model, base)}, logits
    return {"pi": "fixed", **scores}, logits


def look_at_others(model: CoCoOp, base: Dataset, new: Dataset, mine: list[Tensor]) -> list[Row]:
    """Scores a trained CoCoOp with other pis; the `changes` are against its own logits, `mine`."""
    shots, _ = image_features(model.clip, base.train)
    rows = []
    for name, other in other_pis(model, shots):
        scores, theirs = score(other, base, new)
        rows.append({"when": "end", "pi": name, **scores, **changes(mine, theirs)})
    return rows


def measure_cell(clip: FrozenCLIP, cell: Cell) -> list[Row]:
    """Makes one run.

    Returns:
        Rows with `when` ("start", "end"), `pi`, `base`, `new`, `H`, `train_seconds`; with the
        `changes` that training made, or another pi; and for a CoCoOp the `pi_facts`.
    """
    recipe = RECIPES.get(cell.method)
    if recipe is None:  # hand-written prompts need no shots
        base, new = base_new(whole(cell.dataset, None))
        row, _ = look(ZeroShotCLIP(clip, base.classnames, base.template), base, new)
        return [{"when": "end", **row, "train_seconds": 0.0}]
    base, new = base_new(few_shot(whole(cell.dataset, recipe.medium), recipe.shots, cell.seed))
    model = build(recipe, clip, base, cell.seed)
    start, before = look(model, base, new)
    history = train(model, base, cell.config)
    end, after = look(model, base, new)
    rows = [{"when": "start", **start}, {"when": "end", **end, **changes(before, after)}]
    if isinstance(model, CoCoOp):
        rows += look_at_others(model, base, new, after)
    return [{**row, "train_seconds": float(history.seconds.sum())} for row in rows]


def all_cells() -> list[Cell]:
    """Every run, the main table first, then all others with one seed."""
    cells = [
        Cell(dataset, method, seed, recipe and replace(recipe.config, seed=seed))
        for method, recipe in [("CLIP", None), *RECIPES.items()]
        for seed in (recipe.seeds if recipe else SEEDS)
        for dataset in (recipe.datasets if recipe else icons.SETTINGS)
    ]
    return sorted(cells, key=lambda cell: cell.method not in MAIN and cell.seed)


def first_look(
    jobs: int | None = None,
    clip: FrozenCLIP | None = None,
    folder: Path | None = None,
    engine: str = "local",
) -> Path:
    """Runs what the result file lacks, the main table first; see `run_cells`.

    Args:
        jobs: Processes, of one thread each; None takes one per core.
        clip: The backbone; None loads `BACKBONE`.
        folder: Where the file goes; None takes the results folder.
        engine: "local" or "dask", as for `cells.processes`.
    """
    torch.set_num_threads(1)
    clip = clip or load_clip(BACKBONE, device="cpu")
    command, jobs = "cocoop reproduce first-look", jobs or cpu_count()
    return run_cells(
        clip, RESULT, command, all_cells(), measure_cell, METHODS, folder, jobs, engine
    )
