"""HTML and Markdown of a table: escaped, aligned, complete."""

from edd.experiments import html
from edd.experiments.tables import Cell, Table

TABLE = Table(
    title="t",
    columns=["row", "n", "H", "I"],
    groups=["", "", "AUROC %", "AUROC %"],
    rows=[[Cell("a<b|c"), Cell("1"), Cell("2.0", "[1.0, 3.0]"), Cell("–")]],
    num_labels=1,
    note="a & b",
)


def test_markdown():
    lines = html.table_markdown(TABLE).split("\n")
    assert lines[:3] == ["| row | n | AUROC %: H | AUROC %: I |", "| --- | ---: | ---: | ---: |", "| a<b\\|c | 1 | 2.0 | – |"]
    assert lines[-1] == "a & b"
    assert html.table_markdown(TABLE, intervals=True).split("\n")[2] == "| a<b\\|c | 1 | [1.0, 3.0] |  |"


def test_html():
    text = html.table_html(TABLE)
    assert "a&lt;b|c" in text and "a &amp; b" in text and "<small>[1.0, 3.0]</small>" in text
    assert '<th colspan="2">AUROC %</th>' in text and text.count("<td") == 4


def test_page_is_one_document():
    text = html.page("a <b>", ["<p>x</p>"])
    assert "<title>a &lt;b&gt;</title>" in text and text.count("<html") == text.count("</html>") == 1


def test_figure_is_inlined(tmp_path):
    (tmp_path / "x.png").write_bytes(b"abc")
    assert 'src="data:image/png;base64,YWJj"' in html.figure_html(tmp_path / "x.png", 'a "b"')
    assert "a &quot;b&quot;" in html.figure_html(tmp_path / "x.png", 'a "b"')


def test_definition_list():
    assert html.definition_list({"a<": None}) == "<dl><dt>a&lt;</dt><dd>None</dd></dl>"
