"""Saving and loading learned prompts (chapter 10).

A prompt learner is described by its class, its options and its parameters, and is rebuilt from
these. This works for your own subclasses too: a class is known by its name once it is defined, and
its `options` must return the arguments of its `__init__`.
"""

import contextlib
import dataclasses
import inspect
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cocoop_tutorial.checkpoints import hub
from cocoop_tutorial.checkpoints.prompts import check_fit, read_prompts, sizes_of, write_prompts
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.errors import CheckpointError, CocoopError, first_line, suggest


class Saveable:
    """`save_pretrained`, `push_to_hub` and `from_pretrained`, as other Hub libraries have them.

    What can be saved is a module with a backbone, class names, `options`, and parameters that
    train.

    Attributes:
        known: The prompt learners that have been defined, by name.
    """

    known: ClassVar[dict[str, type["Saveable"]]] = {}
    clip: FrozenCLIP
    classnames: list[str]

    def __init_subclass__(cls, **options: Any) -> None:
        """Registers the class under its name, unless another class already has that name."""
        super().__init_subclass__(**options)
        first = Saveable.known.setdefault(cls.__name__, cls)
        if _origin(first) == _origin(cls):  # a notebook cell was run again
            Saveable.known[cls.__name__] = cls

    def save_pretrained(
        self, folder: str | Path, training: Mapping[str, Any] | Any | None = None
    ) -> Path:
        """Writes the files of a Hub repository: weights, `config.json` and model card.

        Args:
            folder: The folder, made if it does not exist. An existing README.md stays.
            training: The training settings, to keep with the prompt.

        Returns:
            The folder.

        Raises:
            CheckpointError: A file cannot be written, or could not be loaded again.
        """
        return hub.write_folder(folder, *_content(self, training))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        training: Mapping[str, Any] | Any | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Add a learned prompt",
    ) -> str:
        """Uploads the prompt to the Hub and makes the repository if it does not exist.

        Args:
            repo_id: "name" or "owner/name".
            training: The training settings, to keep with the prompt.
            private: Whether a new repository is private; None takes the owner's default.
            token: An access token; None takes the one of `hf auth login`.
            revision: The branch.
            commit_message: The first line of the commit.

        Returns:
            The address of the commit.
        """
        content = _content(self, training)
        return hub.upload(*content, repo_id, private, token, revision, commit_message)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        clip: FrozenCLIP | None = None,
        classnames: Sequence[str] | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Loads a prompt from a folder or from the Hub.

        Args:
            name: A folder made by `save_pretrained`, or a Hub repository "owner/name".
            clip: The backbone, if you have it; None loads the one that the prompt names.
            classnames: Other classes for the same prompt; None takes the saved ones.
            revision: Branch, tag or commit on the Hub.
            token: An access token, for private repositories.
            cache_dir: Where downloads are kept.
            local_files_only: Do not use the network.

        Returns:
            The model.

        Raises:
            MissingDataError: There is neither a folder with weights nor a repository that can be
                reached.
            CheckpointError: The prompt is damaged, for another backbone, or of another method.
        """
        path = hub.find_weights(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        model = load_prompts(path, clip, classnames)
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise CheckpointError(f"{name} holds a {kind} prompt. Use {kind}.from_pretrained.")
        return model

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The arguments, besides backbone and names, that build this model again."""

    def prompt_parameters(self) -> dict[str, nn.Parameter]:
        """What trains, by its official names: "ctx", "meta_net.linear1.weight" ..."""
        return {n: p for n, p in self.named_parameters() if not n.startswith("clip.")}

    def prompt_state(self) -> dict[str, Tensor]:
        """A copy of what trains, on the CPU: all that a checkpoint needs to hold."""
        return {
            name: p.detach().to("cpu", copy=True).contiguous()
            for name, p in self.prompt_parameters().items()
        }

    @torch.no_grad()
    def load_prompt_state(self, state: dict[str, Tensor]) -> None:
        """Copies a `prompt_state` into the parameters, in place.

        Raises:
            CheckpointError: A parameter is missing, unknown, or of another shape. Nothing is
                changed then.
        """
        parameters = self.prompt_parameters()
        kind = type(self).__name__
        if unlike := sorted(parameters.keys() ^ state.keys()):
            raise CheckpointError(
                f"These parameters are on one side only: {', '.join(unlike)}. The checkpoint has "
                f"{', '.join(state)}; this {kind} has {', '.join(parameters)}."
            )
        for name, parameter in parameters.items():
            if state[name].shape != parameter.shape:
                raise CheckpointError(
                    f"{name} is {list(state[name].shape)} in the checkpoint, but "
                    f"{list(parameter.shape)} in this {kind} for {self.clip.name}."
                )
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def save_prompts(
    model: Saveable, path: str | Path, training: Mapping[str, Any] | Any | None = None
) -> Path:
    """Writes the learned prompt to a safetensors file.

    The file is written completely or not at all: if the disk is full, an older file stays.

    Args:
        model: A CoOp, a CoCoOp, or a prompt learner of your own.
        path: The file; missing folders are made.
        training: The training settings to keep with it: a mapping or a dataclass.

    Returns:
        The path.

    Raises:
        CheckpointError: The file cannot be written, or could not be loaded again.
    """
    return write_prompts(path, *_content(model, training))


