// Pictures dropped, pasted, chosen or taken from the samples -> files.

import { Problem } from "./api.js";
import { h } from "./dom.js";

const SAMPLES = ["an open hand", "two fingers and a fist", "two fingers"];
const ACCEPTED = ["image/jpeg", "image/png", "image/webp"];

/** {element, unmount()}. words: what is said in the drop zone, above the button. */
export function chooser(words, onfiles) {
  const input = h("input", { type: "file", accept: ACCEPTED.join(), multiple: true, hidden: true });
  const choose = h("button", { class: "primary", onclick: () => input.click() }, "Choose pictures");
  const samples = SAMPLES.map((name, number) => sample(`sample-${number + 1}.jpg`, name, onfiles));
  const zone = h(
    "section",
    { class: "drop", "aria-label": "Pictures" },
    h("p", { class: "lead" }, words),
    h("div", { class: "row" }, choose, input, h("span", { class: "muted" }, "or paste one")),
    h(
      "div",
      { class: "samples", role: "group", "aria-label": "Samples" },
      h("span", { class: "muted" }, "or try a drawing"),
      samples,
    ),
  );
  let depth = 0; // of elements that the drag has entered and not left

  input.addEventListener("change", () => {
    give([...input.files]);
    input.value = "";
  });

  const listeners = {
    dragenter: () => zone.classList.toggle("over", ++depth > 0),
    dragleave: () => zone.classList.toggle("over", --depth > 0),
    dragover: (event) => event.preventDefault(), // or the browser would open the file in place of the page
    drop(event) {
      event.preventDefault();
      depth = 0;
      zone.classList.remove("over");
      give([...event.dataTransfer.files]);
    },
    paste: (event) => give([...event.clipboardData.files]),
  };
  for (const [name, listener] of Object.entries(listeners)) document.addEventListener(name, listener);

  function give(files) {
    if (files.length) onfiles(files);
  }

  return {
    element: zone,
    unmount() {
      for (const [name, listener] of Object.entries(listeners)) document.removeEventListener(name, listener);
    },
  };
}

/** Raises the Problem that the server would answer with, in words for a person. */
export function refuseOthers(file) {
  if (ACCEPTED.includes(file.type)) return;
  const what = file.type || "something else";
  throw new Problem(415, "unsupported_media_type", `this is no JPEG, PNG or WebP picture, but ${what}`);
}

function sample(file, name, onfiles) {
  const url = new URL(`dashboard/${file}`, document.baseURI);
  async function use() {
    const content = await (await fetch(url)).blob();
    onfiles([new File([content], file, { type: "image/jpeg" })]);
  }
  const picture = h("img", { src: url, alt: "", width: 72, height: 72 });
  return h("button", { class: "sample", "aria-label": `Try a drawing of ${name}`, onclick: use }, picture);
}
