"""The architecture: imports run one way, files and functions stay short, only the CLI prints."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PACKAGE_ROOT = Path(__file__).parents[1] / "fseft"
MODULES = sorted(PACKAGE_ROOT.rglob("*.py"))

# What each package may import in addition to itself: the arrows of the import graph, which has no cycle.
BASE = {"escaping", "plugin", "schemas", "training_config", "errors", "version"}
CORE = BASE | {
    "documents",
    "registration",
    "registry",
    "parallel",
    "lazy_imports",
    "logs",
    "temporaries",
    "workspace",
}
DATA = CORE | {"dataset_json", "volume", "anatomy"}
LEARN = DATA | {"learn", "experiment"}
ZOO = LEARN | {"model_zoo", "planning"}
RUNS = ZOO | {"adaptation", "inference", "metrics", "evaluation"}
PACKAGES = {
    "fseft": {"api", "version"},
    "version": set(),
    "errors": {"version"},
    "lazy_imports": set(),
    "logs": set(),
    "escaping": set(),
    "schemas": BASE,
    "training_config": BASE,
    "plugin": BASE,
    "temporaries": set(),
    "documents": BASE,
    "dataset_json": CORE,
    "workspace": CORE,
    "parallel": CORE,
    "registration": BASE,
    "registry": CORE,
    "volume": CORE,
    "anatomy": CORE,
    "metrics": CORE | {"volume"},
    "reporting": CORE | {"volume"},
    "scaffold": CORE,
    "phantom": DATA | {"experiment"},
    "learn": DATA,
    "experiment": DATA | {"learn"},
    "builtin": DATA | {"learn", "metrics"},
    "testing": LEARN | {"metrics", "planning"},
    "model_zoo": LEARN,
    "planning": LEARN | {"model_zoo"},
    "adaptation": ZOO,
    "inference": ZOO | {"reporting"},
    "pretraining": ZOO,
    "evaluation": ZOO | {"inference", "metrics"},
    "benchmarking": RUNS,
    "exporting": RUNS,
    "result_pages": RUNS | {"benchmarking", "reporting"},
    "diagnostics": ZOO,
    "api": RUNS
    | {
        *("benchmarking", "diagnostics", "exporting", "phantom", "pretraining", "result_pages"),
        "scaffold",
    },
    "demo": RUNS | {"phantom", "reporting", "result_pages", "api"},
    "cli": RUNS | {"api", "benchmarking", "demo", "pretraining", "reporting", "scaffold"},
    "__main__": {"cli"},
}
# What the command line may import at run time in addition to `api`, which does the work: plumbing, the
# formats of the results that it prints, the demonstration, which calls `api` itself, and the
# registry in `main`, as plugins add commands.
CLI_IMPORTS = (
    "fseft.cli",
    "fseft.api",
    "fseft.errors",
    "fseft.escaping",
    "fseft.experiment.callbacks",
    "fseft.schemas",
    "fseft.training_config",
    "fseft.version",
    "fseft.anatomy.vocabulary",
    "fseft.benchmarking.tables",
    "fseft.metrics.fields",
    "fseft.volume.fingerprint.permute_to_orientation",
    "fseft.volume.intensity.modality_name",
    "fseft.demo",
)
CLI_MAIN_IMPORTS = ("fseft.registration", "fseft.registry")
# The same inside `learn`: its packages and top-level modules from the lowest to the highest.
LEARN_PACKAGES = {
    "networks": set(),
    "training": {"networks"},
    "sampling": {"training"},
    "sliding_window": {"networks", "training"},
    "adapters": {"networks", "training"},
    "training_loop": {"adapters", "training"},
}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_FUNCTION_NODES = 250
MAX_NODES_PER_LINE = 12


def package(path: Path) -> str:
    parts = path.relative_to(PACKAGE_ROOT).with_suffix("").parts
    return "fseft" if parts == ("__init__",) else parts[0]


def imported_modules(tree: ast.AST) -> set[str]:
    """The modules of fseft that a module imports, also in functions and for type checking only."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "fseft"}


