"""What Sphinx is told beyond its configuration: pages that are made, names as links, types that can be read."""

from __future__ import annotations

import posixpath
import re
from typing import Any

import pages
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode


def read_source(app: Sphinx, page: str, source: list[str]) -> None:
    """A page of ``docs`` as the site wants it; those that were made are so already."""
    if not page.startswith("_generated/"):
        source[0] = pages.of_the_site(source[0], page)


def pages_with_lists(*_: Any) -> list[str]:
    """Pages to be read again even if they did not change: what they list may have."""
    return [page.stem for page in pages.DOCS.glob("*.md") if "\n<!-- " in page.read_text()] + ["index"]


class NamesToLinks(SphinxPostTransform):
    """Names of the package that are no links yet, such as `ddf_tomo.scan.Scan` or `Scan.read(...)` in Markdown."""

    default_priority = 15  # after Sphinx has resolved what it can

    def run(self, **_: Any) -> None:
        domain, page = self.env.domains["py"], self.env.docname
        rooms = ["", "ddf_tomo."]
        if page.startswith("_generated/api/"):
            rooms.append(posixpath.basename(page) + ".")
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().partition("(")[0]
            if isinstance(literal.parent, nodes.reference) or not re.fullmatch(r"[\w.]+", name):
                continue
            known = [found for room in rooms for found in domain.find_obj(self.env, "", "", room + name, None, 0)]
            if known and known[0][1].objtype != "module":
                full, place = known[0]
                link = (self.app.builder, page, place.docname, place.node_id, literal.deepcopy(), full)
                literal.replace_self(make_refnode(*link))


def short_types(app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, result: str) -> Any:
    """Types of arrays as they are written, not as numpy spells them out."""

    def shortened(text: str | None) -> str | None:
        return text and re.sub(
            r"~?(?:numpy\.)?ndarray\[tuple\[[^\]]*\], ~?(?:numpy\.)?dtype\[([^\]]*)\]\]", r"NDArray[\1]", text
        )

    return shortened(signature), shortened(result)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", pages.write_pages)
    app.connect("env-get-outdated", pages_with_lists)
    app.connect("source-read", read_source)
    app.connect("autodoc-process-signature", short_types)
    app.add_post_transform(NamesToLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
