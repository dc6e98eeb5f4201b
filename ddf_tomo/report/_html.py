"""Pieces of HTML as texts. Whatever comes from outside goes through `escape`."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from io import BytesIO
from typing import Any

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
PIXELS_PER_INCH, SHOWN_PER_INCH = 160, 110  # more than a plain screen shows: for fine ones, and for paper
SCRIPTS = ("common.js", "slices.js", "directions.js")


@dataclass(frozen=True)
class Section:
    """One part of the page: its name in addresses, its heading, and its HTML."""

    name: str
    title: str
    body: str


def asset(name: str) -> str:
    """Text of a file that ships beside this module."""
    return files("ddf_tomo.report").joinpath("assets", name).read_text(encoding="utf-8")


def page(title: str, lede: str, sections: Sequence[Section], volume: str, foot: str) -> str:
    """The whole page; it needs nothing but itself, and is not allowed to ask for more."""
    contents = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in sections)
    body = "\n".join(
        f'<section id="{part.name}" aria-labelledby="{part.name}-title">\n'
        f'<h2 id="{part.name}-title">{escape(part.title)}</h2>\n{part.body}\n</section>'
        for part in sections
    )
    scripts = "\n".join(f"<script>\n{asset(name)}</script>" for name in SCRIPTS)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{asset("report.css")}</style>
<script>
{asset("errors.js")}</script>
</head>
<body>
<p id="script-errors" role="alert" hidden></p>
<header>
<p class="eyebrow">Tensor tomography · report</p>
<h1>{escape(title)}</h1>
<p class="lede">{escape(lede)}</p>
</header>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
<main>
{body}
</main>
<footer>{foot}</footer>
<script type="application/json" id="volume">{volume}</script>
{scripts}
</body>
</html>
"""


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{attribute('class', style)}>{escape(text)}</p>"


def attribute(name: str, value: str) -> str:
    """`` name="value"``, or nothing where the value is empty."""
    return f' {name}="{escape(value)}"' if value else ""


def facts(rows: Mapping[str, Any]) -> str:
    """A table of two columns: what, and how much."""
    lines = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(shown(value))}</td></tr>\n'
        for name, value in rows.items()
    )
    return f'<div class="scroll"><table><tbody>\n{lines}</tbody></table></div>'


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table of numbers with a line of headings; the first column names the rows."""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = "".join(
        f'<tr><th scope="row">{escape(str(row[0]))}</th>'
        + "".join(f"<td>{escape(shown(value))}</td>" for value in row[1:])
        + "</tr>\n"
        for row in rows
    )
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table class="numbers">{told}<thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{lines}</tbody></table></div>"
    )


def key_figures(values: Mapping[str, Any]) -> str:
    """The few numbers one looks at first."""
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(shown(v))}</dd></div>\n" for k, v in values.items())
    return f'<dl class="figures">\n{cards}</dl>'


def picture(figure: Any, alt: str, caption: str) -> str:
    """A matplotlib figure as an image inside the page."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH)
    contents = buffer.getvalue()
    pixels = struct.unpack(">II", contents[16:24])  # PNG's first chunk begins with its size
    width, height = (round(n * SHOWN_PER_INCH / PIXELS_PER_INCH) for n in pixels)
    return (
        f'<figure><img src="data:image/png;base64,{base64.b64encode(contents).decode()}" alt="{escape(alt)}"'
        f' width="{width}" height="{height}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def shown(value: Any) -> str:
    """A number as people write it; texts as they are.

    Examples
    --------
    >>> shown(0.12345), shown(1234567), shown(1.5e-7), shown(float("inf")), shown(True)
    ('0.123', '1,234,567', '1.5 × 10⁻⁷', '∞', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:,.0f}".replace("-", "−")
    digits, _, exponent = f"{value:.2e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{float(digits):g} × 10{raised}".replace("-", "−")


def share(value: float) -> str:
    """A share in per cent.

    Examples
    --------
    >>> share(0.1234), share(0.00004), share(0)
    ('12.3 %', '0.004 %', '0 %')
    """
    return f"{shown(float(f'{100 * value:.3g}'))} %"
