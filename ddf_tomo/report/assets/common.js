"use strict";
// The volume travels in the page as numbers of one byte each, in base64.
const volume = JSON.parse(document.getElementById("volume").textContent);

function bytes(text, Kind = Uint8Array) {
  const raw = atob(text);
  const values = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) values[i] = raw.charCodeAt(i);
  return new Kind(values.buffer);
}

// Red along x, green along y, blue along z: what ddf_tomo.visualization.axis_colour gives, times 255.
function axisColour(x, y, z, strength) {
  const a = Math.abs(x), b = Math.abs(y), c = Math.abs(z);
  const scale = 255 * Math.min(strength, 1) / Math.max(a, b, c, 1e-9);
  return [a * scale, b * scale, c * scale];
}

// The key of these colours: a sphere seen along the third row of `turn`, each place in the colour of its direction.
function drawSphere(canvas, turn) {
  const size = canvas.width, context = canvas.getContext("2d"), image = context.createImageData(size, size);
  const radius = size / 2 - 1;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const u = (column + 0.5 - size / 2) / radius, v = (size / 2 - row - 0.5) / radius, rest = 1 - u * u - v * v;
      if (rest < 0) continue;
      const w = Math.sqrt(rest);
      const axis = [0, 1, 2].map((n) => u * turn[0][n] + v * turn[1][n] + w * turn[2][n]);
      const colour = axisColour(...axis, 0.45 + 0.55 * w);
      image.data.set([...colour, 255], 4 * (row * size + column));
    }
  }
  context.putImageData(image, 0, 0);
}

// The letters of the axes where they come out of the sphere.
function drawAxisNames(context, turn, centre, length, font) {
  context.font = font;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  ["x", "y", "z"].forEach((name, n) => {
    const side = turn[2][n] < -1e-6 ? -1 : 1; // the end that is turned to the viewer; both share a colour
    const end = [centre[0] + side * length * turn[0][n], centre[1] - side * length * turn[1][n]];
    context.lineWidth = length / 5;
    context.strokeStyle = "rgba(0, 0, 0, 0.65)";
    context.strokeText(name, ...end);
    context.fillStyle = "#fff";
    context.fillText(name, ...end);
  });
}
