"""Class names become prompts: "{context} {name}.", with places for a learned context (chapter 3).

Notation: K classes, M context tokens, N = the tower's context length, D = text width.
"""

import string
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import PromptError, UnknownNameError, suggest

TEMPLATE = "a photo of a {}."
POSITIONS = ("end", "middle", "front")
INIT_STD = 0.02  # of a random context: what CLIP's own token embeddings began with


def clean_name(name: str) -> str:
    """A class name as it is read: "_" becomes a space."""
    return name.replace("_", " ").strip()


def check_classnames(classnames: Sequence[str], allow_duplicates: bool = False) -> list[str]:
    """Refuses lists of names that cannot be told apart.

    Args:
        classnames: K names.
        allow_duplicates: Two classes may share a name, as they do in the official ImageNet list
            ("missile", "sunglasses"); their logits are then equal.

    Returns:
        The names, unchanged.

    Raises:
        PromptError: No names, an empty name, or a name that is there twice.
    """
    names = [classnames] if isinstance(classnames, str) else list(classnames)
    if not names:
        raise PromptError("The list of class names is empty. Give at least one name.")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not clean_name(name):
            raise PromptError(f"Class {i} has an empty name ({name!r}). Give it a word.")
    counts = Counter(clean_name(name).lower() for name in names)  # CLIP reads lower case
    twice = [name for name, n in counts.items() if n > 1]
    if twice and not allow_duplicates:
        raise PromptError(
            f"Several classes are called {', '.join(map(repr, twice[:5]))}: their prompts would "
            "be the same. Rename them, or pass allow_duplicates=True if the data is like that."
        )
    return names


def fill_template(template: str, classnames: Sequence[str]) -> list[str]:
    """Puts each class name into a hand-made prompt; CLIP (2103.00020), section 3.1.4.

    Args:
        template: A text with one `{}`.
        classnames: K names.

    Returns:
        K texts.

    Raises:
        PromptError: The template does not hold exactly one `{}`.
    """
    try:
        fields = [rest for _, *rest in string.Formatter().parse(template) if rest[0] is not None]
    except ValueError:  # a lonely brace
        fields = []
    if fields != [["", "", None]]:  # name, format, conversion
        raise PromptError(
            f"The template {template!r} must hold {{}} once, where the class name goes, "
            f"as {TEMPLATE!r} does."
        )
    return [template.format(clean_name(name)) for name in classnames]


def initial_context(
    clip: FrozenCLIP, n_ctx: int | None, ctx_init: str | None, n_classes: int | None = None
) -> Tensor:
    """The context before training: the embeddings of words, or small random vectors.

    Args:
        clip: The backbone.
        n_ctx: M; None means as many as `ctx_init` has tokens.
        ctx_init: Words such as "a photo of a"; None or "" draws from a normal distribution with
            standard deviation 0.02.
        n_classes: K, for a context of its own for each class.

    Returns:
        `[M, D]` or `[K, M, D]`, at least float32: SGD's small steps vanish in half precision.

    Raises:
        PromptError: `n_ctx` is not positive, or is not the number of tokens in `ctx_init`.

    CoOp (2109.01134), section 3.2. Introduced in chapter 3.
    """
    dtype = torch.promote_types(clip.dtype, torch.float32)
    leading = () if n_classes is None else (n_classes,)
    if not ctx_init:
        if n_ctx is None or n_ctx < 1:
            raise PromptError(f"n_ctx is {n_ctx}; the context needs at least one vector.")
        drawn = torch.empty(*leading, n_ctx, clip.text_width)  # on the CPU: alike on all devices
        return nn.init.normal_(drawn, std=INIT_STD).to(clip.device, dtype)
    tokens = _tokenizer(clip).encode(clean_name(ctx_init))
    if n_ctx not in (None, len(tokens)):
        raise PromptError(
            f"ctx_init={ctx_init!r} has {len(tokens)} tokens, but n_ctx={n_ctx}. Pass "
            f"n_ctx={len(tokens)}, other words, or ctx_init=None for a random start."
        )
    ids = torch.tensor(tokens, device=clip.device)
    words = clip.text_tower.token_embedding(ids).detach().to(dtype)  # [M, D]
    return words.expand(*leading, -1, -1).clone()


