// Runs of MLflow -> a table that moves with the training in progress, and the curves of those chosen over one another.

import { Problem } from "./api.js";
import { chart, swatch } from "./chart.js";
import { h } from "./dom.js";
import { trouble } from "./trouble.js";

export const title = "Experiments";

const EVERY = 5000; // ms
const TYPED = 300; // ms without a key before a filter is asked for
const AT_ONCE = 7; // curves: as many as there are colours
const FIRST = 3; // chosen to begin with
const STATES = ["running", "finished", "failed", "killed"];
const PREFERRED = ["map50", "val_box_loss", "box_loss"];

/** right: numbers. sort: as the server calls it; what MLflow cannot sort by has none. */
const COLUMNS = [
  { name: "Run", sort: "name", show: (run) => run.name },
  { name: "State", sort: "state", show: (run) => h("span", { class: "state", "data-state": run.state }, run.state) },
  { name: "Architecture", sort: "architecture", show: (run) => run.architecture ?? "–" },
  { name: "Epochs", right: true, show: (run) => (run.of_epochs ? `${run.epochs} of ${run.of_epochs}` : String(run.epochs)) },
  { name: "mAP50, val", right: true, show: (run) => score(run.val_map50) },
  { name: "mAP50, test", sort: "map50", right: true, show: (run) => score(run.map50) },
  { name: "Count accuracy", sort: "count_accuracy", right: true, show: (run) => percent(run.count_accuracy) },
  { name: "Version", right: true, show: (run) => run.version ?? "–" },
  { name: "Started", sort: "started", show: (run) => moment(run.started) },
  { name: "Time", right: true, show: (run) => duration(run.seconds) },
];

