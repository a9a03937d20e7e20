"""What a page with the prompt box carries, read as its script reads it."""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from cocoop_tutorial.book.prompt_box import words_of


def page_data(html: str) -> dict[str, Any]:
    """The data in the script of a prompt box."""
    return json.loads(re.search(r"var data = (\{.*\});", html)[1])


def unpack(text: str, width: int) -> np.ndarray:
    """Features `[N, width]` of length 1, from 8-bit integers in base64."""
    rows = np.frombuffer(base64.urlsafe_b64decode(text), np.int8).reshape(-1, width)
    return rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)


def nearest_template(text: str, name: str, templates: Sequence[str]) -> int:
    """The first template that shares the most words with a text, not counting the class name's."""
    rest = set(words_of(text)) - set(words_of(name))

    def overlap(template: str) -> float:
        own = set(words_of(template))
        return 2 * len(own & rest) / (len(own) + len(rest)) if own or rest else 1.0

    return max(range(len(templates)), key=lambda i: overlap(templates[i]))