class ClassPrompts(nn.Module):
    """The fixed part of K prompts: token ids, with M empty places for the context.

    A row holds, for each `class_token_position`:

        end      <start> v1 ... vM name . <end>
        middle   <start> v1 ... name ... vM . <end>     (M // 2 vectors before the name)
        front    <start> name v1 ... vM . <end>

    Attributes:
        classnames: The K names, as given.
        tokens: `[K, N]` ids, zero after the end token and in the context's places.
        context_slots: `[K, M]`, the places of the context vectors.
        end_positions: `[K]`, where the end token stands and the feature is read.
        name_lengths: K numbers of tokens, the final "." not counted.

    CoOp (2109.01134), equations 2 and 3. Introduced in chapter 3.
    """

    tokens: Tensor
    context_slots: Tensor
    end_positions: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        classnames: Sequence[str],
        n_ctx: int,
        class_token_position: str = "end",
        allow_duplicates: bool = False,
    ) -> None:
        """Tokenises once; nothing here depends on the images or on training.

        Raises:
            PromptError: An empty or repeated name, or one that is too long for the context.
            UnknownNameError: No such position.
        """
        super().__init__()
        if class_token_position not in POSITIONS:
            raise UnknownNameError(
                f"Unknown class_token_position {class_token_position!r}. "
                f"{suggest(str(class_token_position), POSITIONS)}"
            )
        self.classnames = check_classnames(classnames, allow_duplicates)
        self.n_ctx, self.class_token_position = n_ctx, class_token_position
        self.allow_duplicates = allow_duplicates
        self.name_lengths = [len(_encode_name(clip, name)) for name in self.classnames]
        rows, slots = zip(*map(self._row, self._tails(clip), self.name_lengths), strict=True)
        tokenizer = _tokenizer(clip)
        tokens = torch.zeros(len(rows), clip.context_length, dtype=torch.long)
        for k, row in enumerate(rows):
            ids = [tokenizer.sot_token_id, *row, tokenizer.eot_token_id]
            tokens[k, : len(ids)] = torch.tensor(ids)
        ends = torch.tensor([len(row) + 1 for row in rows])
        # Not saved with the model: they follow from the names and the backbone.
        self.register_buffer("tokens", tokens.to(clip.device), persistent=False)
        self.register_buffer("context_slots", torch.tensor(slots).to(clip.device), persistent=False)
        self.register_buffer("end_positions", ends.to(clip.device), persistent=False)

    def _tails(self, clip: FrozenCLIP) -> list[list[int]]:
        """The tokens of "{name}." for each class, checked against the context length."""
        tails = [_encode_name(clip, name, ".") for name in self.classnames]
        for name, tail in zip(self.classnames, tails, strict=True):
            length = self.n_ctx + len(tail) + 2  # and start and end token
            if length > clip.context_length:
                raise PromptError(
                    f"The prompt of class {name!r} has {length} tokens ({self.n_ctx} of context, "
                    f"{len(tail)} for the name), but {clip.name} reads {clip.context_length}. "
                    "Shorten the name or lower n_ctx."
                )
        return tails

    def _row(self, tail: list[int], name_length: int) -> tuple[list[int], list[int]]:
        """Places M zeros in "{name}."; returns the ids and the zeros' places behind <start>."""
        before = {"end": self.n_ctx, "middle": self.n_ctx // 2, "front": 0}
        first = before[self.class_token_position]
        rest = self.n_ctx - first
        row = [0] * first + tail[:name_length] + [0] * rest + tail[name_length:]
        slots = [*range(first), *range(first + name_length, self.n_ctx + name_length)]
        return row, [slot + 1 for slot in slots]

    def extra_repr(self) -> str:
        """One line for `print(model)`."""
        return f"K={len(self.classnames)}, M={self.n_ctx}, name at the {self.class_token_position}"


def _encode_name(clip: FrozenCLIP, name: str, ending: str = "") -> list[int]:
    ids = _tokenizer(clip).encode(clean_name(name) + ending)
    if not ids:
        raise PromptError(f"The class name {name!r} has no character that {clip.name} can read.")
    return ids


def _tokenizer(clip: FrozenCLIP) -> object:
    """CLIP's tokenizer; others lack the start token that the context stands behind."""
    if not hasattr(clip.tokenizer, "sot_token_id") or not hasattr(clip.tokenizer, "encode"):
        raise PromptError(
            f"{clip.name} does not use CLIP's tokenizer, so a context cannot be placed in its "
            "prompts. ZeroShotCLIP works; for CoOp and CoCoOp choose a model such as 'emoji-clip'."
        )
    return clip.tokenizer
