"""Pages of the manual that are made of something else, written to ``docs/_generated`` before Sphinx reads.

The API pages come from the package, the gallery from ``notebooks``, and the pages of the repository (architecture,
contributing, changes, benchmark results) from their files. Markdown in ``docs`` stays readable where it lies: links to
files outside ``docs`` become links to their pages here, and names such as ``ddf_tomo.Scan`` links to the API.
"""

from __future__ import annotations

import inspect
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.public_names import names_of, public_modules

ROOT = Path(__file__).parents[1]
DOCS, GENERATED = ROOT / "docs", ROOT / "docs" / "_generated"
# Files outside docs that are pages of the site, and where they are.
REPOSITORY_PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "_generated/architecture.md",
    "CONTRIBUTING.md": "_generated/contributing.md",
    "CHANGELOG.md": "_generated/changes.md",
}
TABLE = re.compile(r"^<!-- names of (ddf_tomo[\w.]*) -->$", re.MULTILINE)
CODE = r"^```.*?^```|`[^`\n]+`"
LINK = re.compile(rf"({CODE})|(!?)\[([^\[\]]*)\]\(([^()\s#:]+)(#[^()\s]*)?\)", re.DOTALL | re.MULTILINE)


# -- the API ----------------------------------------------------------------------------------------------------------


def api() -> dict[str, str]:
    """One page for each module that documents something, and one that lists them."""
    modules = public_modules()
    shortest: dict[int, str] = {}
    deepest: dict[int, str] = {}  # where a thing is documented: the last, that is innermost, module that lists it
    listed = {name: names_of(module, modules) for name, module in modules.items()}
    for module, things in listed.items():
        for name, thing in things.items():
            shortest.setdefault(id(thing), f"{module}.{name}")
            deepest[id(thing)] = module
    pages = {}
    for module, things in listed.items():
        if not things:
            continue
        documented = {shortest[id(t)]: t for t in things.values() if deepest[id(t)] == module}
        parts = [heading(f"``{module}``", "="), f".. automodule:: {module}\n   :no-members:"]
        parts += [".. currentmodule:: None"]
        if len(things) > 1:
            parts += [summary([shortest[id(thing)] for thing in things.values()])]
        parts += [directive(name, thing) for name, thing in documented.items()]
        pages[f"api/{module}.rst"] = "\n\n".join(parts) + "\n"
    return pages


def api_list(pages: dict[str, str]) -> str:
    """The table of the documented modules, each with the first line of its docstring."""
    modules = public_modules()
    names = [Path(page).stem for page in pages]
    first = {name: re.split(r"[.:;](?:\s|$)", inspect.getdoc(modules[name]) or "")[0] for name in names}
    rows = "".join(f"| [`{name}`](/_generated/api/{name}.rst) | {text} |\n" for name, text in first.items())
    return f"| module | |\n|---|---|\n{rows}\n{contents(f'_generated/{page}' for page in pages)}"


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def summary(names: list[str]) -> str:
    return ".. autosummary::\n   :nosignatures:\n\n" + "\n".join(f"   ~{name}" for name in names)


def directive(name: str, thing: Any) -> str:
    """What documents one thing; a class with its members, those of its own parents too."""
    if not inspect.isclass(thing):
        return f".. autofunction:: {name}"
    parents = [c for c in thing.__mro__[1:] if c.__module__.startswith("ddf_tomo")]
    foreign = next((c.__name__ for c in thing.__mro__[1:] if not c.__module__.startswith("ddf_tomo")), "object")
    members = "" if issubclass(thing, Exception) else "\n   :members:"
    inherited = f"\n   :inherited-members: {foreign}" if parents and members else ""
    return f".. autoclass:: {name}{members}{inherited}"


# -- what lies elsewhere in the repository ----------------------------------------------------------------------------


def repository_pages() -> dict[str, str]:
    """Markdown files outside ``docs``."""
    return {
        Path(page).name: with_links((ROOT / file).read_text(), ROOT)
        for file, page in REPOSITORY_PAGES.items()
        if page.startswith("_generated") and (ROOT / file).exists()
    }


def benchmark_results() -> dict[str, str]:
    """The reports in ``benchmarks/results``, the latest first."""
    files = sorted((ROOT / "benchmarks" / "results").glob("*.md"), reverse=True)
    return {f"benchmarks/{file.name}": with_links(file.read_text(), file.parent) for file in files}


def notebooks() -> dict[str, str]:
    """The tutorials: cells of text and code, with their outputs where ``make notebooks`` has run them."""
    pages = {}
    for script in sorted((ROOT / "notebooks").glob("*.py")):
        text = "\n\n".join(page_of_cells(script.read_text(), outputs_of(script)))
        hint = f"*This page is the script `notebooks/{script.name}`; `jupytext --to ipynb` makes a notebook of it.*"
        head, _, rest = text.partition("\n")
        if not head.startswith("# "):
            head, rest = f"# {script.stem.replace('_', ' ')}", text
        pages[f"notebooks/{script.stem}.md"] = with_links(f"{head}\n\n{hint}\n{rest}\n", script.parent)
    return pages


