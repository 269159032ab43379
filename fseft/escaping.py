"""Text from files and command lines, made safe for a terminal, Markdown, HTML and JSON."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, except tab and line feed
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # direction and line breaks
    "\ud800-\udfff]"  # bytes of a file name that are not UTF-8
)
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|#]")


def printable(text: str) -> str:
    r"""Returns text in which characters that would act on a terminal or a page are visible.

    These are control characters, marks of the direction of writing, and undecodable bytes. Letters
    of all scripts remain.

    Examples:
        >>> print(printable("liver\x1b[31m 肝臓"))
        liver\x1b[31m 肝臓
    """
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_markdown(text: str) -> str:
    r"""Returns text in one line in which nothing is markup of Markdown or HTML.

    Examples:
        >>> print(escape_markdown("<b>|a_b"))
        \<b\>\|a\_b
    """
    one_line = " ".join(printable(text).split())
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", one_line)


def escape_json(text: str) -> str:
    """Returns JSON in which the characters that `printable` shows are written as escapes."""
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
