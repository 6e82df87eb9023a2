// A camera, or a video file -> its frames with boxes, and a count that does not flicker.

import { Problem } from "./api.js";
import { h } from "./dom.js";
import { fingersOf, handsAbove, inWords, milliseconds } from "./hands.js";
import { overlay } from "./overlay.js";
import { releaseOf } from "./releases.js";
import { stream } from "./stream.js";
import { threshold } from "./threshold.js";
import { trouble } from "./trouble.js";

export const title = "Live";

const WANTED = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
const MEMORY = 700; // ms over which the count is smoothed
const RATE_OVER = 2000; // ms
const SPEAK_EVERY = 3000; // ms between two counts that a screen reader is told
const STATES = { connecting: "Connecting…", open: "", away: "The server is away; trying to reach it again…" };
const CAMERA_WORDS = {
  NotAllowedError: [
    "the browser may not use the camera",
    "Allow it by the camera sign beside the address, then start again.",
  ],
  NotFoundError: ["there is no camera", "Plug one in and start again, or choose a video file."],
  OverconstrainedError: ["that camera is gone", "Choose another one and start again."],
  NotSupportedError: ["the browser cannot play this file", "Choose a video it knows, such as MP4 or WebM."],
  NotReadableError: ["another program is using the camera", "Close it there, then start again."],
};