export function mount(root, { api }) {
  const asked = { sort: "started", descending: true, state: "", text: "", architecture: "" };
  const pages = [null]; // tokens up to the page that is shown
  const chosen = new Map(); // id -> {run, colour, series: {metric: points}}
  let listed = null;
  let metric = null;
  let begun = false;
  let round = 0; // an answer to a question that was changed meanwhile is not shown
  let timer = 0;
  let typing = 0;
  let mounted = true;

  const note = h("div", { role: "status" });
  const heads = COLUMNS.map(head);
  const body = h("tbody");
  const rows = new Map();
  const count = h("p", { class: "muted", role: "status" });
  const newer = h("button", { onclick: () => leaf(-1), disabled: true }, "Back");
  const older = h("button", { onclick: () => leaf(1), disabled: true }, "More");
  const list = h(
    "section",
    { class: "card", "aria-label": "Runs" },
    filters(),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of runs" }, h("table", {}, h("thead", {}, h("tr", {}, heads)), body)),
    h("div", { class: "row" }, count, newer, older),
  );
  const picker = h("select", { onchange: () => pick(picker.value) });
  const curves = chart({ title: "Curves", height: 340, empty: "Choose runs in the table to lay their curves over one another." });
  const compared = h(
    "section",
    { class: "card", "aria-label": "Curves of the chosen runs" },
    h("label", { class: "row" }, "Metric", picker),
    curves.element,
  );
  root.append(h("link", { rel: "stylesheet", href: "dashboard/charts.css" }), h("h2", {}, title), note, list, compared);
  list.hidden = compared.hidden = true;
  document.addEventListener("visibilitychange", watch);
  watch();

  /** Now, and again every few seconds while somebody looks. */
  async function watch() {
    clearTimeout(timer);
    if (document.hidden || !mounted) return;
    const mine = ++round;
    try {
      const answer = await api.get(`runs?${query()}`);
      if (mine !== round || !mounted) return;
      tell(answer);
      await Promise.all([...chosen.values()].map(fetchCurve));
      if (mine !== round || !mounted) return;
      draw();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (mine === round) note.replaceChildren(trouble(problem));
    }
    clearTimeout(timer);
    if (mine === round && mounted && !document.hidden) timer = setTimeout(watch, EVERY);
  }

  function query() {
    const given = Object.entries({ ...asked, page: pages.at(-1) }).filter(([, value]) => value !== "" && value !== null);
    return new URLSearchParams(given);
  }

  function tell(answer) {
    const isFiltered = asked.state || asked.text || asked.architecture;
    listed = answer;
    note.replaceChildren();
    if (answer.unavailable) {
      note.append(h("div", { class: "note" }, h("p", {}, h("strong", {}, "No experiments to show.")), h("p", { class: "muted" }, sentence(answer.unavailable))));
    } else if (!answer.runs.length && !isFiltered && pages.length === 1) {
      note.append(h("div", { class: "note" }, h("p", {}, h("strong", {}, "No training yet.")), h("p", { class: "muted" }, "dvc repro trains a model; its run appears here while it is under way.")));
    }
    list.hidden = compared.hidden = note.childElementCount > 0 && !chosen.size;
    if (!begun && answer.runs.length) {
      begun = true;
      for (const run of answer.runs.filter((run) => run.epochs > 0).slice(0, FIRST)) choose(run);
    }
    for (const run of answer.runs) if (chosen.has(run.id)) chosen.get(run.id).run = run;
    fill(answer.runs);
    newer.disabled = pages.length === 1;
    older.disabled = !answer.next;
    newer.hidden = older.hidden = newer.disabled && older.disabled;
    const said = answer.runs.length ? `${answer.runs.length} ${answer.runs.length === 1 ? "run" : "runs"}${pages.length > 1 || answer.next ? `, page ${pages.length}` : ""}` : "No run fits.";
    if (count.textContent !== said) count.textContent = said;
    offer();
  }

  /** Rows stay the same elements while they move: what had the focus keeps it. */
  function fill(runs) {
    const shown = runs.map((run) => {
      if (!rows.has(run.id)) rows.set(run.id, row(run));
      rows.get(run.id).update(run);
      return rows.get(run.id).element;
    });
    if (shown.length !== body.children.length || shown.some((element, n) => body.children[n] !== element)) body.replaceChildren(...shown);
    for (const id of rows.keys()) if (!runs.some((run) => run.id === id)) rows.delete(id);
  }

  function row({ id }) {
    let run = null;
    const box = h("input", { type: "checkbox", onchange: () => toggle(run, box.checked) });
    const name = h("span");
    const mark = h("span");
    const cells = COLUMNS.slice(1).map(({ right }) => h("td", { class: right ? "number right" : null }));
    const element = h("tr", {}, h("th", { scope: "row" }, h("label", {}, box, name, mark)), cells);
    const update = (newest) => {
      run = newest;
      name.textContent = run.name;
      mark.replaceChildren(...(chosen.has(id) ? [swatch(line(chosen.get(id)))] : []));
      box.checked = chosen.has(id);
      box.disabled = !box.checked && chosen.size >= AT_ONCE;
      box.title = box.disabled ? `${AT_ONCE} at once: let one go first` : "";
      COLUMNS.slice(1).forEach(({ show }, n) => {
        const value = show(run);
        if (cells[n].textContent !== (value.textContent ?? value)) cells[n].replaceChildren(value);
      });
    };
    return { element, update };
  }

  function choose(run) {
    const taken = [...chosen.values()].map(({ colour }) => colour);
    const colour = [1, 2, 3, 4, 5, 6, 0].find((each) => !taken.includes(each));
    if (colour !== undefined) chosen.set(run.id, { run, colour, curves: {} });
  }

  function toggle(run, wanted) {
    if (wanted) choose(run);
    else chosen.delete(run.id);
    watch();
  }

  /** Of a run that has ended once; of one in progress each time. */
  async function fetchCurve(one) {
    if (metric === null || !one.run.metrics.includes(metric)) return;
    const known = one.curves[metric];
    if (known && known.state === one.run.state && one.run.state !== "running") return;
    const wanted = metric;
    try {
      const { state, series } = await api.get(`runs/${one.run.id}/metrics?${new URLSearchParams({ name: wanted })}`);
      const [{ steps, values }] = series.length ? series : [{ steps: [], values: [] }];
      one.curves[wanted] = { state, points: steps.map((step, n) => [step, values[n]]) };
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status !== 404) throw problem;
      chosen.delete(one.run.id); // deleted in MLflow since it was listed
    }
  }

  function draw() {
    const shown = [...chosen.values()].filter((one) => one.curves[metric]);
    curves.show(
      shown.map((one) => ({ ...line(one), name: one.run.name, points: one.curves[metric].points })),
    );
  }

  /** The metrics that the chosen runs have. */
  function offer() {
    const names = [...new Set([...chosen.values()].flatMap(({ run }) => run.metrics))].sort(byPlace);
    if (!names.includes(metric)) metric = PREFERRED.find((name) => names.includes(name)) ?? names[0] ?? metric;
    const offered = [...picker.options].map(({ value }) => value);
    if (names.join() !== offered.join()) picker.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    picker.value = metric ?? "";
    picker.disabled = !names.length;
  }

  function pick(name) {
    metric = name;
    watch();
  }

  function leaf(by) {
    if (by > 0) pages.push(listed.next);
    else pages.pop();
    watch();
  }

  function ask(changes) {
    Object.assign(asked, changes);
    pages.length = 1;
    watch();
  }

  function head({ name, sort, right }) {
    const attributes = { scope: "col", class: right ? "right" : null };
    if (!sort) return h("th", attributes, name);
    const element = h("th", attributes, h("button", { onclick: () => order(sort) }, name));
    if (sort === asked.sort) element.setAttribute("aria-sort", "descending");
    return element;
  }

  function order(sort) {
    const descending = sort === asked.sort ? !asked.descending : !["name", "state", "architecture"].includes(sort);
    COLUMNS.forEach((column, n) => {
      if (column.sort === sort) heads[n].setAttribute("aria-sort", descending ? "descending" : "ascending");
      else heads[n].removeAttribute("aria-sort");
    });
    ask({ sort, descending });
  }

  function filters() {
    const typed = (name) => (event) => {
      const value = event.target.value.replace(/['"`\\;]/g, ""); // MLflow's language cannot quote them
      clearTimeout(typing);
      typing = setTimeout(() => ask({ [name]: value }), TYPED);
    };
    const field = (label, name, placeholder) =>
      h("label", {}, label, h("input", { type: "search", maxlength: "100", placeholder, spellcheck: "false", oninput: typed(name) }));
    const states = h(
      "select",
      { onchange: (event) => ask({ state: event.target.value }) },
      h("option", { value: "" }, "any"),
      STATES.map((state) => h("option", { value: state }, state)),
    );
    return h(
      "form",
      { class: "filters", onsubmit: (event) => event.preventDefault(), "aria-label": "Which runs" },
      field("Name", "text", "part of it"),
      field("Architecture", "architecture", "yolo11n"),
      h("label", {}, "State", states),
    );
  }

  return () => {
    mounted = false;
    clearTimeout(timer);
    clearTimeout(typing);
    document.removeEventListener("visibilitychange", watch);
    curves.remove();
  };
}

/** How the run's curve looks: of one in progress, dashed. */
function line({ run, colour }) {
  return { colour, dashed: run.state === "running" };
}

/** Those with a curve before those that say one thing of the whole run. */
function byPlace(a, b) {
  return a.includes("/") - b.includes("/") || a.localeCompare(b);
}

function score(value) {
  return value === null ? "–" : value.toFixed(3);
}

function percent(value) {
  return value === null ? "–" : `${(value * 100).toFixed(1)} %`;
}

function moment(text) {
  return new Date(text).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.round(seconds)} s`;
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}
