// Pictures -> what the server sees in them: blurred, boxed, counted.

import { h } from "./dom.js";
import { chooser, refuseOthers } from "./chooser.js";
import { figure } from "./figure.js";
import { copy, csv, save } from "./files.js";
import { fingersOf, handsAbove, inWords, LOWEST, milliseconds, percent, plural, unknownOf } from "./hands.js";
import { colour } from "./overlay.js";
import { releaseOf } from "./releases.js";
import { threshold } from "./threshold.js";
import { trouble } from "./trouble.js";

export const title = "Try it";

const AT_ONCE = 2; // pictures under way, so that many leave room for others

export function mount(root, { api }) {
  const leaving = new AbortController();
  const waiting = [];
  let underWay = 0;
  let results = [];

  const chosen = chooser("Drop a picture of raised fingers here", add);
  const slider = threshold(showAll);
  const gallery = h("ul", { class: "gallery" });
  const said = h("p", { class: "away", role: "status" });
  const tools = h(
    "div",
    { class: "tools card", role: "group", "aria-label": "All results", hidden: true },
    slider.element,
    h(
      "div",
      { class: "actions" },
      h("button", { onclick: () => save(csv(table(results, slider.value)), "fingers.csv") }, "Save table (CSV)"),
      h("button", { onclick: saveAll }, "Save pictures"),
      h("button", { onclick: clear }, "Clear"),
    ),
  );
  const hero = h("h2", { class: "hero" }, "How many fingers?");
  root.append(hero, chosen.element, said, tools, gallery, privacy());
  return () => {
    chosen.unmount();
    leaving.abort();
  };

  function add(files) {
    const added = files.map((file) => ({ file, card: h("li", { class: "result card" }), answer: null }));
    results.push(...added);
    gallery.append(...added.map((result) => result.card));
    arrange();
    added.forEach(ask);
    added[0].card.scrollIntoView({ block: "nearest" });
  }

  function ask(result) {
    result.card.replaceChildren(heading(result), h("p", { class: "muted pending" }, "Counting…"));
    waiting.push(result);
    next();
  }

  async function next() {
    if (underWay >= AT_ONCE || !waiting.length) return;
    underWay += 1;
    const result = waiting.shift();
    const path = `predict?render=blurred&confidence=${LOWEST}`;
    try {
      refuseOthers(result.file);
      result.answer = await api.post(path, result.file, {}, { signal: leaving.signal });
      result.release = await releaseOf(api, result.answer.model);
      slider.released(result.release.thresholds.confidence);
      fill(result);
      say(result);
    } catch (problem) {
      result.answer = null;
      if (problem.name !== "AbortError") fail(result, problem);
    } finally {
      underWay -= 1;
      arrange();
      next();
    }
  }

  function fail(result, problem) {
    result.card.replaceChildren(heading(result), trouble(problem, () => ask(result)));
  }

  function fill(result) {
    const { answer, release, file } = result;
    result.figure = figure(file.name, answer, release.counts);
    result.count = h("p", { class: "count number" });
    result.words = h("p", { class: "words" });
    result.hands = h("ul", { class: "hands" });
    const seen = [result.count, result.words, result.hands];
    const side = h("div", { class: "side" }, heading(result), seen, facts(answer), takeaways(result));
    result.card.replaceChildren(result.figure.element, side);
    show(result);
  }

  function show(result) {
    const { counts } = result.release;
    const hands = result.figure.show(slider.value);
    const fingers = fingersOf(hands, counts);
    const unknown = unknownOf(hands, counts);
    result.count.textContent = fingers;
    result.words.textContent =
      (fingers === 1 ? "raised finger" : "raised fingers") +
      (unknown ? `, and ${plural(unknown, "hand")} that could not be told` : "") +
      (hands.length ? "" : ": no hand seen");
    result.hands.replaceChildren(...hands.map(handRow));
  }

  function showAll() {
    for (const result of results) if (result.figure && result.answer) show(result);
  }

  function say(result) {
    const hands = handsAbove(result.answer, slider.value);
    said.textContent = `${result.file.name}: ${inWords(hands, result.release.counts)}`;
  }

  function arrange() {
    tools.hidden = !results.some((result) => result.answer);
    gallery.classList.toggle("several", results.length > 1);
    root.classList.toggle("busy", results.length > 0);
    hero.classList.toggle("away", results.length > 0);
  }

  function clear() {
    results = [];
    waiting.length = 0;
    gallery.replaceChildren();
    arrange();
    chosen.element.querySelector("button").focus();
  }

  async function saveAll() {
    for (const result of results) if (result.answer) await savePicture(result);
  }
}

function heading(result) {
  return h("h3", {}, result.file.name);
}

function handRow(hand) {
  const swatch = h("span", { class: "swatch", style: { background: colour(hand) }, "aria-hidden": "true" });
  const confidence = h("span", { class: "number muted" }, percent(hand.confidence));
  return h("li", {}, swatch, h("span", {}, hand.class_name), confidence);
}

function facts(answer) {
  const [total, decode, faces, detect] = ["total", "decode", "faces", "detect"].map((part) =>
    milliseconds(answer.timing_ms[part]),
  );
  const faced = answer.faces_blurred;
  const found = faced ? `${plural(faced, "face")} found and hidden` : "No face found to hide";
  const hidden = answer.preprocessing_applied ? found : "Faces were NOT hidden: this server was told not to";
  return [
    h("p", { class: answer.preprocessing_applied ? "muted" : "bad" }, hidden),
    h("p", { class: "muted number" }, `${total} in all: reading ${decode}, faces ${faces}, hands ${detect}`),
  ];
}

function takeaways(result) {
  const { blurred, ...answer } = result.answer;
  const text = JSON.stringify(answer, null, 2);
  const shown = h("pre", { tabindex: 0, "aria-label": "The answer as JSON" }, text);
  const told = h("span", { class: "muted", role: "status" });
  async function take() {
    const done = await copy(text);
    if (!done) getSelection().selectAllChildren(shown);
    told.textContent = done ? "Copied" : "Selected: press Ctrl+C";
  }
  const copier = h("div", { class: "actions" }, h("button", { onclick: take }, "Copy"), told);
  return [
    h("div", { class: "actions" }, h("button", { onclick: () => savePicture(result) }, "Save picture")),
    h("details", {}, h("summary", {}, "JSON"), copier, shown),
  ];
}

async function savePicture(result) {
  save(await result.figure.save(), `${result.file.name.replace(/\.\w+$/, "")}-counted.jpg`);
}

/** A row for each hand; one for a picture without any. */
function table(results, confidence) {
  const header = ["picture", "finger_count", "class_name", "confidence", "x1", "y1", "x2", "y2", "model", "sha256"];
  const rows = results
    .filter((result) => result.answer)
    .flatMap(({ file, answer, release }) => {
      const hands = handsAbove(answer, confidence);
      const first = [file.name, fingersOf(hands, release.counts)];
      const last = [answer.model.version, answer.model.sha256];
      if (!hands.length) return [[...first, "", "", "", "", "", "", ...last]];
      return hands.map((hand) => [...first, hand.class_name, hand.confidence, ...hand.bbox, ...last]);
    });
  return [header, ...rows];
}

function privacy() {
  return h(
    "p",
    { class: "muted privacy" },
    "The pictures you give leave this browser for this server only. It hides faces first, counts, answers, and keeps ",
    "nothing: neither picture nor answer. What you see here is what it looked at.",
  );
}
