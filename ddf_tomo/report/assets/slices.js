// Three orthogonal slices of each quantity, through one common voxel.
(() => {
  const panel = document.getElementById("slice-panel");
  if (!panel || !volume.mean) return;
  const [nx, ny, nz] = volume.shape, strides = [ny * nz, nz, 1];
  const mean = bytes(volume.mean, Uint16Array), anisotropy = bytes(volume.anisotropy), direction = bytes(volume.direction, Int8Array);
  const tables = Object.fromEntries(Object.entries(volume.tables).map(([name, text]) => [name, bytes(text)]));
  const missing = 255, notSample = [204, 204, 204];
  const planes = { z: [0, 1], y: [0, 2], x: [1, 2] }; // axes across and up of the slice that fixes x, y or z
  const fixedAxis = { x: 0, y: 1, z: 2 };
  const sliders = Object.fromEntries(["x", "y", "z"].map((name) => [name, document.getElementById(`position-${name}`)]));
  const readout = document.getElementById("slice-readout");
  const position = () => ["x", "y", "z"].map((name) => Number(sliders[name].value));
  const meanOf = (v) => volume.least + volume.step * mean[v];
  const anisotropyOf = (v) => (anisotropy[v] === missing ? 0 : anisotropy[v] / (missing - 1));

  function colourOf(quantity, v) {
    if (quantity === "direction") {
      const strength = meanOf(v) * anisotropyOf(v) / volume.fullStrength;
      return axisColour(direction[3 * v], direction[3 * v + 1], direction[3 * v + 2], strength);
    }
    if (quantity === "fractional_anisotropy" && anisotropy[v] === missing) return notSample;
    const share = quantity === "mean" ? (meanOf(v) - volume.low) / (volume.high - volume.low) : anisotropyOf(v);
    const level = 3 * Math.round(255 * Math.min(1, Math.max(0, share)));
    return tables[quantity].subarray(level, level + 3);
  }

  function draw(canvas) {
    const { quantity, fixed } = canvas.dataset, [across, up] = planes[fixed], at = position();
    const width = volume.shape[across], height = volume.shape[up];
    const small = new OffscreenCanvas(width, height), image = new ImageData(width, height);
    const start = at[fixedAxis[fixed]] * strides[fixedAxis[fixed]];
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const v = start + column * strides[across] + (height - 1 - row) * strides[up];
        image.data.set([...colourOf(quantity, v), 255], 4 * (row * width + column));
      }
    }
    small.getContext("2d").putImageData(image, 0, 0);
    // As many pixels as the screen gives it, so that nothing is scaled twice and thin lines stay.
    const ratio = window.devicePixelRatio || 1, scale = Math.max(canvas.clientWidth * ratio, width) / width;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    const x = (at[across] + 0.5) * scale, y = (height - at[up] - 0.5) * scale, gap = 0.08 * canvas.width;
    context.strokeStyle = "rgba(255, 255, 255, 0.6)";
    context.lineWidth = ratio;
    context.beginPath();
    for (const [x0, y0, x1, y1] of [
      [0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height],
    ]) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.stroke();
  }

  const canvases = [...panel.querySelectorAll("canvas[data-quantity]")];

  function drawAll() {
    canvases.forEach(draw);
    const at = position(), v = at[0] * strides[0] + at[1] * strides[1] + at[2];
    for (const name of ["x", "y", "z"]) {
      const text = String(volume.stride * at[fixedAxis[name]]);
      document.getElementById(`position-${name}-value`).textContent = text;
    }
    const axis = [0, 1, 2].map((n) => (direction[3 * v + n] / 127).toFixed(2)).join(", ");
    const place = at.map((n) => n * volume.stride).join(", ");
    readout.textContent = `Voxel (${place}): mean ${meanOf(v).toPrecision(3)} ${volume.unit}` + (
      anisotropy[v] === missing ? ", not part of the sample"
        : `, fractional anisotropy ${anisotropyOf(v).toFixed(2)}, direction (${axis})`);
  }

  for (const canvas of canvases) {
    canvas.addEventListener("pointerdown", (event) => {
      const box = canvas.getBoundingClientRect(), [across, up] = planes[canvas.dataset.fixed];
      const move = (axis, share) => {
        const name = "xyz"[axis];
        sliders[name].value = Math.min(volume.shape[axis] - 1, Math.max(0, Math.floor(share * volume.shape[axis])));
      };
      move(across, (event.clientX - box.left) / box.width);
      move(up, 1 - (event.clientY - box.top) / box.height);
      drawAll();
    });
  }
  for (const slider of Object.values(sliders)) slider.addEventListener("input", drawAll);

  for (const canvas of panel.querySelectorAll("canvas[data-scale]")) {
    const upright = window.matchMedia("(min-width: 42.01rem)").matches, table = tables[canvas.dataset.scale];
    [canvas.width, canvas.height] = upright ? [1, 256] : [256, 1];
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    for (let n = 0; n < 256; n++) image.data.set([...table.subarray(3 * n, 3 * n + 3), 255], 4 * (upright ? 255 - n : n));
    context.putImageData(image, 0, 0);
  }
  const key = document.getElementById("slice-key"), turn = [[-0.6, 0.8, 0], [-0.36, -0.27, 0.893], [0.714, 0.536, 0.45]];
  drawSphere(key, turn);
  drawAxisNames(key.getContext("2d"), turn, [key.width / 2, key.height / 2], 0.42 * key.width, "600 26px system-ui, sans-serif");
  window.addEventListener("resize", drawAll);
  drawAll();
})();