def load_prompts(
    path: str | Path, clip: FrozenCLIP | None = None, classnames: Sequence[str] | None = None
) -> Saveable:
    """Builds the model that `save_prompts` wrote.

    Args:
        path: The file.
        clip: The backbone, if you have it; None loads the one that the file names.
        classnames: Other classes for the same prompt; None takes those of the file.

    Returns:
        A CoOp, a CoCoOp, or a prompt learner of your own.

    Raises:
        MissingDataError: No such file.
        CheckpointError: It is damaged, another kind of file, or does not fit the backbone.
    """
    facts, state = read_prompts(path)
    with _named(path):
        _class_of(facts)  # before the backbone is loaded
        clip = clip or load_clip(facts["backbone"])
        check_fit(clip, facts["sizes"], path)
        model = rebuild(facts, state, clip)
    if clip.name != facts["backbone"]:
        warnings.warn(
            f"{path} was trained on {facts['backbone']!r}, and is now loaded on {clip.name!r}: "
            "its numbers mean something only if these are the same weights.",
            stacklevel=2,
        )
    return model if classnames is None else model.with_classnames(classnames)


def describe(model: Saveable, training: Mapping[str, Any] | Any | None = None) -> dict[str, Any]:
    """What a file says about a model, besides the parameters: plain values for JSON."""
    if dataclasses.is_dataclass(training) and not isinstance(training, type):
        training = dataclasses.asdict(training)
    return {
        "method": type(model).__name__,
        "backbone": model.clip.name,
        "sizes": sizes_of(model.clip),
        "options": model.options(),
        "classnames": model.classnames,
        "training": dict(training or {}),
    }


def rebuild(facts: Mapping[str, Any], state: Mapping[str, Tensor], clip: FrozenCLIP) -> Saveable:
    """Builds a model from what `describe` returned and from its parameters.

    Raises:
        CheckpointError: No such method, or its options and parameters contradict each other.
        PromptError: A class name cannot be used with this backbone.
    """
    cls, options = _class_of(facts), facts["options"]
    n_ctx = state["ctx"].shape[-2] if "ctx" in state and state["ctx"].dim() > 1 else 0
    if options.get("n_ctx", n_ctx) != n_ctx:  # before memory for that many is taken
        raise CheckpointError(
            f"the context has {n_ctx} vectors, but the options say n_ctx={options['n_ctx']}."
        )
    try:
        inspect.signature(cls).bind(clip, facts["classnames"], **options)
        with torch.random.fork_rng(devices=[]):  # the first context is drawn, then overwritten
            model = cls(clip, facts["classnames"], **options)
    except CocoopError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{cls.__name__} cannot be built with the options {options} ({first_line(error)}). "
            "Its `options` must return the arguments of its `__init__`."
        ) from error
    model.load_prompt_state(dict(state))
    return model


def _class_of(facts: Mapping[str, Any]) -> type[Saveable]:
    cls = Saveable.known.get(facts["method"])
    if cls is None or inspect.isabstract(cls):
        known = [name for name, kind in Saveable.known.items() if not inspect.isabstract(kind)]
        raise CheckpointError(
            f"the method {facts['method']!r} is not known here. {suggest(facts['method'], known)} "
            "Import the module that defines it, or update the library."
        )
    return cls


def _content(
    model: Saveable, training: Mapping[str, Any] | Any | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and parameters of a model, from which it is rebuilt as a trial before it is written."""
    facts, state, kind = describe(model, training), model.prompt_state(), type(model)
    if _origin(Saveable.known[kind.__name__]) != _origin(kind):
        raise CheckpointError(f"Another class is called {kind.__name__}. Rename yours to save it.")
    with _named(f"This {kind.__name__} could not be loaded again and was not saved"):
        rebuild(facts, state, model.clip)
    return facts, state


def _origin(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


@contextlib.contextmanager
def _named(what: str | Path) -> Iterator[None]:
    """Puts the name of a file before errors about its content."""
    try:
        yield
    except CheckpointError as error:
        if str(error).startswith(str(what)):
            raise
        raise CheckpointError(f"{what}: {error}") from error
