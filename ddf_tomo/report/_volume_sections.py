"""Sections of a report that show the volume: slices, directions, scalars, how quantities are spread, errors."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np

from ddf_tomo import visualization
from ddf_tomo._checks import message
from ddf_tomo.derived import angle_between
from ddf_tomo.report._charts import histogram
from ddf_tomo.report._facts import Facts
from ddf_tomo.report._html import Section, facts, paragraph, picture, shown, table
from ddf_tomo.report._volume import MOST_STICKS, stride
from ddf_tomo.visualization.style import STYLES

SCALARS = {
    "attenuation_per_m": ("Attenuation coefficient μ", "1/m"),
    "attenuation_per_voxel": ("Attenuation coefficient μ", "1/voxel"),
    "refractive_decrement": ("Refractive decrement δ", ""),
}
AXES = {"z": ("x", "y"), "y": ("x", "z"), "x": ("y", "z")}  # axes across and up of the slice that fixes one


def slices(facts_: Facts) -> Section:
    """Orthogonal slices through one common voxel, drawn by the page itself."""
    shape, step = facts_.derived.mean.shape, stride(facts_.derived)
    thin = [-(-n // step) for n in shape]
    sliders, rows = "", ""
    for name, (across, up) in AXES.items():
        n = thin["xyz".index(name)]
        sliders += (
            f'<label for="position-{name}">{name} = <output id="position-{name}-value">{n // 2 * step}</output>'
            f' <span class="soft">of {shape["xyz".index(name)]}; shows {across} across, {up} up</span>'
            f'<input type="range" id="position-{name}" min="0" max="{n - 1}" value="{n // 2}"></label>\n'
        )
    for quantity, heading in (
        ("mean", f"Mean scattering ({facts_.unit})"),
        ("fractional_anisotropy", "Fractional anisotropy (grey: not part of the sample)"),
        ("direction", "Principal direction (brighter: more of the scattering is directed)"),
    ):
        low, high = (0.0, 1.0) if quantity != "mean" else visualization.style.limits(facts_.derived.mean, "zero")
        key = (
            f'<div class="scale"><canvas data-scale="{quantity}" role="img" aria-label="Colour scale from'
            f' {shown(low)} to {shown(high)}"></canvas><span><b>{shown(high)}</b><b>{shown(low)}</b></span></div>'
            if quantity != "direction"
            else '<div class="sphere"><canvas id="slice-key" width="192" height="192" role="img" aria-label="Sphere in'
            ' the colours of directions: red along x, green along y, blue along z"></canvas>'
            "<span>red along x</span><span>green along y</span><span>blue along z</span></div>"
        )
        rows += f'<p class="row">{escape(heading)}</p>\n'
        rows += "".join(
            f'<canvas data-quantity="{quantity}" data-fixed="{name}" width="{thin["xyz".index(a)]}"'
            f' height="{thin["xyz".index(b)]}" role="img" aria-label="{escape(heading)}: slice at fixed {name},'
            f' {a} across, {b} up"></canvas>\n'
            for name, (a, b) in AXES.items()
        )
        rows += key
    thinned = f" Of the volume every {step}th voxel along each axis is shown, to keep this file small." * (step > 1)
    body = (
        '<p class="hint">Move the sliders, or click into a slice: all slices go through that voxel.'
        f"{escape(thinned)}</p>\n"
        f'<div class="slices" id="slice-panel">\n{sliders}<span></span>{rows}</div>\n'
        '<p class="soft" id="slice-readout" aria-live="polite"></p>'
        "<noscript><p>The slices are drawn by JavaScript, which is switched off here.</p></noscript>"
    )
    if facts_.derived.valid.any():
        body += "<h3>What the voxels hold</h3>" + picture(
            visualization.show_glyphs(facts_.reconstruction),
            "Scattering functions of the middle slice as glyphs",
            "The scattering function of voxels of the middle slice, seen along −z: the farther a surface reaches in a"
            " direction, the stronger the scattering there; on the mean in grey, coloured by principal direction.",
        )
    return Section("slices", "Slices", body)


def directions(facts_: Facts) -> Section:
    """The view that can be turned."""
    title = "Directions in space"
    if not facts_.derived.valid.any():
        return Section("directions", title, paragraph("There is no sample to draw directions of."))
    buttons = "".join(f'<button type="button" data-look="{name}">along {name}</button>' for name in ("x", "y", "z"))
    body = f"""<div class="stage"><canvas id="directions-view" tabindex="0" role="img"
 aria-label="Principal directions as sticks in a box; drag or use the arrow keys to turn it"
 aria-describedby="directions-help"></canvas></div>
<p class="hint" id="directions-help">Drag to turn (or <kbd>←</kbd> <kbd>→</kbd> <kbd>↑</kbd> <kbd>↓</kbd>), click once
 and scroll to zoom (or <kbd>+</kbd> <kbd>−</kbd>, or two fingers), <kbd>Home</kbd> to begin again.</p>
