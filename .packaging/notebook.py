"""Make a notebook from a Python file: its cells, and what they give when they are run one after the other.

    python .packaging/notebook.py docs/tour.py docs/tour.ipynb

`# %%` begins a cell of code, `# %% [markdown]` one of text, whose lines are comments. Cells run in this process, from
the project's root, and share their names, as in any notebook; what a cell ends with is shown as a notebook would show
it. No kernel and nothing of Jupyter is needed, and the same run gives the same bytes. The format is nbformat 4.5.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_BEGIN = re.compile(r"^# %%( \[markdown\])?$")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, and whether that is Markdown."""

    text: str
    markdown: bool


def cells_of(source: str) -> list[Cell]:
    """The cells of a file; what stands before the first is left out."""
    found: list[Cell] = []
    lines: list[str] = []
    markdown = begun = False
    for line in [*source.splitlines(), "# %%"]:
        if not (start := _BEGIN.match(line)):
            lines.append(line)
            continue
        text = "\n".join(re.sub(r"^# ?", "", kept) if markdown else kept for kept in lines).strip()
        if begun and text:
            found.append(Cell(text, markdown))
        lines, markdown, begun = [], start[1] is not None, True
    return found


def notebook_of(cells: list[Cell]) -> dict[str, Any]:
    """A notebook of the cells and what they give. An exception in one ends it, with the cell's number as a note."""
    names: dict[str, Any] = {"__name__": "__main__"}
    made, count = [], 0
    for number, cell in enumerate(cells, 1):
        entry: dict[str, Any] = {"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}}
        if not cell.markdown:
            count += 1
            try:
                outputs = list(_outputs(cell.text, names, count))
            except Exception as error:
                error.add_note(f"in cell {number}:\n{cell.text}")
                raise
            entry |= {"cell_type": "code", "execution_count": count, "outputs": outputs}
        made.append({**entry, "source": _lines(cell.text)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def write_notebook(source: Path, target: Path) -> None:
    """Run the cells of `source`, from the current folder, and write `target`."""
    notebook = notebook_of(cells_of(source.read_text(encoding="utf-8")))
    target.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _outputs(code: str, names: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """What a cell prints, and what its last expression gives."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    if printed.getvalue():
        yield {"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())}
    if value is not None:
        shown = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_") and (html := value._repr_html_()):
            shown = {"text/html": _lines(html), **shown}
        yield {"output_type": "execute_result", "execution_count": count, "data": shown, "metadata": {}}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """`notebook.py SOURCE TARGET`."""
    source, target = (Path(word).resolve() for word in sys.argv[1:])
    os.chdir(ROOT)
    write_notebook(source, target)


if __name__ == "__main__":
    main()
