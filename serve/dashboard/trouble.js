// What went wrong -> a note that says so in words, and what to do.

import { Problem } from "./api.js";
import { h } from "./dom.js";

/** again: what its button does; without it there is none. Raises what is no Problem: a fault of the page itself. */
export function trouble(problem, again = null) {
  if (!(problem instanceof Problem)) throw problem;
  return h(
    "div",
    { class: "note bad", role: "alert" },
    h("p", {}, h("strong", {}, sentence(problem.message))),
    problem.remedy && h("p", {}, problem.remedy),
    problem.requestId && h("p", { class: "muted" }, "Request ", h("code", {}, problem.requestId)),
    again && h("button", { onclick: again }, "Try again"),
  );
}

export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
