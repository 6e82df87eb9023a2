// A slider for the least confidence that counts; it begins where the model was released.

import { h } from "./dom.js";
import { LOWEST, percent } from "./hands.js";

/** {element, value, released(confidence), onchange}. */
export function threshold(onchange) {
  const input = h("input", { type: "range", id: "confidence", min: LOWEST, max: 0.95, step: 0.01, value: 0.4 });
  const output = h("output", { for: "confidence", class: "number" });
  const reset = h("button", { class: "quiet", onclick: () => set(standard) }, "Reset");
  const label = h("label", { for: "confidence" }, "Confidence at least ");
  let standard = null;
  let touched = false;

  function tell() {
    output.value = percent(input.valueAsNumber);
    input.setAttribute("aria-valuetext", output.value);
    reset.hidden = !touched;
  }

  function set(value) {
    input.value = value;
    touched = false;
    tell();
    onchange();
  }

  input.addEventListener("input", () => {
    touched = true;
    tell();
    onchange();
  });
  tell();
  return {
    element: h("div", { class: "threshold" }, label, input, output, reset),
    get value() {
      return input.valueAsNumber;
    },
    /** The model's own: where the slider stands, unless the person has moved it. */
    released(confidence) {
      standard = confidence;
      if (!touched && input.valueAsNumber !== confidence) set(confidence);
    },
  };
}
