"""What a reader must know before believing a volume, in plain words, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

import numpy as np

from ddf_tomo.merits import DataShare
from ddf_tomo.report._facts import Facts
from ddf_tomo.report._html import share, shown

TOO_FAR = 1.25  # residual over noise from which on the data are not described
TOO_CLOSE = 0.9  # of the least that a perfect model would leave
STRANGE_VIEW = 3.0  # times the median residual
STILL_FALLING = 0.01  # relative change of the residual in the last iteration
STRONG_EDGE = 0.2
LOST = 0.01  # of the scattering, beside the detector; single voxels of noise are less
CHECKED = (
    "what the data determine, directions of structure that no view sees, truncation, convergence, negative scattering"
)
CHECKED_WITH_SCAN = "residuals against noise, single views that do not fit, masked data"


@dataclass(frozen=True)
class Remark:
    """One remark: ``kind`` is ``"warning"``, ``"note"`` or ``"good"``."""

    kind: str
    what: str
    advice: str


def remarks(facts: Facts) -> list[Remark]:
    """All remarks, warnings first."""
    found = [remark for rule in RULES for remark in rule(facts)]
    checked = CHECKED if facts.scan is None else f"{CHECKED}, {CHECKED_WITH_SCAN}"
    if not any(remark.kind == "warning" for remark in found):
        found.insert(0, Remark("good", "No warnings", f"Looked at: {checked}."))
    return sorted(found, key=lambda remark: ("warning", "good", "note").index(remark.kind))


def remark_list(found: list[Remark]) -> str:
    """The remarks in HTML."""
    words = {"warning": "Warning: ", "note": "Note: ", "good": ""}
    items = "".join(
        f'<li class="{remark.kind}"><strong>{words[remark.kind]}{escape(remark.what)}</strong>'
        f"<p>{escape(remark.advice)}</p></li>\n"
        for remark in found
    )
    return f'<ul class="remarks">\n{items}</ul>'


def _orders(facts: Facts) -> Iterator[Remark]:
    report, order = facts.observability, facts.reconstruction.ell_max
    index = int(np.flatnonzero(report.orders == order)[0]) if (report.orders == order).any() else len(report.orders) - 1
    if report.determined[: index + 1].all():
        return
    rank, needed = int(np.median(report.rank[:, index])), int(report.coefficients[index])
    highest = report.highest_determined_order
    known = f"up to ℓ = {highest}" if report.determined[0] else "of no order"
    yield Remark(
        "warning",
        f"The data alone do not determine everything up to ℓ = {order}",
        f"For fine structure of a typical direction these {report.views} views see {rank} of the {needed} unknowns of"
        f" a voxel, and fully only those {known}. The rest comes from the prior and from where"
        " the iteration stopped. More tilts help; for second moments no number of views determines orders above 2.",
    )


def _wedge(facts: Facts) -> Iterator[Remark]:
    unseen = float(np.mean(facts.observability.seeing == 0))
    if unseen > 0.02:
        yield Remark(
            "warning",
            f"{share(unseen)} of all directions of structure are seen by no view",
            "Structure along them (the missing wedge) is filled in by the algorithm. More or larger tilts close it.",
        )


def _residual(facts: Facts) -> Iterator[Remark]:
    fit = facts.fit
    if fit is None:
        yield Remark(
            "note",
            "The scan was not given to this report",
            "Residuals, masked data and the noise could not be judged: give it as scan=…, or with --scan.",
        )
        return
    if fit.over_noise is None:
        yield Remark(
            "note",
            "The data do not tell their noise",
            "Weights of 1/σ² in the scan would let this report say whether the volume explains the data.",
        )
        return
    if fit.over_noise > TOO_FAR:
        yield Remark(
            "warning",
            f"The data are not described to within their noise: residuals are {shown(fit.over_noise)} times as large",
            "Too strong a smoothness, too few iterations or orders, a misaligned view, or noise that is larger than the"
            " weights say; the pictures of the residuals tell which.",
        )
    elif fit.over_noise < TOO_CLOSE * np.sqrt(1 - fit.free_share):
        yield Remark(
            "warning",
            f"The data are followed more closely than their noise allows: residuals are {shown(fit.over_noise)} of it",
            "Either the noise is smaller than the weights say, or it was fitted: then smooth more, or stop earlier.",
        )
    strange = np.flatnonzero(fit.per_view > STRANGE_VIEW * max(float(np.median(fit.per_view)), 1e-12))
    if strange.size:
        named = ", ".join(map(str, strange[:12])) + (", …" if strange.size > 12 else "")
        yield Remark(
            "warning",
            f"{strange.size} of {len(fit.per_view)} views fit far worse than the others",
            f"Views {named} (counted from 0) leave more than {STRANGE_VIEW:g} times the typical residual: look at them,"
            " check their angles and offsets, or leave them out.",
        )


def _learned(facts: Facts) -> Iterator[Remark]:
    if facts.doubts:
        yield Remark(
            "warning",
            "The learned prior may be wrong here",
            f"{'; '.join(facts.doubts)}. Networks are unpredictable beyond what they have seen: compare with another"
            " prior, such as total variation, and trust what both show.",
        )
    if "prior_strength" in facts.reconstruction.settings:
        told = "" if facts.share is None else f" From the data came {shares_of(facts.share)}."
        yield Remark(
            "note",
            "A network that has learned what samples look like filled what the data leave open",
            f"Such parts look as good as measured ones.{told} The section on data and prior shows where.",
        )


def shares_of(share_: DataShare) -> str:
    """``95 % of order ℓ = 0, 40 % of order ℓ = 2``."""
    return ", ".join(f"{share(float(f'{value:.2g}'))} of order ℓ = {ell}" for ell, value in share_.per_order.items())


def _masked(facts: Facts) -> Iterator[Remark]:
    fit = facts.fit
    if fit is not None and fit.masked_share > 0:
        views = f", among them {fit.masked_views} whole views" if fit.masked_views else ""
        yield Remark(
            "warning" if fit.masked_share > 0.1 or fit.masked_views else "note",
            f"{share(fit.masked_share)} of the data are masked{views}",
            "They have weight zero and do not enter. Where the same place is masked in many views, the volume there"
            " is what the algorithm makes of its neighbourhood.",
        )


def _truncated(facts: Facts) -> Iterator[Remark]:
    beyond = facts.beyond_detector
    views = int((beyond > LOST).sum())
    edge = 0.0 if facts.fit is None else facts.fit.edge_share
    if views:
        yield Remark(
            "warning",
            f"In {views} of {len(facts.reconstruction.geometry)} views the sample reaches beyond the detector",
            f"Up to {share(float(beyond.max()))} of its scattering falls beside it. What the detector does not see"
            " appears as bright rims and wrong directions near the edge.",
        )
    elif edge > STRONG_EDGE:
        yield Remark(
            "warning",
            f"The signal does not end within the detector: at its ends along j it is {share(edge)} of the strongest",
            "The sample was probably larger than the field of view; trust the inner part only.",
        )
    if facts.touched_faces:
        yield Remark(
            "warning",
            f"The sample touches the faces {', '.join(facts.touched_faces)} of the volume",
            "The volume may be too small for it: what lies outside was pressed into the rim.",
        )


def _solver(facts: Facts) -> Iterator[Remark]:
    made, residuals = facts.reconstruction.settings, facts.reconstruction.residuals
    if made.get("stopped_by") == "iterations" and len(residuals) > 1 and residuals[-2] > 0:
        fall = 1 - residuals[-1] / residuals[-2]
        if fall > STILL_FALLING:
            yield Remark(
                "warning",
                "The iteration had not come to rest",
                f"The last one still lowered the residual by {share(fall)}. More iterations may change the volume.",
            )
    if made.get("adjoint_is_exact") is False:
        yield Remark(
            "warning",
            "The back-projection was not the exact transpose of the projection",
            "Gradient methods then stop at a slightly different place, and late iterations drift. An exact projector"
            " (the package's own) avoids it.",
        )


def _positive(facts: Facts) -> Iterator[Remark]:
    if facts.negative_share > 0.05:
        yield Remark(
            "note",
            f"In {share(facts.negative_share)} of the sample's voxels the scattering is negative in some direction",
            "By more than 5 % of the voxel's mean, which real scattering cannot be. A sharp function cut off at a low"
            " order swings below zero by itself, without harm to its direction; else it is noise: smooth more.",
        )


def _empty(facts: Facts) -> Iterator[Remark]:
    if not facts.derived.valid.any():
        yield Remark("warning", "The volume holds no sample", "No voxel has a positive mean.")


def _units(facts: Facts) -> Iterator[Remark]:
    if facts.reconstruction.voxel_size_m is None:
        yield Remark("note", "The size of a voxel is not known", "Lengths are in voxels, and values per voxel edge.")


RULES: tuple[Callable[[Facts], Iterator[Remark]], ...] = (
    _empty, _orders, _residual, _learned, _truncated, _masked, _solver, _wedge, _positive, _units,
)  # fmt: skip
