"""Sections of a report, each a function from facts to HTML: all but those that show the volume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ddf_tomo import visualization
from ddf_tomo.reconstruction import DataFit
from ddf_tomo.report._facts import Facts
from ddf_tomo.report._html import Section, facts, key_figures, paragraph, picture, share, shown, table
from ddf_tomo.report._remarks import remark_list, remarks
from ddf_tomo.visualization.style import length_unit

RESPONSES = {
    "IsotropicResponse": "one signal without direction (attenuation, isotropic scattering)",
    "SaxsResponse": "SAXS / WAXS: mean intensity in {channels} detector segments",
    "SecondMomentResponse": "directional dark field: second moments (jj, jk, kk) of the angular blur",
    "DirectionalVisibilityResponse": "directional dark field: visibility loss at {channels} azimuths",
    "VisibilityResponse": "grating dark field: visibility loss at {channels} grating angles",
    "RankTwoResponse": "directional dark field, second moments of a rank-2 tensor",
    "RankTwoSaxsResponse": "SAXS / WAXS of a rank-2 tensor in {channels} detector segments",
}
ENDS = {
    "iterations": "the number of iterations that was asked for",
    "noise level": "the residual had reached the noise level",
    "convergence": "nothing changed any more",
    "callback": "the program that called it",
    "mixture": "the last prior's, whose volume was then mixed with the others'",
}


def lede(facts_: Facts) -> str:
    """One line below the title: what, how much, how fine."""
    made = facts_.reconstruction
    kind = RESPONSES.get(type(made.response).__name__, type(made.response).__name__).partition(":")[0]
    functions = "harmonics" if getattr(made.response, "of_harmonics", True) else "a rank-2 tensor"
    size = "voxels" if made.voxel_size_m is None else "voxels of {} {}".format(*_length(made.voxel_size_m))
    order = f"{functions} up to ℓ = {made.ell_max}" if functions == "harmonics" else functions
    volume = f"{_sizes(made.geometry.volume_shape)} {size}"
    return f"{kind[:1].upper()}{kind[1:]} from {len(made.geometry)} views; {volume}, {order}"


def summary(facts_: Facts) -> Section:
    """Warnings first, then the numbers one looks at first."""
    made, derived, fit = facts_.reconstruction, facts_.derived, facts_.fit
    inside = derived.fractional_anisotropy[derived.valid]
    figures: dict[str, Any] = {
        "views": len(made.geometry),
        "voxels": _sizes(made.geometry.volume_shape),
        "highest order ℓ": made.ell_max,
        "sample, share of the volume": share(float(derived.valid.mean())),
        "median fractional anisotropy": float(np.median(inside)) if inside.size else "–",
    }
    if fit is not None:
        figures["residual, share of the data"] = share(fit.residual_share)
        if fit.over_noise is not None:
            figures["residual over noise"] = fit.over_noise
    elif "residual_share" in made.settings:
        figures["residual, share of the data"] = share(float(made.settings["residual_share"]))
    if facts_.share is not None:
        figures[f"of order ℓ = {made.ell_max} from the data"] = share(facts_.share.per_order[made.ell_max])
    return Section("summary", "Summary and warnings", remark_list(remarks(facts_)) + key_figures(figures))


def measured(facts_: Facts) -> Section:
    """Geometry, response, coverage, observability."""
    made, report = facts_.reconstruction, facts_.observability
    geometry = made.geometry
    name = type(made.response).__name__
    rows: dict[str, Any] = {
        "signal": RESPONSES.get(name, name).format(channels=getattr(made.response, "channels", "several")),
        "views": len(geometry),
        "detector, j × k": " × ".join(map(str, geometry.detector_shape)) + " pixels",
        "volume, x × y × z": " × ".join(map(str, geometry.volume_shape)) + " voxels" + _extent(made),
        "tilts": _tilts(facts_),
        "directions of structure that no view sees": share(float(np.mean(report.seeing == 0))),
        "largest gap between beams across a direction": f"{np.degrees(np.median(report.gap_rad)):.0f}° in the median,"
        f" {np.degrees(report.gap_rad.max()):.0f}° at worst",
        "orders that the data alone determine": f"up to ℓ = {report.highest_determined_order}"
        if report.determined[0]
        else "none",
    }
    orders = table(
        ("", "unknowns a voxel", "seen where the sample is uniform", "seen of fine structure: median", "at worst",
         "noise grows up to", "directions fully seen"),
        [
            (f"up to ℓ = {order}", int(report.coefficients[i]), int(report.constant_rank[i]),
             int(np.median(report.rank[:, i])), int(report.rank[:, i].min()),
             float(np.median(report.condition[:, i])), share(float(report.determined_share[i])))
            for i, order in enumerate(report.orders)
        ],
    )  # fmt: skip
    body = (
        facts(rows)
        + "<h3>Beam directions</h3>"
        + picture(
            visualization.show_beams(geometry),
            f"{len(geometry)} beam directions on the sphere",
            "Every view as the place where its beam meets the sphere around the sample; empty regions were not looked"
            " through.",
        )
        + "<h3>What these views can tell</h3>"
        + paragraph(
            "A constant field is seen by all views. Fine structure is seen only by the beams across it, so that every"
            " direction of structure has its own count of views, its own gaps, and its own number of quantities of a"
            " voxel that the data determine."
        )
        + orders
        + picture(
            visualization.show_observability(report),
            "Maps over the half sphere: number of views, gap between them, rank and condition",
            "Half sphere of the directions of structure, seen along −z: how many views see each, the largest gap"
            " between these, and how much they determine.",
        )
    )
    return Section("measured", "What was measured", body)


def residuals(facts_: Facts) -> Section:
    """Data, prediction and what is left."""
    fit, scan = facts_.fit, facts_.scan
    if fit is None or scan is None:
        told = "The scan was not given to this report, so that data and residuals cannot be shown: "
        kept = _as_reconstructed(facts_.reconstruction.fit)
        body = paragraph(told + "add scan=…, or --scan SCAN.h5.") + (facts(kept) if kept else "")
        return Section("residuals", "Data and residuals", body)
    counted = np.flatnonzero(fit.per_view > 0)
    order = counted[np.argsort(fit.per_view[counted], kind="stable")]
    chosen = list(dict.fromkeys(int(order[n]) for n in (0, len(order) // 2, -1))) if order.size else [0]
    rows: dict[str, Any] = {
        "residual, share of the data": share(fit.residual_share),
        "residual over noise": "unknown: the scan has no weights of 1/σ²"
        if fit.over_noise is None
        else f"{shown(fit.over_noise)} (a perfect fit leaves between {shown(math.sqrt(1 - fit.free_share))} and 1)",
        "masked data": share(fit.masked_share) + (f", {fit.masked_views} whole views" if fit.masked_views else ""),
    } | _as_reconstructed(facts_.reconstruction.fit)
    names = ", ".join(map(str, chosen))
    body = facts(rows) + picture(
        visualization.show_projections(facts_.predicted, scan, views=chosen),
        f"Misfit of all views, and data, prediction and residual of the views {names}",
        "How well each view fits; and data, what the volume predicts, and the difference, in the views that fit best,"
        f" typically and worst: {names}. A good residual looks like noise; shapes in it are what the model does not"
        " hold. Single views that stand out are misaligned or damaged.",
    )
    return Section("residuals", "Data and residuals", body)


def _as_reconstructed(fit: DataFit | None) -> dict[str, str]:
    """χ² of all data and of the views, as the reconstruction kept them."""
    if fit is None or not np.isfinite(fit.per_datum):
        return {}
    origin = {"weights": "its weights, 1/σ²"}.get(fit.noise_from, fit.noise_from)
    views = fit.per_view[np.isfinite(fit.per_view)]
    worst = int(np.nanargmax(fit.per_view)) if views.size else 0
    return {
        "χ² per datum when it was reconstructed": f"{shown(fit.per_datum)} (1: residuals as large as the noise)",
        "χ² per datum of single views": f"{shown(float(np.median(views)))} in the median,"
        f" {shown(float(views.max()))} at worst (view {worst})",
        "noise that χ² is relative to": f"{shown(fit.noise)} of a datum of mean weight, from {origin}",
    }


def data_or_prior(facts_: Facts) -> Section:
    """Which part of each order came from the data."""
    found, title, made = facts_.share, "From the data or from the prior", facts_.reconstruction
    if found is None:
        told = "It takes the scan (scan=…, or --scan SCAN.h5) to tell them apart" if facts_.scan is None else (
            "A volume of this size takes long: `ddf_tomo.merits.data_share` computes it"
        )  # fmt: skip
        return Section("share", title, paragraph(f"{told}."))
    against = {
        "the learned prior": "the learned prior, as strong as it was in the last iteration",
        "the powers of the volume": "a prior that knows no more than how strong each order is (noise over power, as in"
        " Wiener's filter): the least that any prior could add",
    }.get(found.strength_from, "a prior of given strength")
    volumes = {f"order ℓ = {ell}": found.share[..., place] for place, ell in enumerate(found.per_order)}
    body = (
        paragraph(
            "Were the true coefficients of a voxel a little different, this share of the change would show in the data,"
            f" weighed against {against}; the rest would look as the prior expects. It says where the result depends on"
            " what samples are believed to look like, not whether that is right."
        )
        + table(
            ("mean over the sample", "from the data", "from the prior"),
            [(f"order ℓ = {ell}", share(value), share(1 - value)) for ell, value in found.per_order.items()],
        )
        + picture(
            visualization.show_slices(volumes, quantity="data_share", voxel_size_m=made.voxel_size_m),
            "Slices of the share of each order that came from the data",
            "Share that came from the data, order by order: 1 where they determine a voxel, 0 where the prior does."
            " Estimated with random probes, to a few hundredths.",
        )
    )
    return Section("share", title, body)


def convergence(facts_: Facts) -> Section:
    """The residual over the iterations."""
    made = facts_.reconstruction
    title = "Convergence"
    if len(made.residuals) < 2:
        return Section("convergence", title, paragraph("This reconstruction holds no history of its residuals."))
    first, last = made.residuals[0], made.residuals[-1]
    fell = f"from {shown(float(first))} to {shown(float(last))}"
    body = paragraph(
        f"{len(made.residuals) - 1} iterations; the weighted residual fell {fell}."
        + (f" What ended it: {ENDS.get(ended, ended)}." if (ended := made.settings.get("stopped_by")) else "")
    ) + picture(
        visualization.show_convergence(made),
        f"Residual over iterations, {fell}",
        "Norm of the weighted residual before the first iteration and after each, on a logarithmic scale.",
    )
    return Section("convergence", title, body)


def settings(facts_: Facts) -> Section:
    """How the volume was made."""
    made = facts_.reconstruction
    rows = {"highest order ℓ": made.ell_max, **{name.replace("_", " "): value for name, value in made.settings.items()}}
    return Section("settings", "Settings", facts({name: _plain(value) for name, value in rows.items()}))


def provenance(facts_: Facts, versions: dict[str, str]) -> Section:
    """Where everything comes from."""
    rows = {name.replace("_", " "): _plain(value) for name, value in facts_.reconstruction.provenance.items()}
    body = facts(rows) if rows else paragraph("This reconstruction holds no provenance.")
    if facts_.scan is not None and facts_.scan.provenance:
        body += "<h3>Of the scan</h3>" + facts(
            {k.replace("_", " "): _plain(v) for k, v in facts_.scan.provenance.items()}
        )
    return Section("provenance", "Provenance", body + "<h3>Of this report</h3>" + facts(versions))


def _sizes(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}³" if len(set(shape)) == 1 else " × ".join(map(str, shape))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _extent(made: Any) -> str:
    if made.voxel_size_m is None:
        return ", of unknown size"
    factor, unit = length_unit(max(made.geometry.volume_shape) * made.voxel_size_m)
    edges = " × ".join(shown(float(n * made.voxel_size_m * factor)) for n in made.geometry.volume_shape)
    return " of {} {}: ".format(*_length(made.voxel_size_m)) + f"{edges} {unit}"


def _length(length_m: float) -> tuple[str, str]:
    factor, unit = length_unit(length_m)
    return shown(float(length_m * factor)), unit


def _tilts(facts_: Facts) -> str:
    p = facts_.reconstruction.geometry.p
    pole = np.linalg.eigh(np.einsum("va,vb->ab", p, p))[1][:, 0]
    pole = pole * np.sign(pole[np.abs(pole).argmax()])
    tilt = np.degrees(np.arcsin(np.clip(np.abs(p @ pole), 0, 1)))
    axis = ", ".join(f"{c:.2f}".replace("-0.00", "0.00").replace("-", "−") for c in pole)
    return f"beams stand up to {tilt.max():.1f}° off the plane across ({axis}), the direction least looked along"