def outputs_of(script: Path) -> dict[str, str]:
    """What the cells of an executed tutorial gave, by their code: what was changed since has none."""
    executed = script.parent / "_executed" / f"{script.stem}.ipynb"
    cells = json.loads(executed.read_text())["cells"] if executed.exists() else []
    return {
        "".join(cell["source"]).strip(): "\n\n".join(filter(None, map(shown, cell["outputs"])))
        for cell in cells
        if cell["cell_type"] == "code"
    }


def shown(output: dict[str, Any]) -> str:
    """An output of a cell, as Markdown."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{data["image/png"].replace(chr(10), "")}">'
    if "text/html" in data:  # blank lines would end it
        return re.sub(r"\n\s*\n", "\n", data["text/html"])
    if "text/markdown" in data:
        return data["text/markdown"]
    text = "".join(output.get("text", "")) if output.get("name") == "stdout" else data.get("text/plain", "")
    return f"```text\n{text.strip()}\n```" if text.strip() else ""


def page_of_cells(script: str, outputs: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Markdown of a script in jupytext's percent format, with the outputs of its cells where there are any."""
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        first, _, body = cell.partition("\n")
        if "[markdown]" in first or "[md]" in first:
            body = re.sub(r'\A\s*r?"""\n?|"""\s*\Z', "", body) if body.lstrip().startswith(('"""', 'r"""')) else body
            yield re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()
        elif body.strip():
            yield f"```python\n{body.strip()}\n```"
            yield from filter(None, [outputs.get(body.strip())])


def commands() -> str:
    """The help of every command, as it is printed."""
    from typer.main import get_command

    from ddf_tomo import cli

    texts = []
    for name, command in get_command(cli._app.app).commands.items():
        context = command.context_class(command, info_name=f"ddf-tomo {name}", terminal_width=96)
        texts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(texts)


def contents(pages: Iterable[str], caption: str = "") -> str:
    """What Sphinx needs to know which pages belong to a page; nothing of it is seen there."""
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return f"```{{toctree}}\n{options}\n" + "\n".join(f"/{page}" for page in pages) + "\n```\n"


def page_list(titles: dict[str, str]) -> str:
    """Links to some of the generated pages; their titles by their places."""
    if not titles:
        return "There are none yet."
    links = "\n".join(f"- [{title}](/_generated/{page})" for page, title in titles.items())
    return f"{links}\n\n{contents(f'_generated/{page}' for page in titles)}"


def title_of(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")


def navigation(text: str) -> str:
    """The sections of the front page, as those of the site: every page that a list there begins with."""
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", with_links(text, DOCS), re.MULTILINE)
    linked = {title: re.findall(r"^- \[[^\]]+\]\(/([^)]+)\)", body, re.MULTILINE) for title, body in sections}
    return "\n".join(contents(pages, title) for title, pages in linked.items() if pages)


# -- text -------------------------------------------------------------------------------------------------------------


def with_links(text: str, folder: Path) -> str:
    """Links relative to a folder of the repository as links of the site; words alone, where there is no page."""

    def replaced(link: re.Match[str]) -> str:
        code, picture, words, target, part = link.groups()
        if code:
            return code
        place = posixpath.relpath((folder / target).resolve(), ROOT)
        if place in REPOSITORY_PAGES:
            place = "docs/" + REPOSITORY_PAGES[place]
        elif re.fullmatch(r"benchmarks/results/.*\.md", place):
            place = f"docs/_generated/benchmarks/{posixpath.basename(place)}"
        elif re.fullmatch(r"notebooks/.*\.(py|ipynb)", place):
            place = f"docs/_generated/notebooks/{posixpath.basename(place).rpartition('.')[0]}.md"
        if not place.startswith("docs/") or not posixpath.splitext(place)[1] or place.endswith(".py"):
            return words
        return f"{picture}[{words}](/{place.removeprefix('docs/')}{part or ''})"

    return LINK.sub(replaced, text)


def with_tables(text: str) -> str:
    """Tables of a module's public names in the place of a comment that asks for one."""
    modules = public_modules()

    def table(wanted: re.Match[str]) -> str:
        name = wanted[1]
        rows = [f"{name}.{thing}" for thing in names_of(modules[name], modules)]
        return "```{eval-rst}\n" + summary(rows) + "\n```"

    return TABLE.sub(table, text)


LISTS: dict[str, str] = {}  # what stands for a comment such as <!-- gallery -->


def write_pages(*_: Any) -> None:
    """Write all pages, touching only those that changed, and remove those that nothing makes any more."""
    parts = {"api": api(), "gallery": notebooks(), "results": benchmark_results(), "": repository_pages()}
    LISTS["commands"] = commands()
    LISTS["api"] = api_list(parts["api"])
    LISTS["gallery"] = page_list({page: title_of(text) for page, text in parts["gallery"].items()})
    LISTS["results"] = page_list({page: Path(page).stem for page in parts["results"]})  # many are of one day
    pages = {path: text for part in parts.values() for path, text in part.items()}
    for path, text in pages.items():
        file = GENERATED / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
    for file in GENERATED.rglob("*.*"):
        if file.is_file() and file.relative_to(GENERATED).as_posix() not in pages:
            file.unlink()


def of_the_site(text: str, page: str) -> str:
    """The text of a page of ``docs`` as the site wants it: with its links, tables and lists."""
    made = with_tables(with_links(text, (DOCS / page).parent))
    for name, items in LISTS.items():
        made = made.replace(f"<!-- {name} -->", items)
    return f"{made}\n{navigation(text)}" if page == "index" else made
