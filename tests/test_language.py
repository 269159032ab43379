"""Docstrings, messages, pages and tests use plain technical English, without private idioms."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("fseft", "plugins", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.py")
    if "tests" not in path.relative_to(ROOT).parts
)
TESTS = sorted(
    path
    for folder in ("tests", "plugins")
    for path in (ROOT / folder).rglob("*.py")
    if "tests" in path.relative_to(ROOT).parts and path != Path(__file__)
)
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "plugins").rglob("*.md")]
)

IDIOMS = {
    r"told|tells?": "reported, logged",
    r"gave": "returned",
    r"lies|lay": "is stored",
    r"goes on|go on|went on": "resumes, continues",
    r"anew": "again",
    r"besides?": "in addition to, next to",
    r"but for": "except",
    r"of its own|of their own|by itself|by themselves": "its, separate, alone",
    r"has not|have not(?= [a-z]+[.,;:])": "lacks",
    r"(?<!there )(is|are) no (?!longer|more|less)": "is not a",
    r"asked for": "requested",
    r"(has|have) seen|learned from": "was trained on",
    r"knows? none|(do|does) not know": "has no, lacks",
    r"speaks?": "reports, describes",
    r"says? so": "states it, warns",
    r"doubted": "reported",
    r"the whole of": "all of",
    r"as good as": "equivalent to",
    r"what (lies|there is|is there)": "the content",
    r"want of": "lack of",
    r"(keeps|keep) no other": "does not prevent others",
    r"used as unlabelled": "not used for training",
    r"(?<!\")support (case|set)s?": "training cases",
}
PATTERN = re.compile("|".join(rf"\b(?:{idiom})\b" for idiom in IDIOMS), re.IGNORECASE)


def prose(path: Path) -> list[tuple[int, str]]:
    """Strings and comments of a module, with their lines."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    kinds = (tokenize.STRING, tokenize.COMMENT)
    return [(token.start[0], token.string) for token in tokens if token.type in kinds]


def idioms(lines: list[tuple[int, str]]) -> list[str]:
    return [f"line {line}: {match[0]}" for line, text in lines for match in PATTERN.finditer(text)]


def violations(check: Callable[[Path], list[str]], paths: Iterable[Path]) -> dict[str, list[str]]:
    """File -> what a check finds there; files without a finding are left out."""
    found = {str(path.relative_to(ROOT)): check(path) for path in paths}
    return {name: findings for name, findings in found.items() if findings}


def test_modules_use_plain_technical_english():
    assert violations(lambda path: idioms(prose(path)), SOURCES) == {}


def test_tests_use_plain_technical_english():
    def of_test(path):
        kinds = (ast.FunctionDef, ast.ClassDef)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        definitions = [node for node in ast.walk(tree) if isinstance(node, kinds)]
        names = [(node.lineno, node.name.replace("_", " ")) for node in definitions]
        return idioms([*prose(path), *names])

    assert violations(of_test, TESTS) == {}


def test_pages_use_plain_technical_english():
    def of_page(path):
        return idioms(list(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)))

    assert violations(of_page, PAGES) == {}


def test_no_docstring_is_a_headless_relative_clause():
    def clauses(path):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [
            ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)
        ]
        return [text for text in texts if re.match(r"(What|Who|Whose|Where) ", text)]

    assert violations(clauses, SOURCES) == {}
