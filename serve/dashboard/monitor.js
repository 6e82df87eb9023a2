// Nothing yet.

import { h } from "./dom.js";

export const title = "Monitor";

export function mount(root) {
  root.append(h("h2", {}, title));
  return () => {};
}
