"""Sharing a learned prompt by the conventions of the Hugging Face Hub (chapter 10)."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from huggingface_hub import HfApi, ModelCardData, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import CheckpointError, MissingDataError

if TYPE_CHECKING:
    from cocoop_tutorial.models.prompt_learner import PromptLearner

WEIGHTS, CONFIG = "model.safetensors", "config.json"

CARD = "README.md"
CARD_TEXT = """# {method} prompt for {n_classes} classes

A context of {n_ctx} vectors for {backbone}, learned with
[{method}](https://arxiv.org/abs/{paper}). The backbone is not in this repository.

```python
from cocoop_tutorial import {method}

model = {method}.from_pretrained("THIS_REPOSITORY")
logits = model(images)  # [B, {n_classes}]
```

Classes: {classes}.
"""
PAPERS = {"CoOp": "2109.01134", "CoCoOp": "2203.05557"}


class HubMixin:
    """`save_pretrained`, `push_to_hub` and `from_pretrained`, as other Hub libraries have them."""

    def save_pretrained(
        self: "PromptLearner", folder: str | Path, training: Mapping[str, Any] | Any | None = None
    ) -> Path:
        """Writes the folder that a Hub repository holds: weights, `config.json`, model card.

        Args:
            folder: Made if it is not there. A README.md that is there stays.
            training: The training settings, to keep with the prompt.

        Returns:
            The folder.

        Raises:
            CheckpointError: A file cannot be written.
        """
        from cocoop_tutorial.checkpoints.prompts import (
            prompts as checkpoints,  # it builds on the models, which have this class as a base
        )

        folder = Path(folder)
        facts = checkpoints.describe(self, training)
        checkpoints.save_prompts(self, folder / WEIGHTS, training)
        config = json.dumps({"library_name": "cocoop_tutorial", **facts}, indent=2, default=str)
        checkpoints.write_atomic(folder / CONFIG, config.encode())
        if not (folder / CARD).exists():
            checkpoints.write_atomic(folder / CARD, model_card(facts).encode())
        return folder

    def push_to_hub(
        self: "PromptLearner",
        repo_id: str,
        *,
        training: Mapping[str, Any] | Any | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Add a learned prompt",
    ) -> str:
        """Uploads the prompt to the Hub, making the repository if need be.

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
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, training)
            info = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
        return info.commit_url

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
            local_files_only: Never ask the network.

        Returns:
            The model.

        Raises:
            MissingDataError: Neither a folder with weights nor a repository within reach.
            CheckpointError: Damaged, made for another backbone, or of another method.
        """
        from cocoop_tutorial.checkpoints import prompts as checkpoints

        path = Path(name) / WEIGHTS
        if not Path(name).is_dir():
            path = _download(str(name), revision, token, cache_dir, local_files_only)
        model = checkpoints.load_prompts(path, clip, classnames)
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise CheckpointError(f"{name} holds a {kind} prompt. Use {kind}.from_pretrained.")
        return model


def _download(
    name: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> Path:
    try:
        file = hf_hub_download(
            name,
            WEIGHTS,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingDataError(
            f"{name!r} is no folder here, and {WEIGHTS} could not be had from the Hub ({reason}). "
            "Check the name and the network, or copy the folder here and give its path."
        ) from error
    return Path(file)


def model_card(facts: Mapping[str, Any]) -> str:
    """A model card with the Hub's metadata block.

    Class names come from folders and from other people's files, so they are only ever data: no
    template engine sees them, and Markdown shows them as they are.

    Args:
        facts: What `checkpoints.describe` returns.
    """
    method, names = facts["method"], facts["classnames"]
    text = CARD_TEXT.format(
        method=method,
        paper=PAPERS[method],
        n_classes=len(names),
        n_ctx=facts["options"]["n_ctx"],
        backbone=escape_markdown(facts["backbone"]),
        classes=", ".join(map(escape_markdown, names[:20])) + (" ..." if len(names) > 20 else ""),
    )
    data = ModelCardData(
        library_name="cocoop_tutorial",
        tags=["prompt-learning", "clip", method.lower()],
        pipeline_tag="zero-shot-image-classification",
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def escape_markdown(text: str) -> str:
    """Text that Markdown renders unchanged, on one line."""
    return re.sub(r"([\\`*_\[\]<>&~|$#!])", r"\\\1", " ".join(text.split()))
