// /metrics every few seconds -> lines over the last quarter of an hour, and in words whether pictures are as in training.

import { Problem } from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import { PARTS, between } from "./samples.js";
import { short } from "./scale.js";
import { trouble } from "./trouble.js";

export const title = "Monitor";

const EVERY = 3000; // ms
const OVER = 30_000; // ms that each value sums up
const KEPT = 15 * 60_000; // ms of lines
const DRIFTING = { brightness: "Brightness", sharpness: "Sharpness", width: "Width, px", height: "Height, px", confidence: "Confidence" };

const looks = []; // at /metrics, of the last OVER; they and the moments outlive a change of view
const past = []; // [{at, …between, drift: {input: median}}], of the last KEPT

export function mount(root, { api }) {
  const note = h("div", { role: "status" });
  const words = h("ul", { class: "findings" });
  const verdict = h("p", { class: "verdict", role: "status" });
  const charts = cards();
  const inputs = Object.fromEntries(
    Object.entries(DRIFTING).map(([name, title]) => [name, chart({ title, time: true, height: 130, headline: true, empty: "No pictures yet." })]),
  );
  root.append(
    h("link", { rel: "stylesheet", href: "dashboard/charts.css" }),
    h("h2", {}, title),
    h("p", { class: "muted" }, "Asked every 3 seconds while this tab is in sight. Each value is of the 30 seconds before it; nothing of the pictures is kept."),
    note,
    h(
      "section",
      { class: "card", "aria-labelledby": "inputs" },
      h("h3", { id: "inputs" }, "Are pictures as those in training?"),
      verdict,
      words,
      h("div", { class: "charts" }, Object.values(inputs).map((each) => each.element)),
      h("p", { class: "muted key" }, "Lines: the median of recent pictures. Shaded: nine in ten training pictures, and their median."),
    ),
    h("section", { class: "charts cards", "aria-label": "The server" }, charts.map((each) => each.element)),
  );
  let timer = 0;
  let mounted = true;
  document.addEventListener("visibilitychange", watch);
  draw();
  watch();

  async function watch() {
    clearTimeout(timer);
    if (document.hidden || !mounted) return;
    try {
      const [samples, drift] = await Promise.all([api.get("metrics"), api.get("drift")]);
      remember({ at: Date.now(), samples }, drift);
      note.replaceChildren();
      if (mounted) tell(drift);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      note.replaceChildren(trouble(problem));
    }
    clearTimeout(timer);
    if (mounted && !document.hidden) timer = setTimeout(watch, EVERY);
  }

  function tell(drift) {
    draw(drift);
    const drifted = drift.inputs.filter((each) => each.drifted);
    const known = drift.inputs.filter((each) => each.score !== null);
    verdict.textContent = judgement(drift, known, drifted);
    verdict.className = `verdict ${drifted.length ? "fair" : known.length ? "good" : "muted"}`;
    const said = drifted.map((each) => sentence(each.words));
    if (words.textContent !== said.join("")) words.replaceChildren(...said.map((text) => h("li", {}, text)));
  }

  function draw(drift = { inputs: [] }) {
    const moments = withGaps(past);
    for (const each of charts) each.draw(moments);
    for (const { name, training } of drift.inputs) {
      const band = training && { low: training.p05, middle: training.p50, high: training.p95 };
      inputs[name].show([line(DRIFTING[name], moments, (moment) => moment.drift[name] ?? null)], band);
    }
  }

  return () => {
    mounted = false;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", watch);
    for (const each of [...charts, ...Object.values(inputs)]) each.remove();
  };
}

