"""What a page with the prompt box carries, read as its script reads it."""

import base64
import json
import re
from typing import Any

import numpy as np


def page_data(html: str) -> dict[str, Any]:
    """The data in the script of a prompt box."""
    return json.loads(re.search(r"var data = (\{.*\});", html)[1])


def unpack(text: str, width: int) -> np.ndarray:
    """Features `[N, width]` of length 1, from 8-bit integers in base64."""
    rows = np.frombuffer(base64.urlsafe_b64decode(text), np.int8).reshape(-1, width)
    return rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
