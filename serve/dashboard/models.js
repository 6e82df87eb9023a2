// The server's models -> which there are, what one is made of, and two of them on the same pictures.

import { chooser, refuseOthers } from "./chooser.js";
import { h } from "./dom.js";
import { figure } from "./figure.js";
import { inWords, percent, plural } from "./hands.js";
import { releaseOf } from "./releases.js";
import { trouble } from "./trouble.js";

export const title = "Models";

export function mount(root, { api }) {
  const leaving = new AbortController();
  const versions = h("select", { id: "version", onchange: showCard });
  const loader = h("button", { class: "primary", onclick: load }, "Load");
  const told = h("div", { class: "told", role: "status" });
  const card = h("div", { class: "card model" });
  const comparison = compare(api, leaving.signal);
  let models = null;

  root.append(
    h("h2", {}, title),
    h("div", { class: "actions" }, h("label", { for: "version" }, "Version"), versions, loader),
    told,
    card,
    comparison.element,
  );
  list();
  return () => {
    leaving.abort();
    comparison.unmount();
  };

  async function list(chosen = null) {
    try {
      models = await api.get("models", { signal: leaving.signal });
    } catch (problem) {
      if (problem.name !== "AbortError") told.replaceChildren(trouble(problem, () => list(chosen)));
      return;
    }
    const away = models.registry && `The registry could not be asked: ${models.registry}`;
    told.replaceChildren(...(away ? [h("p", { class: "note" }, away)] : []));
    versions.replaceChildren(...models.versions.map((one) => h("option", { value: one.version }, nameOf(one))));
    if (chosen ?? models.current) versions.value = chosen ?? models.current;
    versions.disabled = !models.versions.length;
    comparison.offer(models);
    showCard();
  }

  async function showCard() {
    const version = models.versions.find((one) => one.version === versions.value);
    loader.disabled = !version || version.current;
    loader.textContent = version?.current ? "Answers now" : "Load";
    if (!version) {
      card.replaceChildren(h("p", {}, "There is no model yet: dvc repro makes one, dvc pull fetches one."));
      return;
    }
    card.replaceChildren(...summary(version, models.name));
    if (!version.loaded) {
      card.append(h("p", { class: "muted" }, "Load it to see its classes, thresholds and scores by class."));
      return;
    }
    try {
      const release = await releaseOf(api, version);
      if (versions.value === version.version) card.append(...details(release));
    } catch (problem) {
      card.append(trouble(problem));
    }
  }

  async function load() {
    const version = versions.value;
    loader.disabled = true;
    told.replaceChildren(h("p", { class: "pending" }, `Loading version ${version} beside the present one…`));
    try {
      const swapped = await asAdmin(api, () => api.post("models/load", { version }, {}, { signal: leaving.signal }));
      await list(swapped.current.version);
      told.replaceChildren(h("p", { class: "good" }, `Version ${swapped.current.version} answers now.`));
    } catch (problem) {
      loader.disabled = false;
      if (problem.name !== "AbortError") told.replaceChildren(trouble(problem));
    }
  }
}

async function asAdmin(api, ask) {
  try {
    return await ask();
  } catch (problem) {
    if (problem.status !== 403 || !(await api.askForKey("Loading a model needs an admin key"))) throw problem;
    return ask();
  }
}

function nameOf(version) {
  const accuracy = version.metrics.count_accuracy;
  return [
    version.version,
    ...version.aliases,
    ...(typeof accuracy === "number" ? [`${percent(accuracy, 1)} of counts right`] : []),
    ...(version.current ? ["answers now"] : version.loaded ? ["loaded"] : []),
  ].join(" · ");
}

function summary(version, name) {
  const { map50, count_accuracy: accuracy, count_accuracy_low: low, count_accuracy_high: high } = version.metrics;
  const range = typeof low === "number" ? ` (${percent(low)} to ${percent(high)})` : "";
  return [
    h("h3", {}, `${name} · version ${version.version}`),
    version.aliases.length > 0 && h("p", { class: "muted" }, `Also called ${version.aliases.join(", ")}`),
    facts({ "Counts right": `${percent(accuracy, 1)}${range}`, mAP50: percent(map50, 1) }),
    h("h4", {}, "Where it comes from"),
    facts(
      {
        "Data (DVC)": version.lineage.data,
        "dvc.lock": version.lineage.lock,
        "Git revision": version.lineage.git,
        "MLflow run": version.lineage.run_id,
        "File (sha256)": version.sha256,
      },
      "code",
    ),
  ].filter(Boolean);
}

function details(release) {
  const { thresholds, faces, metrics, precisions, gates, comparison } = release;
  const classes = Object.entries(metrics.classes).map(([name, scores]) => [
    name,
    release.counts[release.classes.indexOf(name)] ?? "none",
    ...[scores.ap50, scores.precision, scores.recall].map((score) => percent(score)),
  ]);
  const speeds = Object.entries(precisions).map(([name, scores]) => [
    name,
    percent(scores.count_accuracy, 1),
    typeof scores.latency_ms === "number" ? `${scores.latency_ms.toFixed(1)} ms` : "–",
  ]);
  return [
    h("h4", {}, "How it decides"),
    facts({
      "Confidence at least": percent(thresholds.confidence),
      "One hand where boxes overlap by": percent(thresholds.iou),
      "Hands at most": thresholds.max_boxes,
      "Faces are hidden by": `${faces.detector}, ${faces.method}`,
      Gates: gates.passed ? "passed" : gates.failures.map((failure) => failure.text).join("; "),
      ...(comparison && {
        [`Against version ${comparison.champion}`]: `${points(comparison.difference)} of counts right`,
      }),
    }),
    h("h4", {}, "On test pictures"),
    table(["Class", "Fingers", "AP50", "Precision", "Recall"], classes),
    table(["Runs in", "Counts right", "Time a picture"], speeds),
  ];
}