function judgement(drift, known, drifted) {
  if (drift.version === null) return "No model answers yet.";
  if (drift.inputs.every((each) => each.training === null)) return "The release does not say what training pictures were like.";
  if (drifted.length) return "Not quite: expect more mistakes, or train with pictures like these.";
  if (known.length) return `Yes, as far as can be told from ${Math.max(...known.map((each) => each.values))} pictures and hands.`;
  return "It takes 30 recent pictures to tell.";
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function remember(look, drift) {
  looks.push(look);
  while (looks.length > 2 && look.at - looks[1].at >= OVER) looks.shift();
  if (looks.length < 2) return;
  const medians = Object.fromEntries(drift.inputs.map(({ name, recent }) => [name, recent?.p50 ?? null]));
  past.push({ at: look.at, ...between(looks[0], look), drift: medians });
  while (past[0].at < look.at - KEPT) past.shift();
}

/** Where the page was not looking, the lines are broken. */
function withGaps(moments) {
  return moments.flatMap((moment, n) => {
    const missed = n > 0 && moment.at - moments[n - 1].at > 4 * EVERY;
    return missed ? [{ at: moments[n - 1].at + 1, drift: {} }, moment] : [moment];
  });
}

function line(name, moments, value, colour = 1, dashed = false) {
  return { name, colour, dashed, points: moments.map((moment) => [moment.at, value(moment) ?? null]) };
}

/** Each chart with how it is drawn. */
function cards() {
  const ms = (value) => (value === null ? "–" : `${short(value)} ms`);
  const percent = (value) => (value === null ? "–" : `${short(value * 100)} %`);
  const megabytes = (value) => (value === null ? "–" : `${Math.round(value)} MB`);
  const of = (options, series) => {
    const drawn = chart({ time: true, zero: true, ...options });
    const draw = (moments) => drawn.show(moments.length ? series(moments) : []);
    return { element: drawn.element, remove: drawn.remove, draw };
  };
  return [
    of({ title: "Requests a second", note: "without this page's own", top: 1 }, (moments) => [
      line("requests", moments, (each) => each.requests),
      line("pictures", moments, (each) => each.pictures, 2, true),
    ]),
    of({ title: "Errors a second", headline: true, top: 1 }, (moments) => [line("Errors a second", moments, (each) => each.errors, 5)]),
    of({ title: "Time of POST /predict", note: "half, 95 % and 99 % of requests are faster", format: ms, top: 10 }, (moments) =>
      ["50 %", "95 %", "99 %"].map((name, n) => line(name, moments, (each) => each.latency?.[n], n + 1, n > 0)),
    ),
    of({ title: "Where a picture's time goes", note: "mean of each part", format: ms, top: 10 }, (moments) =>
      PARTS.map((name, n) => line(name, moments, (each) => each.parts?.[n], n + 1)),
    ),
    of({ title: "Queue", note: "pictures that wait or are worked on; WebSockets", top: 4 }, (moments) => [
      line("pictures", moments, (each) => each.queue),
      line("WebSockets", moments, (each) => each.clients, 2, true),
      line("frames dropped a second", moments, (each) => each.dropped, 3, true),
    ]),
    of({ title: "Hands a minute, by class", top: 1, empty: "No hands yet." }, (moments) =>
      keys(moments, "hands").map((name, n) => line(name, moments, (each) => each.hands && (each.hands[name] ?? 0), n % 7)),
    ),
    of({ title: "Hands that could not be told", headline: true, format: percent, top: 0.1, empty: "No hands yet." }, (moments) => [
      line("Hands that could not be told", moments, (each) => each.unknown, 6),
    ]),
    of({ title: "Confidence of hands", note: "half, and 5 %, are below", top: 1, empty: "No hands yet." }, (moments) => [
      line("50 %", moments, (each) => each.confidence?.[1], 1),
      line("5 %", moments, (each) => each.confidence?.[0], 3, true),
    ]),
    of({ title: "Pictures with a face, hidden", headline: true, format: percent, top: 1, empty: "No pictures yet." }, (moments) => [
      line("Pictures with a face, hidden", moments, (each) => each.faces, 4),
    ]),
    of({ title: "Processor", note: "100 % is one core", format: percent, top: 1 }, (moments) => byName(moments, "cpu")),
    of({ title: "Memory", format: megabytes }, (moments) => byName(moments, "memory")),
    of({ title: "GPUs", note: "time in which they compute, for whomever", format: percent, top: 1, empty: "The server finds no NVIDIA GPU." }, (moments) =>
      byName(moments, "gpus"),
    ),
  ];
}

function byName(moments, what) {
  return keys(moments, what).map((name, n) => line(name, moments, (each) => each[what]?.[name], n % 7, n > 6));
}

function keys(moments, what) {
  return [...new Set(moments.flatMap((moment) => Object.keys(moment[what] ?? {})))].sort();
}
