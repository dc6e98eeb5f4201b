"""What Jupyter shows of a scan, a reconstruction and a geometry: a small picture and a table.

No scripts, no colours of its own, no library beyond NumPy, and nothing of the rooms above: these hand over themselves.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._pictures import axis_colour, channel_names, equal_area

HEIGHT = 128
"""Of a picture, in CSS pixels."""
MOST_PIXELS = 256
"""Along a side of a picture; larger ones are thinned out."""
LONGEST_TEXT = 120


def scan_html(scan: Any) -> str:
    """A `Scan`: what was measured where, in which units, how much is masked, and the middle view."""
    middle = len(scan) // 2
    data = _numbers(scan.data[middle : middle + 1] if scan.streams else scan.data)
    place = ", on disk: range of the middle view" if scan.streams else ""
    rows = {
        "views": f"{len(scan)} of {_times(scan.geometry.detector_shape)} pixels",
        "channels": _channels(scan.response, data.shape[-1]),
        "volume": _volume(scan.geometry.volume_shape, scan.voxel_size_m),
        "data": f"{_range(data)} {_data_unit(scan.provenance)}".strip() + place,
    }
    if not scan.streams:
        rows["weights"] = _weights(scan.weights)
        rows["diode"] = "" if scan.diode is None else f"mean {np.mean(_numbers(scan.diode)):.4g}"
    picture = _picture(lambda: _grey(data[0 if scan.streams else middle].mean(axis=-1)), f"view {middle}")
    return _card("Scan", scan.title, rows, picture)


def reconstruction_html(reconstruction: Any, derive: Callable[..., Any]) -> str:
    """A `Reconstruction`: size, order, how it was made, how well it fits, and the directions in its middle slice.

    These are what ``derive`` (`ddf_tomo.derived`) finds in that slice alone, so that it takes no time.
    """
    settings = reconstruction.settings
    share = settings.get("residual_share")
    shape = reconstruction.coefficients.shape
    rows = {
        "volume": _volume(shape[:3], reconstruction.voxel_size_m),
        "coefficients": f"{shape[3]}, orders up to ℓ = {reconstruction.ell_max}",
        "response": type(reconstruction.response).__name__,
        "method": _short(
            ", ".join(f"{k.replace('_', ' ')} {_number(v)}" for k, v in settings.items() if k != "residual_share")
        ),
        "residual": f"{share:.2%} of the data" if isinstance(share, float) else "",
        "unit": f"{unit} per voxel edge" if (unit := _data_unit(reconstruction.provenance)) else "",
    }
    picture = _picture(
        lambda: _directions(reconstruction, derive), "directions in the middle slice: x red, y green, z blue"
    )
    return _card("Reconstruction", str(reconstruction.provenance.get("title", "")), rows, picture)


def geometry_html(geometry: Any) -> str:
    """A `Geometry`: views, shapes, tilts, and the beams on the half sphere seen from +z."""
    rows = {
        "views": f"{len(geometry)} of {_times(geometry.detector_shape)} pixels",
        "volume": _volume(geometry.volume_shape, None),
    }
    if len(geometry):
        tilt = np.degrees(np.arcsin(np.abs(geometry.p[:, 2]).clip(0, 1)))
        rows["beams"] = f"{tilt.min():.1f} … {tilt.max():.1f}° out of the xy plane"
        rows["offsets"] = ", ".join(
            f"{name} {values.min():.3g} … {values.max():.3g}"
            for name, values in (("j", geometry.j_offset), ("k", geometry.k_offset))
        )
        left = np.count_nonzero(geometry.is_left_handed)
        rows["frames"] = (
            "left-handed" if left == len(geometry) else "right-handed" if not left else f"{left} left-handed"
        )
    return _card("Geometry", "", rows, _picture(lambda: _beams(geometry), "beams, seen from +z"))


# -- parts of a card --------------------------------------------------------------------------------------------------


def _card(kind: str, title: str, rows: Mapping[str, str], picture: str) -> str:
    """Everything in ``rows`` is a text that is escaped here; ``picture`` is HTML."""
    cell = "padding:0 0.8em 0 0;vertical-align:top;text-align:left;border:none;background:none;font:inherit"
    lines = "".join(
        f'<tr style="background:none"><td style="{cell};opacity:0.7">{html.escape(name)}</td>'
        f'<td style="{cell}">{html.escape(text)}</td></tr>'
        for name, text in rows.items()
        if text
    )
    head = f"<b>{kind}</b>" + (f" {html.escape(_short(title))}" if title else "")
    outer = "display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start;margin:0.3em 0"
    table = "margin:0.2em 0;border-collapse:collapse;color:inherit;font:inherit"
    text = f'<div>{head}<table style="{table}">{lines}</table></div>'
    return f'<div style="{outer}">{text}{picture}</div>'


def _picture(draw: Any, caption: str) -> str:
    """The picture with its caption; where there is nothing to draw, nothing: a text must not fail for its picture."""
    try:
        with np.errstate(all="ignore"):
            kind, content = draw()
    except (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError):
        return ""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    text = html.escape(caption)
    look = f"height:{HEIGHT}px;max-width:{3 * HEIGHT}px;object-fit:contain;image-rendering:pixelated"
    return (
        f'<figure style="margin:0"><img src="{source}" alt="{text}" style="{look}">'
        f'<figcaption style="font-size:80%;opacity:0.7">{text}</figcaption></figure>'
    )


def _times(shape: Any) -> str:
    return " × ".join(map(str, shape))


def _volume(shape: Any, voxel_size_m: float | None) -> str:
    return f"{_times(shape)} voxels" + ("" if voxel_size_m is None else f" of {voxel_size_m * 1e6:.4g} µm")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _data_unit(provenance: Mapping[str, Any]) -> str:
    return _short(str(provenance.get("data_unit", "")))


def _numbers(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _channels(response: Any, count: int) -> str:
    names = channel_names(response, count)
    listed = ", ".join(names if count <= 8 else [*names[:4], "…", names[-1]])
    return f"{count}: {listed} ({type(response).__name__})"


def _range(values: NDArray[Any]) -> str:
    return f"{values.min():.4g} … {values.max():.4g}" if values.size else ""


def _weights(weights: Any) -> str:
    if weights is None:
        return "none"
    values = _numbers(weights)
    return f"{_range(values)}, {np.count_nonzero(values == 0) / max(values.size, 1):.1%} masked"


# -- pictures ---------------------------------------------------------------------------------------------------------


def _grey(values: NDArray[Any]) -> tuple[str, bytes]:
    low, high = np.percentile(values, (1, 99)).astype(float)
    level = ((values - low) / (high - low if high > low else 1.0)).clip(0, 1)
    return "png", png(np.repeat(level[..., None], 3, axis=-1))


def _directions(reconstruction: Any, derive: Callable[..., Any]) -> tuple[str, bytes]:
    volume = reconstruction.coefficients
    # Across the shortest side, so that a thin volume shows its face.
    fixed = 2 - int(np.argmin(volume.shape[2::-1]))
    middle = np.take(volume, [volume.shape[fixed] // 2], axis=fixed)
    if middle.shape[-1] == 1:
        return _grey(np.flipud(middle[..., 0].squeeze(fixed).T))
    found = derive(middle, of_harmonics=getattr(reconstruction.response, "of_harmonics", True))
    strength = np.where(found.valid, found.mean * found.fractional_anisotropy, 0.0)
    colours = axis_colour(
        found.direction, strength / (np.percentile(strength[strength > 0], 99) if strength.any() else 1.0)
    )
    return "png", png(np.flipud(colours.squeeze(fixed).swapaxes(0, 1)))


def _beams(geometry: Any) -> tuple[str, bytes]:
    some = geometry.p[:: -(-len(geometry) // 400) or 1]
    dots = "".join(f'<circle cx="{x:.3f}" cy="{-y:.3f}" r="0.03"/>' for x, y in equal_area(some))
    cross = '<path d="M-1 0H1M0-1V1" stroke-width="0.008"/>'
    ground = f'<g fill="none" stroke="#888" stroke-width="0.02"><circle r="1"/>{cross}</g>'
    font = 'fill="#888" font-family="sans-serif" font-size="0.22" text-anchor="middle"'
    names = f'<g {font}><text x="1.15" y="0.07">x</text><text y="-1.07">y</text></g>'
    size = f'width="{HEIGHT}" height="{HEIGHT}" viewBox="-1.3 -1.3 2.6 2.6"'
    body = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{ground}{names}<g fill="#0072b2">{dots}</g></svg>'
    return "svg+xml", body.encode()


def png(colours: NDArray[Any]) -> bytes:
    """A PNG file of RGB values in [0, 1], ``(rows, columns, 3)``, first row on top, at most 256 pixels a side.

    Larger pictures are thinned out. Written by hand (ISO/IEC 15948): beyond what the standard library has for
    compression and checksums there is not much to it.

    Examples
    --------
    >>> png(np.zeros((2, 3, 3)))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    step = max(1, -(-max(colours.shape[:2]) // MOST_PIXELS))
    pixels = np.rint(255 * np.nan_to_num(colours[::step, ::step]).clip(0, 1)).astype(np.uint8)
    rows, columns = pixels.shape[:2]
    lines = np.concatenate(
        [np.zeros((rows, 1), np.uint8), pixels.reshape(rows, -1)], axis=1
    )  # each begins with its filter

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes()))
        + chunk(b"IEND", b"")
    )
