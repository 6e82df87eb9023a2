// The address's #view -> that view in the page; the state of the server above it.

import { createApi, Problem } from "./api.js";
import { h } from "./dom.js";
import { sentence } from "./trouble.js";

const HEALTH_EVERY = 5000; // ms
const FIRST = "try";

const tabs = [...document.querySelectorAll("[role=tab]")];
const names = tabs.map((tab) => tab.dataset.view);
const panel = document.getElementById("view");
const api = createApi(askForKey);
let shown = { name: null, unmount: () => {} };
let watching = 0; // the timer of the next look at the server

start();

function start() {
  for (const tab of tabs) tab.addEventListener("click", () => go(tab.dataset.view));
  tabs[0].parentElement.addEventListener("keydown", moveAmongTabs);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the view
    panel.focus();
  });
  addEventListener("hashchange", show);
  document.addEventListener("visibilitychange", watchHealth);
  show();
  watchHealth();
}

function go(name) {
  location.hash = name;
}

async function show() {
  const wanted = location.hash.slice(1);
  const name = names.includes(wanted) ? wanted : FIRST;
  if (name === shown.name) return;
  shown.unmount();
  shown = { name, unmount: () => {} };
  for (const tab of tabs) {
    const isShown = tab.dataset.view === name;
    tab.setAttribute("aria-selected", isShown);
    tab.tabIndex = isShown ? 0 : -1;
    if (isShown) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  panel.setAttribute("aria-labelledby", `tab-${name}`);
  panel.className = `view-${name}`;
  const root = h("div", { class: "view" });
  panel.replaceChildren(root);
  let view;
  try {
    view = await import(`./${name}.js`);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // what import throws when the server is away
    root.append(
      h("p", { class: "note bad", role: "alert" }, "This view could not be fetched from the server."),
      h("div", {}, h("button", { onclick: () => location.reload() }, "Try again")), // a browser may remember the failure
    );
    return;
  }
  if (shown.name !== name) return; // another was chosen meanwhile
  document.title = `${view.title} · Finger counter`;
  shown.unmount = view.mount(root, { api, go });
}

/** As WAI-ARIA has it for tabs: arrows, Home and End move and choose. */
function moveAmongTabs(event) {
  const at = tabs.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  tab.focus();
  go(tab.dataset.view);
}

function watchHealth() {
  clearTimeout(watching);
  if (document.hidden) return;
  api
    .get("health")
    .then(tellHealth, (problem) => {
      if (!(problem instanceof Problem)) throw problem;
      tellAway(problem);
    })
    .finally(() => (watching = setTimeout(watchHealth, HEALTH_EVERY)));
}

function tellHealth(health) {
  const state = { ok: "good", degraded: "fair", "not ready": "bad" }[health.status];
  const words = health.model ? `${health.model.name} ${health.model.version} on ${health.engine}` : "no model yet";
  tell(state, health.status === "ok" ? words : `${words}: ${health.status}`, health.reasons.join("; "));
}

function tellAway(problem) {
  tell("bad", "no server", `${sentence(problem.message)} ${problem.remedy}`);
}

function tell(state, words, trouble) {
  const pill = document.getElementById("health");
  const banner = document.getElementById("banner");
  pill.dataset.state = state;
  if (pill.textContent !== words) pill.textContent = words; // a live region: said once
  banner.hidden = !trouble;
  if (banner.textContent !== trouble) banner.textContent = trouble;
}


/** Resolves to {key, keep}, or null when the dialog was left. */
function askForKey(why) {
  const dialog = document.getElementById("key");
  const value = document.getElementById("key-value");
  const standard = "it is sent with each question, to this server only";
  document.getElementById("key-why").textContent = sentence(why || standard);
  value.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const key = value.value.trim();
        value.value = "";
        const keep = document.getElementById("key-keep").checked;
        resolve(dialog.returnValue === "use" && key ? { key, keep } : null);
      },
      { once: true },
    );
  });
}
