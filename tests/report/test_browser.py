"""The page in a real browser: no script error, every figure drawn, and what can be moved moves.

A script at the end of a copy of the page does what a reader would do, and writes what it sees into the page.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from ddf_tomo import Reconstruction
from ddf_tomo.visualization import axis_colour

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--window-size=1000,3000",
    "--virtual-time-budget=5000",
    "--dump-dom",
]

# A browser without a screen has no frames to wait for.
FRAMES = "<head><script>window.requestAnimationFrame = (draw) => setTimeout(draw, 16);</script>"

READER = """
<script>
(async () => {
  const found = {}, view = document.getElementById("directions-view");
  const pause = () => new Promise((done) => setTimeout(done, 100));
  const picture = async () => { await pause(); return view.toDataURL(); };
  const pointer = (kind, x, y, id = 1) => view.dispatchEvent(
    new PointerEvent(kind, { pointerId: id, clientX: x, clientY: y, bubbles: true }));
  const pixels = (canvas) => { // by way of a copy, since the browser advises against reading from what is drawn on
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return copy.getImageData(0, 0, canvas.width, canvas.height).data;
  };
  const blank = (canvas) => {
    const words = new Uint32Array(pixels(canvas).buffer);
    return words.every((word) => word === words[0]);
  };
  await pause();
  found.images = [...document.images].map((image) => image.complete && image.naturalWidth);
  found.canvases = [...document.querySelectorAll("canvas")].map((canvas) => !blank(canvas));
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.seen = [await picture()];
  const see = async (what) => { await what(); found.seen.push(await picture()); };
  await see(() => {
    pointer("pointerdown", 300, 300); pointer("pointermove", 380, 330); pointer("pointerup", 380, 330);
  });
  await see(() => view.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" })));
  await see(() => view.dispatchEvent(new KeyboardEvent("keydown", { key: "+" })));
  await see(() => { view.focus(); view.dispatchEvent(new WheelEvent("wheel", { deltaY: -200, cancelable: true })); });
  await see(() => {
    pointer("pointerdown", 300, 300, 1); pointer("pointerdown", 400, 300, 2); pointer("pointermove", 460, 300, 2);
    pointer("pointerup", 300, 300, 1); pointer("pointerup", 460, 300, 2);
  });
  const slide = (name, value) => {
    const slider = document.getElementById(name);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
  };
  await see(() => slide("directions-threshold", 60));
  await see(() => slide("directions-cut", 50));
  found.count = document.getElementById("directions-count").textContent;
  slide("directions-threshold", 0);
  slide("directions-cut", 0);
  document.querySelector('button[data-look="reset"]').click();
  found.again = await picture();
  pointer("pointermove", 500, 500); // no button is held: nothing may turn
  found.still = await picture();

  const slice = (quantity, fixed) => document.querySelector(`[data-quantity=${quantity}][data-fixed=${fixed}]`);
  const colour = (canvas, x, y) => {
    const start = 4 * (Math.floor(y * canvas.height) * canvas.width + Math.floor(x * canvas.width));
    return [...pixels(canvas).subarray(start, start + 4)];
  };
  slide("position-x", 3);
  slide("position-y", 5);
  slide("position-z", 4);
  // A pixel of the slice at z = 4, x = 7 and y = 6, off the cross hair.
  found.pixel = colour(slice("direction", "z"), 7.25 / 12, 1 - 6.75 / 12);
  found.meanPixel = colour(slice("mean", "z"), 7.25 / 12, 1 - 6.75 / 12);
  const box = slice("mean", "z").getBoundingClientRect();
  slice("mean", "z").dispatchEvent(new PointerEvent("pointerdown", {
    clientX: box.left + 8.5 / 12 * box.width, clientY: box.top + 2.5 / 12 * box.height }));
  found.clicked = ["x", "y", "z"].map((name) => Number(document.getElementById(`position-${name}`).value));
  found.readout = document.getElementById("slice-readout").textContent;
  found.seen = [...new Set(found.seen)].length + " of " + found.seen.length;
  found.again = found.again === found.still;
  found.errors = document.getElementById("script-errors").textContent;
  document.getElementById("script-errors").id = "seen";
  const told = document.createElement("pre");
  told.id = "found";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
})();
</script>
</body>"""


def opened(page: Path, profile: Path) -> tuple[str, str]:
    """The page's tree after its scripts ran, and what the browser logged."""
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def browsed(page: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    folder = tmp_path_factory.mktemp("browser")
    copy = folder / "report.html"
    text = page.read_text(encoding="utf-8").replace("<head>", FRAMES, 1).replace("</body>", READER)
    copy.write_text(text, encoding="utf-8")
    tree, log = opened(copy, folder / "profile")
    return json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', tree, re.DOTALL)[1])), log


def test_no_script_error(browsed: tuple[dict, str]) -> None:
    found, log = browsed
    assert found["errors"] == ""
    assert [line for line in log.splitlines() if "CONSOLE" in line or "Refused to" in line] == []


def test_every_figure_is_there(browsed: tuple[dict, str]) -> None:
    found, _ = browsed
    assert len(found["images"]) >= 6
    assert all(width > 100 for width in found["images"])
    assert len(found["canvases"]) == 9 + 2 + 1 + 1  # slices, scales, key, directions
    assert all(found["canvases"])
    assert found["overflow"] == 0


def test_the_directions_turn_zoom_and_thin_out(browsed: tuple[dict, str]) -> None:
    """Drag, key, key, wheel, two fingers, threshold, cut: eight different pictures, and the first one comes back."""
    found, _ = browsed
    assert found["seen"] == "8 of 8"
    assert found["again"]
    shown, all_ = map(int, re.match(r"(\d+) of (\d+) sticks", found["count"]).groups())
    assert 0 < shown < all_ / 2


def test_slices_show_the_volume(browsed: tuple[dict, str], volume: Reconstruction) -> None:
    import matplotlib

    from ddf_tomo.report._volume import full_strength
    from ddf_tomo.visualization.slices import strength_of
    from ddf_tomo.visualization.style import STYLES, limits

    found, _ = browsed
    derived, place = volume.derived(), (7, 6, 4)
    strength = strength_of(derived)[place] / full_strength(derived)
    expected = 255 * axis_colour(derived.direction[place], strength)
    assert expected.max() > 50
    np.testing.assert_allclose(found["pixel"][:3], expected, atol=4)
    low, high = limits(derived.mean, STYLES["mean"].limits)
    colours = matplotlib.colormaps[STYLES["mean"].colours]
    expected = 255 * np.array(colours((derived.mean[place] - low) / (high - low)))
    np.testing.assert_allclose(found["meanPixel"], expected, atol=6)


def test_a_click_moves_all_slices(browsed: tuple[dict, str], volume: Reconstruction) -> None:
    found, _ = browsed
    assert found["clicked"] == [8, 9, 4]
    assert found["readout"].startswith(f"Voxel (8, 9, 4): mean {volume.derived().mean[8, 9, 4]:.3g}"[:24])


def test_an_error_would_be_seen(page: Path, tmp_path: Path) -> None:
    """What the other tests rely on: a broken page says so, on itself and in the log."""
    text = page.read_text(encoding="utf-8").replace('"sticks": {', '"stocks": {')
    (tmp_path / "broken.html").write_text(text, encoding="utf-8")
    tree, log = opened(tmp_path / "broken.html", tmp_path / "profile")
    assert "A picture could not be drawn: " in tree
    assert "CONSOLE" in log
