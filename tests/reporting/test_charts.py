"""Charts are well-formed SVG, and rise where their values rise."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.reporting.charts import line_chart

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    """Return the root of a chart, and the points of each of its lines."""
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    lines = []
    for element in root.iter(f"{SVG}polyline"):
        points = element.get("points").split()
        lines.append([tuple(map(float, point.split(","))) for point in points])
    return root, lines


def test_a_chart_rises_where_its_values_rise():
    series = {"LoRA": [(1, 0.2), (5, 0.5), (10, 0.8)]}
    _, (line,) = parse(line_chart(series, x_label="k", y_label="Dice"))
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)


def test_names_are_escaped_and_all_are_in_the_legend():
    series = {"<b> & co": [(0, 1)], "LoRA": [(0, 2)]}
    root, _ = parse(line_chart(series, x_label="<x>", y_label='"y"'))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"<b> & co", "LoRA", "<x>", '"y"'} <= texts


names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30)
points = st.tuples(st.floats(-1e6, 1e6), st.floats(width=32))


@settings(max_examples=25)
@given(st.dictionaries(names, st.lists(points, max_size=5), max_size=8))
def test_any_values_give_a_well_formed_chart_within_its_frame(series):
    root, lines = parse(line_chart(series, x_label="x", y_label="y"))
    _, _, width, height = map(float, root.get("viewBox").split())
    for line in lines:
        for x, y in line:
            assert 0 <= x <= width
            assert 0 <= y <= height
