"""What a page with the prompt box carries, read as its script reads it."""

import base64
import json
import re
from typing import Any

import numpy as np

from cocoop_tutorial.book.prompt_box import as_read


def page_data(html: str) -> dict[str, Any]:
    """The data in the script of a prompt box."""
    return json.loads(re.search(r"var data = (\{.*\});", html)[1])


def nearest_prompt(text: str, prompts: list[str]) -> str:
    """The first of the prompts that share the most pairs of neighbouring letters with a text."""

    def pairs(text: str) -> set[str]:
        return {text[i : i + 2] for i in range(len(text) - 1)}

    typed = pairs(as_read(text))

    def likeness(prompt: str) -> float:  # Dice's
        own = pairs(prompt)
        return 2 * len(own & typed) / max(1, len(own) + len(typed))

    return max(prompts, key=likeness)


def unpack(text: str, width: int) -> np.ndarray:
    """Features `[N, width]` of length 1, from 8-bit integers in base64."""
    rows = np.frombuffer(base64.urlsafe_b64decode(text), np.int8).reshape(-1, width)
    return rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
