// An answer with its blurred picture -> a figure whose boxes follow the threshold.

import { h } from "./dom.js";
import { fingersOf, handsAbove, inWords } from "./hands.js";
import { overlay, paint } from "./overlay.js";

/** {element, show(confidence) -> hands, save() -> Blob}. counts: of the release that answered. */
export function figure(name, answer, counts) {
  const image = h("img", { src: source(answer), width: answer.image.width, height: answer.image.height });
  const element = h("div", { class: "picture", style: { "--ratio": answer.image.width / answer.image.height } }, image);
  let hands = [];

  function show(confidence) {
    hands = handsAbove(answer, confidence);
    element.replaceChildren(image, overlay(answer.image, hands));
    const hidden = answer.preprocessing_applied ? "faces hidden" : "faces NOT hidden";
    image.alt = `${name}, ${hidden}: ${inWords(hands, counts)}`;
    return hands;
  }

  async function save() {
    await image.decode();
    const canvas = h("canvas", answer.image);
    canvas.getContext("2d").drawImage(image, 0, 0, answer.image.width, answer.image.height);
    paint(canvas, hands);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  }

  return { element, show, save, fingers: () => fingersOf(hands, counts) };
}

function source(answer) {
  return `data:image/jpeg;base64,${answer.blurred}`;
}
