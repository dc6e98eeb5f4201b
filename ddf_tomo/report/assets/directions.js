// Fibre directions as sticks that can be turned and zoomed; farther ones first, so that nearer ones cover them.
(() => {
  const canvas = document.getElementById("directions-view");
  if (!canvas || !volume.sticks.count) return;
  const { count } = volume.sticks;
  const place = bytes(volume.sticks.position, Uint16Array), axis = bytes(volume.sticks.direction, Int8Array);
  const strength = bytes(volume.sticks.strength);
  const context = canvas.getContext("2d"), key = new OffscreenCanvas(160, 160);
  const threshold = document.getElementById("directions-threshold"), cut = document.getElementById("directions-cut");
  const told = document.getElementById("directions-count");
  // The box holds all sticks; in the units of the picture its longest edge is 2.
  const first = [1 / 0, 1 / 0, 1 / 0], last = [0, 0, 0];
  place.forEach((n, i) => {
    first[i % 3] = Math.min(first[i % 3], n);
    last[i % 3] = Math.max(last[i % 3], n + 1);
  });
  const size = last.map((n, i) => n - first[i]), half = Math.max(...size) / 2;
  const length = (0.52 * volume.sticks.spacing) / half;
  const centre = new Float32Array(3 * count), span = new Float32Array(3 * count), colours = [];
  for (let i = 0; i < count; i++) {
    for (let n = 0; n < 3; n++) {
      centre[3 * i + n] = (place[3 * i + n] + 0.5 - (first[n] + last[n]) / 2) / half;
      span[3 * i + n] = (length * axis[3 * i + n]) / 127;
    }
    const rgb = axisColour(axis[3 * i], axis[3 * i + 1], axis[3 * i + 2], 0.55 + 0.45 * strength[i] / 255);
    colours.push(`rgb(${rgb.map(Math.round).join()})`);
  }
  const corner = size.map((n) => n / 2 / half);

  // Rows of `turn`: the axes right, up and towards the viewer, in the frame of the sample.
  const about = { z: [[1, 0, 0], [0, 1, 0], [0, 0, 1]], y: [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], x: [[0, 1, 0], [0, 0, 1], [1, 0, 0]] };
  const oblique = [[-0.6, 0.8, 0], [-0.272, -0.204, 0.94], [0.752, 0.564, 0.34]];
  let turn = oblique, zoom = 1, asked = false;

  function rotate(right, up) { // by angles in radians about the vertical and the horizontal of the screen
    const [c, s, d, t] = [Math.cos(right), Math.sin(right), Math.cos(up), Math.sin(up)];
    const step = [[c, 0, s], [-t * s, d, t * c], [-d * s, -t, d * c]];
    const next = step.map((row) => [0, 1, 2].map((n) => row[0] * turn[0][n] + row[1] * turn[1][n] + row[2] * turn[2][n]));
    // Rounding must not shear the frame: made orthonormal again each time.
    const norm = (v) => v.map((value) => value / Math.hypot(...v));
    const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const front = norm(next[2]), side = norm(cross(next[1], front));
    turn = [side, cross(front, side), front];
    ask();
  }

  function draw() {
    asked = false;
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth || 600, height = canvas.clientHeight || 400;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const unit = 0.295 * Math.min(width, height) * zoom;
    const [right, up, front] = turn;
    const dot = (row, values, i) => row[0] * values[i] + row[1] * values[i + 1] + row[2] * values[i + 2];
    const screen = (x, y, depth) => { // mild perspective: nearer things are up to a quarter larger
      const scale = unit / (1 - 0.14 * depth);
      return [width / 2 + scale * x, height / 2 - scale * y];
    };

    context.lineWidth = 1;
    context.strokeStyle = "rgba(200, 210, 220, 0.28)";
    context.beginPath();
    for (let a = 0; a < 8; a++) {
      for (let n = 0; n < 3; n++) {
        if ((a >> n) & 1) continue;
        for (const [b, go] of [[a, "moveTo"], [a | (1 << n), "lineTo"]]) {
          const at = corner.map((c, m) => ((b >> m) & 1 ? c : -c));
          context[go](...screen(dot(right, at, 0), dot(up, at, 0), dot(front, at, 0)));
        }
      }
    }
    context.stroke();

    const least = 2.55 * threshold.value, reach = 1.1, nearest = reach - 2 * reach * (cut.value / 100);
    const shown = [], depths = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      depths[i] = dot(front, centre, 3 * i);
      if (strength[i] >= least && (depths[i] <= nearest || cut.value === "0")) shown.push(i);
    }
    shown.sort((a, b) => depths[a] - depths[b]);
    context.lineCap = "round";
    context.lineWidth = Math.max(1.1, unit * length * 0.36);
    for (const i of shown) {
      const x = dot(right, centre, 3 * i), y = dot(up, centre, 3 * i), z = depths[i];
      const dx = dot(right, span, 3 * i), dy = dot(up, span, 3 * i), dz = dot(front, span, 3 * i);
      context.globalAlpha = Math.min(1, Math.max(0.25, 0.66 + 0.36 * z)); // the far side is dimmer
      context.strokeStyle = colours[i];
      context.beginPath();
      context.moveTo(...screen(x - dx, y - dy, z - dz));
      context.lineTo(...screen(x + dx, y + dy, z + dz));
      context.stroke();
    }
    context.globalAlpha = 1;
    drawSphere(key, turn);
    const box = 2 * Math.min(44, 0.12 * width);
    context.drawImage(key, 12, height - box - 12, box, box);
    drawAxisNames(context, turn, [12 + box / 2, height - 12 - box / 2], 0.42 * box, "600 13px system-ui, sans-serif");
    told.textContent = `${shown.length} of ${count} sticks shown, in a box of ${size.join(" × ")} voxels.`;
  }

  function ask() {
    if (!asked) requestAnimationFrame(draw);
    asked = true;
  }

  function zoomBy(factor) {
    zoom = Math.min(12, Math.max(0.4, zoom * factor));
    ask();
  }

  const pointers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), now = [event.clientX, event.clientY];
    if (!before) return;
    if (pointers.size === 1) {
      const speed = 5 / Math.max(canvas.clientHeight, 1);
      rotate(speed * (now[0] - before[0]), -speed * (now[1] - before[1]));
    } else { // two fingers: their distance zooms
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      if (apart(before) > 0) zoomBy(apart(now) / apart(before));
    }
    pointers.set(event.pointerId, now);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
  }
  // The wheel scrolls the page until the picture has been clicked, so that nobody is caught in it by passing over.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoomBy(Math.exp(-0.0015 * event.deltaY * (event.deltaMode === 1 ? 30 : 1)));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => rotate(-0.1, 0), ArrowRight: () => rotate(0.1, 0),
    ArrowUp: () => rotate(0, 0.1), ArrowDown: () => rotate(0, -0.1),
    "+": () => zoomBy(1.15), "=": () => zoomBy(1.15), "-": () => zoomBy(1 / 1.15), Home: () => look("reset"),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  function look(from) {
    turn = about[from] || oblique;
    if (from === "reset") zoom = 1;
    ask();
  }
  for (const button of document.querySelectorAll("button[data-look]")) {
    button.addEventListener("click", () => look(button.dataset.look));
  }
  for (const slider of [threshold, cut]) slider.addEventListener("input", ask);
  window.addEventListener("resize", ask);
  draw();
})();
