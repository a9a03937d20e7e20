"""The two towers of `icon-clip`, their loss, their optimisers and their files."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file

from cocoop_tutorial.pretraining.augment import MEAN, SIZE, STD
from cocoop_tutorial.seeds import check_seed

VOCABULARY = 49408  # CLIP's tokenizer
MODEL = {
    "embed_dim": 256,
    "vision_cfg": {"layers": [1, 2, 2, 1], "width": 32, "image_size": SIZE, "patch_size": None},
    "text_cfg": {
        "context_length": 32, "vocab_size": VOCABULARY, "width": 192, "heads": 3, "layers": 4,
    },
}  # fmt: skip
TABLE = "token_embedding.weight"
PART = 14 * 2**20  # bytes of a file of weights at most


class Towers(torch.nn.Module):
    """open_clip's CLIP with a token table of only the tokens that captions use.

    A full table has 49,408 rows, and an optimiser would touch all of them at every step.
    """

    def __init__(self, vocabulary: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(check_seed(seed))
        text = {**MODEL["text_cfg"], "vocab_size": vocabulary}
        self.clip = CLIP(MODEL["embed_dim"], MODEL["vision_cfg"], text)
        self.clip.visual.to(memory_format=torch.channels_last)

    def image(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, 64, 64] -> [B, E], normalised."""
        visual = self.clip.visual
        # Validation comes in batches of other sizes, not worth a compilation each.
        run = visual if self.training else visual.forward
        return F.normalize(run(x.contiguous(memory_format=torch.channels_last)).float(), dim=-1)

    def text(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Compact token ids [T, L] and the places of their end tokens [T] -> [T, E], normalised.

        On a CPU captions go through in four groups of like length, each cut after its last end
        token. A GPU would have to wait for the lengths, which costs it more than it saves.
        """
        if tokens.is_cuda:
            return self._captions(tokens, ends)
        order = ends.argsort()
        parts = order.tensor_split(min(4, len(order)))
        lengths = [2 * math.ceil((int(ends[part].max()) + 1) / 2) for part in parts]
        cut = [self._captions(tokens[p, :n], ends[p]) for p, n in zip(parts, lengths, strict=True)]
        return torch.cat(cut)[order.argsort()]

    def _captions(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        clip = self.clip
        x = clip.token_embedding(tokens) + clip.positional_embedding[: tokens.shape[1]]
        mask = clip.attn_mask[: x.shape[1], : x.shape[1]]
        x = clip.transformer(x, attn_mask=mask)
        x = clip.ln_final(x[torch.arange(len(x), device=x.device), ends])
        return F.normalize((x @ clip.text_projection).float(), dim=-1)


def contrastive_loss(
    f: torch.Tensor, t: torch.Tensor, scale: torch.Tensor, truth: torch.Tensor
) -> torch.Tensor:
    """Symmetric contrastive loss of CLIP (2103.00020, figure 3) where several captions can be true.

    Args:
        f: Image features [B, E], normalised.
        t: Text features [B, E], normalised.
        scale: The logit scale.
        truth: [B, B]; 1 where caption j is true of image i, -1 where it is false, 0 where it is
            neither: such pairs count for nothing. True ones share the target equally.

    Introduced in chapter 1.
    """
    logits = (scale * f @ t.T).masked_fill(truth == 0, -1e4)
    right = (truth > 0).float()

    def one_way(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(scores, target / target.sum(1, keepdim=True))

    return (one_way(logits, right) + one_way(logits.T, right.T)) / 2


def is_inner(name: str, weight: torch.Tensor) -> bool:
    """Whether Muon may train a weight: a kernel, or a matrix of a text block.

    Tables and outer projections are AdamW's, as Muon's authors advise; so is the attention pool,
    whose large squares would be most of Muon's arithmetic.
    """
    outer = ("embedding", "projection", "attnpool")
    return weight.ndim >= 2 and not any(part in name for part in outer)


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A kernel [O, I, h, w], kept channels last, as [O, h * w * I]; a matrix as it is."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon`, all matrices at once: one by one, they cost a GPU a third of a step.

    Matrices whose short sides are equal are made equal by rows of zeros, which Newton-Schulz
    leaves alone, and go through it as one batch.

    Args:
        matrices: The weights, each [rows, columns].
        weight_decay: As AdamW's; rates match AdamW's as well.
        momentum: Nesterov's.
    """

    def __init__(
        self, matrices: Iterable[torch.nn.Parameter], weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay, "momentum": momentum})
        weights = self.param_groups[0]["params"]
        for p in weights:
            self.state[p]["momentum"] = torch.zeros_like(p)
        self.stacks: list[torch.Tensor] = []  # [n, short, long] of each short side
        self.places: dict[torch.nn.Parameter, torch.Tensor] = {}  # views into them
        for short in sorted({min(p.shape) for p in weights}):
            alike = [p for p in weights if min(p.shape) == short]
            long = max(max(p.shape) for p in alike)
            stack = alike[0].new_zeros(len(alike), short, long, dtype=torch.bfloat16)
            self.stacks.append(stack)
            for i, p in enumerate(alike):
                place = stack[i, :, : max(p.shape)]
                self.places[p] = place if p.shape[0] == short else place.T

    @torch.no_grad()
    def step(self) -> None:
        """One update."""
        group = self.param_groups[0]
        weights, lr = group["params"], group["lr"]
        gradients = [p.grad for p in weights]
        smooth = [self.state[p]["momentum"] for p in weights]
        torch._foreach_lerp_(smooth, gradients, 1 - group["momentum"])
        for p, update in zip(
            weights, torch._foreach_lerp(gradients, smooth, group["momentum"]), strict=True
        ):
            self.places[p].copy_(update)
        for stack in self.stacks:
            stack.copy_(orthogonalise(stack))
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        for p in weights:
            p.add_(self.places[p], alpha=-lr * 0.2 * math.sqrt(max(p.shape)))


