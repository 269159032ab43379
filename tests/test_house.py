"""The walls of the house: imports run one way, files and functions stay short, only the front door speaks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "fseft"
MODULES = sorted(HOUSE.rglob("*.py"))

# What each room may import, besides itself.
BASE = {"plugin", "documents", "recipe", "errors", "fseft"}
GROUND = BASE | {"registry", "observers", "parallel", "store"}
ROOMS = {
    "fseft": set(),
    "errors": {"fseft"},
    "documents": BASE,
    "recipe": BASE,
    "plugin": BASE,
    "store": GROUND,
    "parallel": GROUND,
    "registry": GROUND,
    "observers": GROUND,
    "volume": GROUND,
    "learn": GROUND | {"volume"},
    "score": GROUND | {"volume"},
    "builtin": GROUND | {"volume", "learn"},
    "testing": GROUND | {"volume", "learn"},
    "steps": GROUND | {"volume", "learn", "score"},
    "cli": GROUND | {"volume", "learn", "score", "steps"},
    "__main__": {"cli"},
}
MAX_MODULE_LINES = 310
MAX_FUNCTION_LINES = 60


def room(path: Path) -> str:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return "fseft" if parts == ("__init__",) else parts[0]


def imported_rooms(tree: ast.AST) -> set[str]:
    """The rooms of the house that a module imports from, also inside its functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "fseft":
            names |= {f"fseft.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    inside = (f"{name}.".split(".") for name in names if name.split(".")[0] == "fseft")
    return {"fseft" if parts[1] in ("", "__version__") else parts[1] for parts in inside}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function, here: str) -> int:
    """Lines without the docstring; in `cli` without the signature, the table of options, too."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    signature = 0 if here == "cli" else function.body[0].lineno - function.lineno
    return signature + (body[-1].end_lineno - body[0].lineno + 1 if body else 0)


@pytest.fixture(params=MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def path(request):
    return request.param


def test_every_room_has_its_place():
    assert {room(path) for path in MODULES} <= set(ROOMS)


def test_imports_run_one_way(path):
    here = room(path)
    assert imported_rooms(parse(path)) - {here} <= ROOMS[here]


def test_a_module_stays_short_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    assert ast.get_docstring(parse(path))


def test_functions_stay_short(path):
    long = {function.name: length(function, room(path)) for function in functions(parse(path))}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


def test_only_the_front_door_speaks(path):
    if room(path) == "cli":
        return
    calls = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"] == []