function points(difference) {
  return `${difference < 0 ? "−" : "+"}${Math.abs(difference * 100).toFixed(1)} points`;
}

/** kind: the element that a value stands in. */
function facts(values, kind = "span") {
  const fact = ([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, h(kind, {}, value ?? "unknown")));
  return h("dl", { class: "numbers" }, Object.entries(values).map(fact));
}

function table(header, rows) {
  const head = h("tr", {}, header.map((name) => h("th", { scope: "col" }, name)));
  const body = rows.map(([name, ...values]) => {
    const cells = values.map((value) => h("td", { class: "number" }, value));
    return h("tr", {}, h("th", { scope: "row" }, name), cells);
  });
  return h(
    "div", // which scrolls, also by keyboard
    { class: "scroll", tabindex: 0, role: "group", "aria-label": `${header[0]}: ${header.slice(1).join(", ")}` },
    h("table", {}, h("thead", {}, head), h("tbody", {}, body)),
  );
}

/** Two loaded versions on the same pictures: {element, offer(models), unmount()}. */
function compare(api, signal) {
  const first = h("select", { id: "first" });
  const second = h("select", { id: "second" });
  const chosen = chooser("Drop pictures here to ask both", (files) => run(files));
  const hint = h("p", { class: "muted" });
  const tally = h("p", { class: "words", role: "status" });
  const sift = () => list.classList.toggle("apart", apart.checked);
  const apart = h("input", { type: "checkbox", id: "apart", onchange: sift });
  const filter = h("label", { class: "check", hidden: true }, apart, "Disagreements only");
  const list = h("ul", { class: "gallery pairs" });
  let asked = []; // {name, same} of the pictures answered

  const element = h(
    "section",
    { class: "view busy", "aria-labelledby": "compare" },
    h("h2", { id: "compare" }, "Two models, the same pictures"),
    hint,
    h(
      "div",
      { class: "actions" },
      h("label", { for: "first" }, "Between"),
      first,
      h("label", { for: "second" }, "and"),
      second,
    ),
    chosen.element,
    h("div", { class: "actions" }, tally, filter),
    list,
  );
  for (const select of [first, second]) select.addEventListener("change", clear);

  function offer(models) {
    const loaded = models.versions.filter((version) => version.loaded);
    for (const select of [first, second]) {
      const kept = select.value;
      select.replaceChildren(...loaded.map((version) => h("option", { value: version.version }, version.version)));
      if (loaded.some((version) => version.version === kept)) select.value = kept;
    }
    const other = loaded.find((version) => version.version !== first.value);
    if (other && first.value === second.value) second.value = other.version;
    hint.textContent = other
      ? "Each decides by its own threshold."
      : "Only one version is loaded. Load another one above: the one before stays loaded beside it.";
    clear();
  }

  function clear() {
    asked = [];
    list.replaceChildren();
    tell();
  }

  async function run(files) {
    const pair = [first.value, second.value];
    for (const file of files) {
      const item = h("li", { class: "card pair" });
      item.append(h("h3", {}, file.name), h("p", { class: "muted pending" }, "Asking both…"));
      list.append(item);
      await ask(item, file, pair);
      if (signal.aborted) return;
    }
  }

  async function ask(item, file, pair) {
    try {
      refuseOthers(file);
      const sides = await Promise.all(pair.map((version) => side(file, version)));
      const same = sides[0].fingers === sides[1].fingers;
      const verdict = same ? `Both count ${sides[0].fingers}` : `${sides[0].fingers} or ${sides[1].fingers}?`;
      item.replaceChildren(
        h("h3", {}, file.name),
        h("p", { class: same ? "good" : "fair" }, verdict),
        h("div", { class: "two" }, sides.map((one) => one.element)),
      );
      item.classList.add(same ? "same" : "differs");
      if (!item.isConnected) return; // another pair was chosen meanwhile
      asked.push({ name: file.name, same });
      tell();
    } catch (problem) {
      if (problem.name !== "AbortError") item.replaceChildren(h("h3", {}, file.name), trouble(problem));
    }
  }

  async function side(file, version) {
    const answer = await api.post(`predict?render=blurred&model=${encodeURIComponent(version)}`, file, {}, { signal });
    const { counts } = await releaseOf(api, answer.model);
    const shown = figure(file.name, answer, counts);
    const hands = shown.show(0);
    const words = h("p", {}, h("strong", {}, version), ` · ${inWords(hands, counts)}`);
    return { element: h("div", { class: "side" }, shown.element, words), fingers: answer.finger_count };
  }

  function tell() {
    const differ = asked.filter((one) => !one.same).map((one) => one.name);
    const others = differ.length ? `, but not in ${differ.join(", ")}` : "";
    const words = `The same count in ${asked.length - differ.length} of ${plural(asked.length, "picture")}${others}`;
    tally.textContent = asked.length ? words : "";
    filter.hidden = !asked.length;
  }

  return { element, offer, unmount: chosen.unmount };
}
