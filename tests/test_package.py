"""The package as a whole: public names, errors, annotations."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import cocoop_tutorial
from cocoop_tutorial import errors

FILES = sorted(Path(cocoop_tutorial.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("name", [n for n in cocoop_tutorial.__all__ if n != "__version__"])
def test_public_name_is_importable_and_documented(name: str) -> None:
    value = getattr(cocoop_tutorial, name)
    assert (inspect.getdoc(value) or "").strip()
    assert name in dir(cocoop_tutorial)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cocoop_tutorial.no_such_name


def test_every_error_is_also_a_builtin_one() -> None:
    kinds = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]
    assert len(kinds) >= 9
    for kind in kinds:
        assert issubclass(kind, errors.CocoopError)
        if kind is not errors.CocoopError:
            assert issubclass(kind, ValueError | RuntimeError | FileNotFoundError)


def test_near_names() -> None:
    assert errors.suggest("COCOOP", ["CoOp", "CoCoOp"]).startswith("Did you mean 'CoCoOp'")
    assert errors.suggest("zzz", ["one", "two"]) == "There are: one, two."
    assert errors.suggest("zzz", [f"name{i}" for i in range(50)]).endswith("and others.")


def test_every_module_imports() -> None:
    for module in pkgutil.walk_packages(cocoop_tutorial.__path__, "cocoop_tutorial."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_functions_are_annotated(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            named = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            bare = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
            assert not bare, f"{path.name}:{node.lineno} {node.name}: {bare}"
            assert node.returns is not None, f"{path.name}:{node.lineno} {node.name}: returns"
