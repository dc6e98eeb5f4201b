"use strict";
// What goes wrong in a script is told on the page, not only on the console.
window.addEventListener("error", (event) => {
  const place = document.getElementById("script-errors");
  if (!place) return;
  place.hidden = false;
  place.append(`A picture could not be drawn: ${event.message} (line ${event.lineno}). `);
});
