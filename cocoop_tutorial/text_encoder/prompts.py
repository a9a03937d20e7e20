"""Class names become prompts: "{context} {name}.", with a learned context (chapter 3).

Notation: K classes, M context tokens, T = the tower's context length, D = text width.
"""

import string
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cocoop_tutorial.classnames import check_classnames, clean_name
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import PromptError, check_known
from cocoop_tutorial.seeds import as_int

TEMPLATE = "a photo of a {}."
POSITIONS = ("end", "middle", "front")
INIT_STD = 0.02  # of a random context: what CLIP's own token embeddings began with


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
    except ValueError:  # a single brace
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
        n_ctx: M; None takes the number of tokens in `ctx_init`.
        ctx_init: Words such as "a photo of a"; None or "" draws from a normal distribution with
            standard deviation 0.02.
        n_classes: K, if each class has a context of its own.

    Returns:
        `[M, D]` or `[K, M, D]`, at least in float32, because SGD's small steps would vanish in
        half precision.

    Raises:
        PromptError: `n_ctx` is not a number of vectors that fit into a prompt, or not the number of
            tokens in `ctx_init`; or no word is in `ctx_init`.

    CoOp (2109.01134), section 3.2. Introduced in chapter 3.
    """
    dtype = torch.promote_types(clip.dtype, torch.float32)
    if ctx_init is not None and not isinstance(ctx_init, str):
        raise PromptError(f"ctx_init is {ctx_init!r}; it must be words, in quotes, or None.")
    leading = () if n_classes is None else (n_classes,)
    if not ctx_init:
        _check_n_ctx(clip, n_ctx)
        # Drawn on the CPU, so that it is the same on all devices.
        drawn = torch.empty(*leading, n_ctx, clip.text_width)
        return nn.init.normal_(drawn, std=INIT_STD).to(clip.device, dtype)
    tokens = _tokenizer(clip).encode(clean_name(ctx_init))
    if not tokens:
        raise PromptError(
            f"ctx_init={ctx_init!r} has no word that {clip.name} can read. Give it words, or None "
            "for a random start."
        )
    if n_ctx not in (None, len(tokens)):
        raise PromptError(
            f"ctx_init={ctx_init!r} has {len(tokens)} tokens, but n_ctx={n_ctx}. Pass "
            f"n_ctx={len(tokens)}, other words, or ctx_init=None for a random start."
        )
    ids = torch.tensor(tokens, device=clip.device)
    words = clip.text_tower.token_embedding(ids).detach().to(dtype)  # [M, D]
    return words.expand(*leading, -1, -1).clone()


def _check_n_ctx(clip: FrozenCLIP, n_ctx: int | None) -> None:
    """Before memory for the context is taken."""
    if as_int(n_ctx) is None or n_ctx < 1:
        raise PromptError(
            f"n_ctx is {n_ctx!r}; it must be a whole number, and at least one vector is needed."
        )
    if n_ctx > clip.context_length - 3:  # start token, end token, and one for the name
        raise PromptError(
            f"A context of {n_ctx} vectors leaves no room for a name, because {clip.name} reads "
            f"{clip.context_length} tokens: lower n_ctx."
        )


class ClassPrompts(nn.Module):
    """The fixed part of K prompts: token ids, and where the M context vectors go.

    The order depends on `class_token_position`:

        end      <start> v1 ... vM name . <end>
        middle   <start> v1 ... name ... vM . <end>     (M // 2 vectors before the name)
        front    <start> name v1 ... vM . <end>

    Attributes:
        classnames: The K names, as given.
        class_specific: Whether each class has a context of its own.
        sequences: K lists of token ids, from the start token to the end token. Where a context
            vector goes, -1 - i stands for row i of the context, which is `[M, D]`, or
            `[K * M, D]` if it is class-specific.
        prefix: How many context vectors stand right after the start token of every prompt and
            are the same for all classes.
        tokens: `[K, T]`, the sequences padded with zeros; zeros also where the context goes.
        context_slots: `[K, M]`, the positions of the context vectors.
        end_positions: `[K]`, where the end token stands and the feature is read.

    CoOp (2109.01134), equations 2 and 3. Introduced in chapter 3.
    """

    tokens: Tensor
    context_slots: Tensor
    end_positions: Tensor

    @torch.inference_mode(False)  # because the prompts may be trained later
    def __init__(
        self,
        clip: FrozenCLIP,
        classnames: Sequence[str],
        n_ctx: int,
        class_token_position: str = "end",
        allow_duplicates: bool = False,
        class_specific: bool = False,
    ) -> None:
        """Tokenises once; nothing here depends on the images or on training.

        Raises:
            PromptError: An empty or repeated name, or one that is too long for the context.
            UnknownNameError: No such position.
        """
        super().__init__()
        check_known("class_token_position", class_token_position, POSITIONS)
        self.classnames = check_classnames(classnames, allow_duplicates)
        self.n_ctx, self.class_token_position = n_ctx, class_token_position
        self.allow_duplicates, self.class_specific = allow_duplicates, class_specific
        before_name = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[class_token_position]
        self.prefix = 0 if class_specific else before_name
        classes = range(len(self.classnames))
        self.sequences = [self._sequence(clip, k, before_name) for k in classes]
        rows = torch.zeros(len(self.sequences), clip.context_length, dtype=torch.long)  # [K, T]
        for row, sequence in zip(rows, self.sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence)
        slots = (rows < 0).nonzero()[:, 1].view(-1, n_ctx)
        ends = torch.tensor([len(sequence) - 1 for sequence in self.sequences])
        # Not saved with the model: they follow from the names and the backbone.
        self.register_buffer("tokens", rows.clamp(min=0).to(clip.device), persistent=False)
        self.register_buffer("context_slots", slots.to(clip.device), persistent=False)
        self.register_buffer("end_positions", ends.to(clip.device), persistent=False)

    def _sequence(self, clip: FrozenCLIP, k: int, before_name: int) -> list[int]:
        """Puts start token, context, "{name}." and end token of class k in order."""
        tokenizer, name = _tokenizer(clip), self.classnames[k]
        first = k * self.n_ctx if self.class_specific else 0
        context = [-1 - row for row in range(first, first + self.n_ctx)]
        length, ids = len(_encode_name(clip, name)), _encode_name(clip, name, ".")
        row = context[:before_name] + ids[:length] + context[before_name:] + ids[length:]
        if len(row) + 2 > clip.context_length:
            raise PromptError(
                f"The prompt of class {name!r} has {len(row) + 2} tokens ({self.n_ctx} of context, "
                f"{len(ids)} for the name), but {clip.name} reads {clip.context_length}. "
                "Shorten the name or lower n_ctx."
            )
        return [tokenizer.sot_token_id, *row, tokenizer.eot_token_id]

    def extra_repr(self) -> str:
        """One line for `print(model)`."""
        return f"K={len(self.classnames)}, M={self.n_ctx}, name at the {self.class_token_position}"


def _encode_name(clip: FrozenCLIP, name: str, ending: str = "") -> list[int]:
    ids = _tokenizer(clip).encode(clean_name(name) + ending)
    if not ids:
        raise PromptError(f"The class name {name!r} has no character that {clip.name} can read.")
    return ids


def _tokenizer(clip: FrozenCLIP) -> object:
    """CLIP's tokenizer; others have no start token to put the context after."""
    if not hasattr(clip.tokenizer, "sot_token_id") or not hasattr(clip.tokenizer, "encode"):
        raise PromptError(
            f"{clip.name} does not use CLIP's tokenizer, so a context cannot be placed in its "
            "prompts. ZeroShotCLIP works; for CoOp and CoCoOp choose a model such as 'icon-clip'."
        )
    return clip.tokenizer
