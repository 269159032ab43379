"""The page is one self-contained document in which nothing but our own SVG is markup."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fseft.errors import FseftError
from fseft.reporting.charts import line_chart
from fseft.reporting.figures import encode_png
from fseft.reporting.page import Column, Figure, Highlight, Page, Section, Table, render_page

PICTURE = encode_png(np.zeros((2, 3, 3), np.uint8))
CHART = line_chart({"LoRA": [(0, 1), (1, 2)]}, x_label="k", y_label="Dice")
VOID = {"meta", "img"}


class Balance(HTMLParser):
    """Counts the tags and notes those that are closed out of order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.wrong = [], [], []

    def handle_starttag(self, tag, _attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def render(*, tables=(), figures=(), text=""):
    return render_page(Page("A page", sections=[Section("A section", text, tables, figures)]))


def rows_of(html):
    """The cells of the body of the table as (text, is best)."""
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    return [
        [(text, "best" in tag) for tag, text in re.findall(r"<(t[hd][^>]*)>([^<]*)", row)]
        for row in body.split("<tr>")[1:]
    ]


def test_a_full_page_is_well_formed_and_needs_nothing_from_elsewhere():
    table = Table(
        "All", [Column("Method"), Column("Dice", best="highest")], [("LoRA", 0.8), ("Probe", 0.7)]
    )
    figures = [Figure("A scan", PICTURE, {"liver": (230, 159, 0)}), Figure("A curve", CHART)]
    section = Section("Results", "One.\n\nTwo.", [table], figures)
    html = render_page(Page("T", "S", [Highlight("Dice", "0.8", "of 1")], [section], "F"))
    parser = Balance()
    parser.feed(html)
    assert (parser.wrong, parser.open) == ([], [])
    assert {"dl", "table", "img", "svg", "ul", "footer"} <= set(parser.seen)
    assert not {"script", "link", "iframe", "object"} & set(parser.seen)
    assert not re.search(r'(?:src|href)="(?!data:)|url\(|@import', html)


def test_an_empty_page_is_a_page():
    html = render_page(Page("Nothing yet"))
    assert "<h1>Nothing yet</h1>" in html
    assert not re.search(r"<(section|dl|footer|table)\b", html)


def test_text_from_outside_is_escaped_wherever_it_stands():
    bad = '<script>alert("x")</script>'
    html = render_page(
        Page(
            bad,
            bad,
            [Highlight(bad, bad, bad)],
            [
                Section(
                    bad,
                    bad,
                    [Table(bad, [Column(bad)], [(bad,)])],
                    [Figure(bad, PICTURE, {bad: (1, 2, 3)})],
                )
            ],
            bad,
        )
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 15


def test_a_picture_is_inside_the_page_byte_for_byte():
    html = render(figures=[Figure("A scan", PICTURE)])
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert base64.b64decode(data) == PICTURE
    assert 'alt="A scan"' in html


def test_a_chart_is_inside_the_page_as_it_is():
    assert CHART in render(figures=[Figure("A curve", CHART)])


def test_a_row_of_pictures_has_a_separate_line():
    strip = encode_png(np.zeros((10, 30, 3), np.uint8))
    assert '<figure class="wide">' in render(figures=[Figure("Strip", strip)])
    assert '<figure class="wide">' not in render(figures=[Figure("One", PICTURE)])


def test_an_empty_line_begins_a_paragraph():
    assert render(text="One,\nstill one.").count("<p>") == 1
    assert render(text="One.\n\n\n\nTwo.").count("<p>") == 2


def test_numbers_are_written_alike_and_the_absent_is_a_dash():
    columns = [Column("Name"), Column("Dice"), Column("mm", digits=1), Column("Count")]
    html = render(
        tables=[Table("", columns, [("a", 0.5, 12.345, 262144), ("b", None, float("nan"), 0)])]
    )
    texts = [[text for text, _ in row] for row in rows_of(html)]
    assert texts == [["a", "0.500", "12.3", "262,144"], ["b", "–", "–", "0"]]


def test_the_best_of_a_column_is_marked_with_all_that_reads_the_same():
    columns = [
        Column("Name"),
        Column("Dice", best="highest"),
        Column("mm", 1, best="lowest"),
        Column("Count"),
    ]
    rows = [("a", 0.8421, 4.0, 1), ("b", 0.8424, 9.0, 2), ("c", 0.7, None, 3)]
    marked = [
        [best for _, best in row] for row in rows_of(render(tables=[Table("", columns, rows)]))
    ]
    assert marked == [[False, True, True, False], [False, True, False, False], [False] * 4]


def test_a_single_value_is_not_called_best():
    html = render(tables=[Table("", [Column("Dice", best="highest")], [(0.9,), (None,)])])
    assert not any(best for row in rows_of(html) for _, best in row)


def test_a_row_that_does_not_fit_its_columns_is_refused():
    with pytest.raises(FseftError, match="table 'All' has 2 columns and a row of 1 cells"):
        Table("All", [Column("a"), Column("b")], [("x",)])