<div class="controls">
<label for="directions-threshold">Hide sticks weaker than (% of the strongest)
<input type="range" id="directions-threshold" min="0" max="99" value="0"></label>
<label for="directions-cut">Cut away the front (%)
<input type="range" id="directions-cut" min="0" max="100" value="0"></label>
<div class="buttons">{buttons}<button type="button" data-look="reset">begin again</button></div>
</div>
<p class="soft"><output id="directions-count"></output> Each stick is the principal direction of the most directional
 voxel of its neighbourhood, at most {MOST_STICKS} in all: red along x, green along y, blue along z, brighter where mean
 × anisotropy is larger.</p>
<noscript><p>This picture is drawn by JavaScript, which is switched off here.</p></noscript>"""
    return Section("directions", title, body)


def scalars(facts_: Facts) -> Section:
    """Volumes without direction: attenuation, refractive decrement."""
    made, body = facts_.reconstruction, ""
    for name, values in made.scalars.items():
        title, unit = SCALARS.get(name, (name.replace("_", " "), ""))
        drawn = visualization.show_slices({title: values}, unit=unit, voxel_size_m=made.voxel_size_m)
        body += picture(drawn, f"{title}: three slices through the middle", f"{title}{f' in {unit}' if unit else ''}.")
    told = paragraph("From transmission and refraction in the same frames, on the same grid as the tensors.")
    return Section("scalars", "Attenuation and refraction", told + body)


def quantities(facts_: Facts) -> Section:
    """How derived quantities are spread over the sample."""
    derived, title = facts_.derived, "Derived quantities"
    if not derived.valid.any():
        return Section("quantities", title, paragraph("There is no sample to take them of."))
    rows, charts = [], ""
    for name in ("mean", "fractional_anisotropy", "relative_anisotropy", "order_parameter"):
        values, style = getattr(derived, name)[derived.valid], STYLES[name]
        unit = facts_.unit if style.unit else ""
        rows.append((style.label, unit or "1", *_spread(values)))
        if name != "relative_anisotropy":
            charts += f"<figure>{histogram(values, style.label, unit)}</figure>"
    for i, amplitude in enumerate(np.moveaxis(derived.amplitudes[derived.valid], -1, 0)):
        if i:
            rows.append((f"root mean square of order ℓ = {2 * i}", facts_.unit, *_spread(amplitude)))
    body = (
        paragraph(
            f"Over the {shown(int(derived.valid.sum()))} voxels of the sample (mean above a tenth of its maximum)."
        )
        + f'<div class="charts">{charts}</div>'
        + table(("", "unit", "5th percentile", "median", "95th percentile"), rows)
    )
    return Section("quantities", title, body)


def merits(facts_: Facts) -> Section:
    """How far the volume is from the truth."""
    found, true = facts_.merits, facts_.true_derived
    derived = facts_.derived
    if found is None or true is None:
        raise ValueError(message("truth", "a truth for the figures of merit", "none"))
    rows = {
        "error of the coefficients (NRMSE)": found.nrmse,
        "over the orders that both have": found.nrmse_shared_orders,
        **{f"of order ℓ = {ell}": value for ell, value in found.nrmse_per_order.items()},
        "correlation of the mean": f"{found.mean_correlation:.4f}",
        "error of the fractional anisotropy (RMSE)": found.anisotropy_rmse,
        "voxels compared": found.voxels,
    }
    angles = table(
        ("angle between found and true direction", "median", "90th percentile"),
        [
            ("voxels weighted by their true anisotropy", _degrees(found.direction_error_median_rad),
             _degrees(found.direction_error_p90_rad)),
            ("all voxels alike", _degrees(found.direction_error_unweighted_median_rad),
             _degrees(found.direction_error_unweighted_p90_rad)),
        ],
    )  # fmt: skip
    error = np.where(true.valid, np.degrees(angle_between(derived.direction, true.direction)), 0)
    size = facts_.reconstruction.voxel_size_m
    body = (
        paragraph("The sample is known, so that errors can be told: over voxels whose true mean exceeds a tenth of its"
                  " maximum.")
        + facts(rows)
        + angles
        + picture(
            visualization.show_directions({"truth": true, "reconstruction": derived}, voxel_size_m=size),
            "Slices of true and reconstructed principal directions",
            "Principal directions, true above and reconstructed below; red along x, green along y, blue along z.",
        )
        + picture(
            visualization.show_slices({"angle to the truth": error}, quantity="angle_error", voxel_size_m=size),
            "Slices of the angle between true and reconstructed direction",
            "Angle between true and reconstructed direction; black outside the sample.",
        )
    )  # fmt: skip
    return Section("merits", "Figures of merit", body)


def _spread(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(values, (5, 50, 95)))


def _degrees(angle_rad: float) -> str:
    return f"{math.degrees(angle_rad):.2f}°"