export function mount(root, { api }) {
  const video = h("video", { muted: true, playsinline: true, loop: true });
  video.muted = true; // the attribute alone does not count for an element made by a script
  const boxes = h("div", { class: "boxes" });
  const empty = h("p", { class: "muted empty" }, "The camera is off.");
  const stage = h("div", { class: "picture stage" }, video, boxes, empty);
  const count = h("p", { class: "count number" }, "–");
  const words = h("p", { class: "words" }, "raised fingers");
  const said = h("p", { class: "away", role: "status" });
  const state = h("p", { class: "muted state", role: "status" });
  const told = h("div", { class: "told" });
  const figures = numbers(["Frames a second", "Latency", "Dropped", "Frame size", "Model"]);
  const slider = threshold(draw);
  const devices = h("select", { id: "camera", onchange: () => source?.kind === "camera" && start(camera) });
  const mirror = h("input", { type: "checkbox", id: "mirror", checked: true, onchange: draw });
  const play = () => file.files.length && start(recording);
  const file = h("input", { type: "file", accept: "video/*", hidden: true, onchange: play });
  const chooser = h("button", { onclick: () => file.click() }, "Video file…");
  const starter = h("button", { class: "primary", onclick: () => start(camera) }, "Start the camera");
  const stopper = h("button", { onclick: () => stop("Stopped.") }, "Stop");

  let source = null; // {kind, open, end()}: what is being shown
  let running = null; // the stream
  let latest = null; // {answer, release}
  let recent = []; // {at, fingers}
  let times = [];
  let dropped = 0;
  let paused = null; // what opens again the source that ran when the page was hidden
  let spoken = 0;
  let beginning = 0; // of starts: one that was overtaken ends itself

  root.append(
    h(
      "div",
      { class: "live" },
      h("div", { class: "watch" }, stage, h("div", { class: "actions" }, starter, stopper, chooser, file, state)),
      h(
        "div",
        { class: "side" },
        h("h2", { class: "away" }, title),
        count,
        words,
        said,
        told,
        figures.element,
        slider.element,
        h("div", { class: "field" }, h("label", { for: "camera" }, "Camera"), devices),
        h("label", { class: "check" }, mirror, "As in a mirror"),
      ),
    ),
    h(
      "p",
      { class: "muted privacy" },
      "While it runs, frames leave this browser for this server only. It hides faces first, counts, and keeps ",
      "nothing. The video you see here does not come from it: it is your own camera or file.",
    ),
  );
  document.addEventListener("visibilitychange", hiddenOrBack);
  navigator.mediaDevices?.addEventListener("devicechange", listCameras);
  listCameras();
  arrange();
  return () => {
    document.removeEventListener("visibilitychange", hiddenOrBack);
    navigator.mediaDevices?.removeEventListener("devicechange", listCameras);
    stop("");
  };

  async function start(open) {
    stop("");
    paused = null;
    const mine = (beginning += 1);
    state.textContent = "Starting…";
    try {
      const opened = await open();
      if (mine !== beginning) return opened.end();
      source = opened;
      await video.play();
      if (mine !== beginning) return;
      follow();
    } catch (problem) {
      if (mine === beginning) {
        stop("");
        told.replaceChildren(trouble(cameraProblem(problem)));
      }
    }
    arrange();
  }

  async function camera() {
    if (!navigator.mediaDevices) {
      throw new Problem(0, "insecure", "a browser gives its camera only to pages over HTTPS, or of this machine");
    }
    const chosen = devices.value ? { deviceId: { exact: devices.value } } : {};
    const media = await navigator.mediaDevices.getUserMedia({ video: { ...WANTED, ...chosen }, audio: false });
    video.srcObject = media;
    listCameras(media.getVideoTracks()[0].getSettings().deviceId); // their names are known only now
    return {
      kind: "camera",
      open: camera,
      end() {
        for (const track of media.getTracks()) track.stop();
        video.srcObject = null;
      },
    };
  }

  async function recording() {
    const [chosen] = file.files;
    const url = URL.createObjectURL(chosen);
    video.src = url;
    return {
      kind: "file",
      open: recording,
      end() {
        video.removeAttribute("src");
        video.load();
        URL.revokeObjectURL(url);
      },
    };
  }

  function follow() {
    running = stream(api, video, {
      onanswer: answered,
      onskip: () => (dropped += 1),
      onstate(now) {
        state.textContent = STATES[now];
        if (now === "open") told.replaceChildren();
      },
      onproblem: (problem) => told.replaceChildren(trouble(problem)),
    });
  }

  function stop(why) {
    beginning += 1;
    running?.stop();
    source?.end();
    [running, source, latest, recent, times, dropped] = [null, null, null, [], [], 0];
    told.replaceChildren();
    boxes.replaceChildren();
    figures.tell([]);
    count.textContent = "–";
    state.textContent = why;
    arrange();
  }

  function hiddenOrBack() {
    if (document.hidden && source) {
      paused = source.open;
      stop("Paused while this page is hidden.");
    } else if (!document.hidden && paused) {
      start(paused);
    }
  }

  async function answered(heard) {
    const now = performance.now();
    times = [...times.filter((time) => now - time < RATE_OVER), now];
    dropped += heard.dropped;
    const { answer } = heard;
    try {
      const release = await releaseOf(api, answer.model);
      if (!running) return;
      latest = { answer, release };
      count.classList.remove("idle");
      slider.released(release.thresholds.confidence);
    } catch (problem) {
      told.replaceChildren(trouble(problem));
      return;
    }
    if (told.firstChild) told.replaceChildren();
    recent = [...recent.filter((one) => now - one.at < MEMORY), { at: now, answer }];
    const rate = (times.length / Math.min(RATE_OVER, Math.max(500, now - times[0]))) * 1000;
    const size = `${answer.image.width} × ${answer.image.height}`;
    figures.tell([rate.toFixed(1), milliseconds(heard.latency), dropped, size, answer.model.version]);
    draw();
  }

  function draw() {
    const mirrored = mirror.checked && source?.kind !== "file";
    video.classList.toggle("mirrored", mirrored);
    if (!latest) return;
    const { answer, release } = latest;
    const hands = handsAbove(answer, slider.value);
    boxes.replaceChildren(overlay(answer.image, hands, mirrored));
    const fingers = steady(recent.map((one) => fingersOf(handsAbove(one.answer, slider.value), release.counts)));
    count.textContent = fingers;
    words.textContent = fingers === 1 ? "raised finger" : "raised fingers";
    if (performance.now() - spoken > SPEAK_EVERY) {
      spoken = performance.now();
      said.textContent = inWords(hands, release.counts);
    }
  }

  async function listCameras(used) {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const cameras = all.filter((device) => device.kind === "videoinput");
    const kept = typeof used === "string" ? used : devices.value;
    const named = (device, number) => device.label || `Camera ${number + 1}`;
    devices.replaceChildren(...cameras.map((one, n) => h("option", { value: one.deviceId }, named(one, n))));
    if (!cameras.length) devices.append(h("option", { value: "" }, "none found"));
    if (cameras.some((device) => device.deviceId === kept)) devices.value = kept;
  }

  function arrange() {
    starter.hidden = source !== null;
    stopper.hidden = source === null;
    video.hidden = source === null;
    empty.hidden = source !== null;
    count.classList.toggle("idle", latest === null);
    stage.classList.toggle("off", source === null);
  }
}

/** The count most frames agree on; of equals, the newest. */
export function steady(counts) {
  const votes = new Map();
  for (const count of counts) votes.set(count, (votes.get(count) ?? 0) + 1);
  const most = Math.max(...votes.values());
  return counts.findLast((count) => votes.get(count) === most);
}

/** A list of names with values that change. */
function numbers(names) {
  const values = names.map(() => h("dd", { class: "number" }, "–"));
  const rows = names.map((name, n) => h("div", {}, h("dt", {}, name), values[n]));
  return {
    element: h("dl", { class: "numbers" }, rows),
    tell: (told) => values.forEach((value, n) => (value.textContent = told[n] ?? "–")),
  };
}

function cameraProblem(error) {
  if (error instanceof Problem || !(error instanceof DOMException)) return error;
  const known = CAMERA_WORDS[error.name];
  if (known) return new Problem(0, error.name, known[0], { remedy: known[1] });
  return new Problem(0, error.name, `the video cannot be shown: ${error.message}`);
}
