"""Take the outputs out of notebooks, as they are kept in git.

Usage: ``python tools/clear.py book/*.ipynb``.
"""

import json
import sys
from pathlib import Path


def clear(path: Path) -> None:
    """Rewrite a notebook without outputs, execution counts and saved widgets."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    notebook["metadata"].pop("widgets", None)
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        clear(Path(name))
