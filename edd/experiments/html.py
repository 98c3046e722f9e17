"""HTML and Markdown for tables and figures: one self-contained page, no scripts, no outside links, fit for light and dark."""

import base64
import html
import re
from pathlib import Path

from edd.experiments.tables import Cell, Table

_CSS = """
:root { color-scheme: light dark; --ink: #1d1f23; --soft: #61666f; --line: #d9dce1; --page: #ffffff; --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa1ac; --line: #3a3f47; --page: #16181c; --band: #1e2126; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 84rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, li { max-width: 48rem; }
.soft, .note, figcaption, footer { color: var(--soft); font-size: .86rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; margin: .3rem 0; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
thead tr.groups th { border-bottom: 1px solid var(--line); text-align: center; color: var(--soft); font-weight: 500; }
th.label, td.label { text-align: left; font-weight: 600; }
tbody tr:hover { background: var(--band); }
td small { display: block; color: var(--soft); font-size: .74rem; }
figure { margin: 1.2rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 6px; }
code, pre { font: .82rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--band); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .86rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details summary { cursor: pointer; color: var(--soft); }
"""


def escape(text) -> str:
    """`text` safe inside HTML."""
    return html.escape(str(text))


def prose(text: str) -> str:
    """Escaped text in which **bold** and `code` are set as such.

    Examples:
      >>> prose("**a** < `b`")
      '<strong>a</strong> &lt; <code>b</code>'
    """
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def table_html(table: Table) -> str:
    """A table with grouped column heads; intervals stand small under their numbers."""
    lines = ['<div class="scroll"><table><thead>']
    if any(table.groups):
        lines.append(f'<tr class="groups">{_group_heads(table.groups)}</tr>')
    heads = (f"<th{_label(table, index)}>{escape(name)}</th>" for index, name in enumerate(table.columns))
    lines.append(f"<tr>{''.join(heads)}</tr></thead><tbody>")
    lines += [f"<tr>{''.join(_cell(table, index, cell) for index, cell in enumerate(row))}</tr>" for row in table.rows]
    lines.append("</tbody></table></div>")
    if table.note:
        lines.append(f'<p class="note">{escape(table.note)}</p>')
    return "\n".join(lines)


def _label(table: Table, index: int) -> str:
    return ' class="label"' if index < table.num_labels else ""


def _cell(table: Table, index: int, cell: Cell) -> str:
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    return f"<td{_label(table, index)}>{escape(cell.text)}{interval}</td>"


def _group_heads(groups: list[str]) -> str:
    heads, start = [], 0
    for end in range(1, len(groups) + 1):
        if end == len(groups) or groups[end] != groups[start]:
            heads.append(f'<th colspan="{end - start}">{escape(groups[start])}</th>')
            start = end
    return "".join(heads)


def table_markdown(table: Table, *, intervals: bool = False) -> str:
    """A GitHub table; `intervals` prints the bootstrap intervals in place of the numbers."""
    heads = [f"{group}: {name}" if group else name for group, name in zip(table.groups, table.columns)]
    marks = ["---" if index < table.num_labels else "---:" for index in range(len(heads))]
    lines = [_line(heads), _line(marks)]
    for row in table.rows:
        lines.append(
            _line(
                [
                    cell.interval or (cell.text if index <= table.num_labels else "") if intervals else cell.text
                    for index, cell in enumerate(row)
                ]
            )
        )
    return "\n".join(lines) + (f"\n\n{table.note}" if table.note and not intervals else "")


def _line(cells) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def figure_html(path: Path, caption: str) -> str:
    """A PNG inlined as base64 with its caption."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'


def definition_list(entries: dict) -> str:
    """name: value pairs as a <dl>."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries.items()) + "</dl>"


def page(title: str, body: list[str]) -> str:
    """The whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