def without_type_checking(tree: ast.Module) -> ast.Module:
    """The module without what is imported for type checkers only."""
    body = [
        item
        for item in tree.body
        if not (isinstance(item, ast.If) and ast.unparse(item.test) == "TYPE_CHECKING")
    ]
    return ast.Module(body, tree.type_ignores)


def imported_packages(tree: ast.AST) -> set[str]:
    """The packages that a module imports from."""
    packages = {f"{name}..".split(".")[1] for name in imported_modules(tree)}
    return {name or "fseft" for name in packages}


def node(name: str) -> str:
    """The node of a module in the import graph: its package, or in `learn` its sub-package."""
    parts = f"{name}..".split(".")
    if parts[1] == "learn" and parts[2]:
        return f"learn.{parts[2]}"
    return "fseft" if parts[1] in ("", "__init__") else parts[1]


def import_graph() -> dict[str, set[str]]:
    """Node -> the nodes that it imports."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        here = node(".".join(("fseft", *path.relative_to(PACKAGE_ROOT).with_suffix("").parts)))
        graph.setdefault(here, set()).update(map(node, imported_modules(parse(path))))
    return {here: imported - {here} for here, imported in graph.items()}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body(function) -> list[ast.stmt]:
    """The statements of a function without its docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def num_lines(function) -> int:
    statements = body(function)
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0


def nodes(function) -> list[ast.AST]:
    return [node for statement in body(function) for node in ast.walk(statement)]


def nodes_per_line(function) -> float:
    """Nodes without `Load` and `Store` per line; one-line functions are what they are."""
    if num_lines(function) < 2:
        return 0
    kinds = [node for node in nodes(function) if not isinstance(node, ast.expr_context)]
    return len(kinds) / num_lines(function)


def violations(check: Callable[[Path], Iterable[object]]) -> dict[str, list[object]]:
    """Module -> what a check finds there; modules without a finding are left out."""
    found = {str(path.relative_to(PACKAGE_ROOT)): list(check(path)) for path in MODULES}
    return {name: findings for name, findings in found.items() if findings}


def test_every_package_has_its_place():
    assert {package(path) for path in MODULES} <= set(PACKAGES)


def test_imports_run_one_way():
    def forbidden(path):
        here = package(path)
        return imported_packages(parse(path)) - {here} - PACKAGES[here]

    assert violations(forbidden) == {}


def test_the_command_line_calls_the_interface_only():
    def forbidden(path):
        if package(path) != "cli":
            return []
        allowed = CLI_IMPORTS + (CLI_MAIN_IMPORTS if path.stem == "main" else ())
        names = imported_modules(without_type_checking(parse(path)))
        return [name for name in sorted(names) if not name.startswith(allowed)]

    assert violations(forbidden) == {}


def test_the_import_graph_has_no_cycle():
    assert list(TopologicalSorter(import_graph()).static_order())


def test_imports_inside_learn_run_one_way():
    inside = {
        name.removeprefix("learn."): {
            other.removeprefix("learn.") for other in imported if other.startswith("learn.")
        }
        for name, imported in import_graph().items()
        if name.startswith("learn.") and name != "learn.__init__"
    }
    assert inside.keys() == LEARN_PACKAGES.keys()
    assert {name for name in inside if inside[name] - LEARN_PACKAGES[name]} == set()


def test_modules_stay_short_and_say_what_they_are():
    def too_long(path):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        return [lines] if lines > MAX_MODULE_LINES else []

    assert violations(too_long) == {}
    assert [path for path in MODULES if not ast.get_docstring(parse(path))] == []


def test_functions_stay_short():
    def long_functions(path):
        for function in functions(parse(path)):
            if (
                num_lines(function) > MAX_FUNCTION_LINES
                or len(nodes(function)) > MAX_FUNCTION_NODES
            ):
                yield function.name

    assert violations(long_functions) == {}


def test_functions_stay_readable():
    def dense_functions(path):
        for function in functions(parse(path)):
            if nodes_per_line(function) > MAX_NODES_PER_LINE:
                yield function.name

    assert violations(dense_functions) == {}


def test_only_the_command_line_prints():
    def prints(path):
        calls = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
        for call in calls:
            is_print = isinstance(call.func, ast.Name) and call.func.id == "print"
            if is_print and package(path) != "cli":
                yield call.lineno

    assert violations(prints) == {}