def orthogonalise(x: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz steps on [n, short, long]: singular values come near 1, vectors stay."""
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(
            x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445
        )
    return x


class Optimizers:
    """Muon for the towers' inner matrices, AdamW for all other weights."""

    def __init__(self, towers: Towers, weight_decay: float) -> None:
        named = towers.named_parameters()
        self.matrices = {  # each as rows of outputs, the way Muon wants it, in the same memory
            p: torch.nn.Parameter(as_matrix(p.detach())) for n, p in named if is_inner(n, p)
        }
        rest = [p for p in towers.parameters() if p not in self.matrices]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.both = (
            torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True),
            Muon(self.matrices.values(), weight_decay),
        )

    def step(self, rate: float) -> None:
        """One update at a learning rate."""
        for p, matrix in self.matrices.items():
            matrix.grad = as_matrix(p.grad)
        for optimizer in self.both:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state(self) -> list[dict]:
        """What `load` needs to go on."""
        return [optimizer.state_dict() for optimizer in self.both]

    def load(self, states: list[dict]) -> None:
        """Goes on from a saved state."""
        for optimizer, state in zip(self.both, states, strict=True):
            optimizer.load_state_dict(state)


def save_parts(towers: Towers, vocabulary: list[int], folder: Path) -> None:
    """Writes the weights in half precision, with the compact table, in files of bounded size.

    Args:
        towers: The towers.
        vocabulary: Row i of the compact table belongs to CLIP's token vocabulary[i].
        folder: Where "weights-0.safetensors" and so on go.
    """
    parts: list[dict[str, torch.Tensor]] = [{"vocabulary": torch.tensor(vocabulary)}]
    room = PART
    for name, value in towers.clip.state_dict().items():
        half = value.detach().cpu()
        half = half.half().contiguous() if half.is_floating_point() else half
        size = half.numel() * half.element_size()
        if size > room:
            parts.append({})
            room = PART
        parts[-1][name] = half
        room -= size
    for i, part in enumerate(parts):
        save_file(part, folder / f"weights-{i}.part")
        (folder / f"weights-{i}.part").replace(folder / f"weights-{i}.safetensors")


def load_parts(folder: Path) -> dict[str, torch.Tensor]:
    """Reads what `save_parts` wrote."""
    files = sorted(folder.glob("weights-*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


def write_folder(weights: dict[str, torch.Tensor], target: Path) -> None:
    """Writes an open_clip model folder, fp16, with the full token table.

    Rows of tokens that no caption used are zero: they cost nothing once compressed.

    Args:
        weights: What `load_parts` gives.
        target: The folder; other files in it stay.
    """
    weights = dict(weights)
    vocabulary = weights.pop("vocabulary")
    rows = torch.zeros(VOCABULARY, weights[TABLE].shape[1], dtype=torch.float16)
    rows[vocabulary] = weights[TABLE]
    target.mkdir(parents=True, exist_ok=True)
    path = target / "open_clip_model.safetensors"
    save_file({**weights, TABLE: rows}, path)
    path.chmod(0o644)  # safetensors makes it private
    config = {
        "model_cfg": MODEL,
        "preprocess_cfg": {"mean": list(MEAN), "std": list(STD),
                           "interpolation": "bicubic", "resize_mode": "shortest"},
    }  # fmt: skip
    (target / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
