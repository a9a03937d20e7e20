"""Folders and repositories of learned prompts, by the conventions of the Hugging Face Hub.

Introduced in chapter 10.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCardData, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from cocoop_tutorial.checkpoints.prompts import write_prompts
from cocoop_tutorial.errors import MissingDataError, first_line
from cocoop_tutorial.files import write_atomic

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
CARD_TEXT = """# {method} prompt for {n_classes} classes

A context of {n_ctx} vectors for {backbone}, learned with
{link}. The backbone is not in this repository.

```python
from {module} import {method}

model = {method}.from_pretrained("THIS_REPOSITORY")
logits = model(images)  # [B, {n_classes}]
```

Classes: {classes}.
"""
PAPERS = {"CoOp": "2109.01134", "CoCoOp": "2203.05557"}


def write_folder(folder: str | Path, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Path:
    """Writes the files of a Hub repository: weights, `config.json` and model card.

    Args:
        folder: The folder, made if it does not exist. An existing README.md stays.
        facts: As for `write_prompts`.
        state: The parameters by name.

    Returns:
        The folder.

    Raises:
        CheckpointError: A file cannot be written, or a parameter is not finite.
    """
    folder = Path(folder)
    write_prompts(folder / WEIGHTS, facts, state)
    config = json.dumps({"library_name": "cocoop_tutorial", **facts}, indent=2, default=str)
    write_atomic(folder / CONFIG, config.encode())
    if not (folder / CARD).exists():
        write_atomic(folder / CARD, model_card(facts).encode())
    return folder


def upload(
    facts: Mapping[str, Any],
    state: Mapping[str, Tensor],
    repo_id: str,
    private: bool | None,
    token: str | None,
    revision: str | None,
    commit_message: str,
) -> str:
    """Uploads a prompt to the Hub and makes the repository if it does not exist.

    Returns:
        The address of the commit.
    """
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(folder, facts, state)  # first, because it may be refused
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        info = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
        )
    return info.commit_url


def find_weights(name: str | Path, **download: Any) -> Path:
    """The weights of a prompt, from a local folder or a Hub repository.

    Args:
        name: A folder, or a repository "owner/name".
        download: Options of `hf_hub_download`.

    Returns:
        The file; in a folder it may be missing.

    Raises:
        MissingDataError: There is no such folder, and no such repository can be reached.
    """
    if Path(name).is_dir():
        return Path(name) / WEIGHTS
    try:
        return Path(hf_hub_download(str(name), WEIGHTS, **download))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingDataError(
            f"{str(name)!r} is not a folder, and {WEIGHTS} could not be downloaded from the Hub "
            f"({first_line(error)}). Check the name and the network, or copy the folder to this "
            "machine and give its path."
        ) from error


def model_card(facts: Mapping[str, Any]) -> str:
    """A model card with the Hub's metadata block.

    Class names come from folders and from other people's files. No template engine therefore sees
    them, and Markdown shows them unchanged.

    Args:
        facts: As for `write_prompts`.
    """
    method, names = facts["method"], facts["classnames"]
    known = method in PAPERS
    text = CARD_TEXT.format(
        method=method,
        link=f"[{method}](https://arxiv.org/abs/{PAPERS[method]})" if known else method,
        module="cocoop_tutorial" if known else "where_it_is_defined",
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
