// Hands -> boxes with names: as vectors over a picture, or painted into one that is saved.

import { svg } from "./dom.js";
import { percent } from "./hands.js";

const COLOURS = 7; // --hand-0 to --hand-6
const LABEL = 0.038; // of the picture's longer side

/** image: {width, height} in px. mirrored: as in a mirror, though the letters are not. */
export function overlay(image, hands, mirrored = false) {
  const size = LABEL * Math.max(image.width, image.height);
  const boxes = hands.map((hand) => {
    const [x1, y1, x2, y2] = hand.bbox;
    const x = mirrored ? image.width - x2 : x1;
    const box = { x, y: y1, width: x2 - x1, height: y2 - y1, rx: size / 4 };
    const label = { x: x + size / 4, y: baseline(y1, size), "font-size": size };
    return svg(
      "g",
      { style: { color: colour(hand) } },
      svg("rect", { ...box, class: "halo" }),
      svg("rect", { ...box, class: "box" }),
      svg("text", label, caption(hand)),
    );
  });
  const viewBox = `0 0 ${image.width} ${image.height}`;
  return svg("svg", { class: "overlay", viewBox, "aria-hidden": "true" }, boxes);
}

/** Into a canvas that holds the picture. */
export function paint(canvas, hands) {
  const context = canvas.getContext("2d");
  const size = Math.max(12, LABEL * Math.max(canvas.width, canvas.height));
  const style = getComputedStyle(document.documentElement);
  const paper = style.getPropertyValue("--card");
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.lineJoin = "round";
  for (const hand of hands) {
    const [x1, y1, x2, y2] = hand.bbox;
    const ink = style.getPropertyValue(`--hand-${hand.class_id % COLOURS}`);
    for (const [colour, width] of [[paper, size / 4], [ink, size / 8]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    const at = [x1 + size / 4, baseline(y1, size)];
    context.strokeStyle = paper;
    context.lineWidth = size / 4;
    context.strokeText(caption(hand), ...at);
    context.fillStyle = ink;
    context.fillText(caption(hand), ...at);
  }
}

export function colour(hand) {
  return `var(--hand-${hand.class_id % COLOURS})`;
}

/** Above the box, or inside where the picture ends. */
function baseline(top, size) {
  return top > size * 1.4 ? top - size * 0.4 : top + size * 1.2;
}

function caption(hand) {
  return `${hand.class_name} · ${percent(hand.confidence)}`;
}
