// A video -> answers about its newest frames, over a WebSocket that comes back by itself.
//
// Two frames are under way at a time: one that the server looks at and one that waits there, so that it never idles.
// That alone sets the rate. Where the way to the server and back takes long, frames become smaller.

import { Problem } from "./api.js";
import { h } from "./dom.js";
import { LOWEST } from "./hands.js";

const UNDER_WAY = 2;
const SIDES = [640, 480, 320]; // px of a frame's longer side
const QUALITY = 0.8;
const LATE = 150; // ms on the way, above which frames become smaller
const EARLY = 50; // ms, below which they may become larger again
const SETTLE = 2000; // ms between two changes of size; twice as long after each that had to be taken back
const MOST_SETTLE = 60_000;
const LOST = 15_000; // ms without an answer after which the connection counts as gone
const AWAY = [500, 1000, 2000, 4000, 8000]; // ms before the next try to reach the server
const PAUSE = 1000; // ms after an answer that was an error

/**
 * onanswer({answer, latency, side, dropped}): dropped is what the server left out before this frame.
 * onskip(): a frame came while two were under way. onstate("connecting" | "open" | "away").
 * onproblem(problem): of a frame, or of the connection.
 */
export function stream(api, video, { onanswer, onskip, onstate, onproblem }) {
  const canvas = h("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true }); // toBlob reads it, on the CPU
  const size = sizes();
  let socket = null;
  let sent = new Map(); // number of a frame: when it was sent
  let number = 0; // of the last frame sent on this connection
  let answered = 0; // number of the last frame answered or dropped
  let tries = 0;
  let encoding = false;
  let pausedUntil = 0;
  let timer = 0;
  let frame = 0;
  let stopped = false;

  connect();
  nextFrame();
  return { stop };

  function stop() {
    stopped = true;
    clearTimeout(timer);
    video.cancelVideoFrameCallback(frame);
    socket.close();
  }

  function connect() {
    onstate(tries ? "away" : "connecting");
    [sent, number, answered] = [new Map(), 0, 0];
    const opened = api.socket("ws/predict");
    socket = opened;
    let refusal = null;
    opened.onopen = () => {
      opened.send(JSON.stringify({ confidence: LOWEST, ...(api.key && { key: api.key }) }));
      onstate("open");
    };
    opened.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.frame) heard(message);
      else if (message.error) refusal = problemOf(message.error);
    };
    opened.onclose = () => closed(refusal);
  }

  async function closed(refusal) {
    if (stopped) return;
    if (refusal) onproblem(refusal);
    if (refusal?.code === "unauthorized" && !(await api.askForKey(refusal.message))) return;
    onstate("away");
    timer = setTimeout(connect, AWAY[Math.min(tries, AWAY.length - 1)]);
    tries += 1;
  }

  function heard(message) {
    tries = 0;
    answered += message.dropped + 1;
    const latency = performance.now() - sent.get(answered);
    for (const known of sent.keys()) if (known <= answered) sent.delete(known);
    if (message.error) {
      pausedUntil = performance.now() + PAUSE;
      onproblem(problemOf(message.error));
      return;
    }
    size.heard(latency - message.timing_ms.total);
    onanswer({ answer: message, latency, side: size.side, dropped: message.dropped });
  }

  function nextFrame() {
    if (!stopped) frame = video.requestVideoFrameCallback(offer);
  }

  function offer() {
    nextFrame();
    const now = performance.now();
    if (socket.readyState !== WebSocket.OPEN || now < pausedUntil) return;
    if (sent.size && now - Math.max(...sent.values()) > LOST) socket.close();
    else if (encoding || number - answered >= UNDER_WAY || socket.bufferedAmount) onskip();
    else send(now, socket);
  }

  function send(now, to) {
    const scale = Math.min(1, size.side / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    encoding = true;
    canvas.toBlob(
      (jpeg) => {
        encoding = false;
        if (to.readyState !== WebSocket.OPEN || to !== socket) return;
        number += 1;
        sent.set(number, now);
        to.send(jpeg);
      },
      "image/jpeg",
      QUALITY,
    );
  }
}

/** How large frames are: smaller while their way takes long, larger again when it has been short for a while. */
export function sizes(now = () => performance.now()) {
  let level = 0;
  let smooth = null; // ms
  let changed = now();
  let settle = SETTLE;

  return {
    get side() {
      return SIDES[level];
    },
    /** way: ms of a frame's latency that the server did not spend. */
    heard(way) {
      smooth = smooth === null ? way : smooth + (way - smooth) / 8;
      if (now() - changed < (smooth > LATE ? SETTLE : settle)) return;
      const step = smooth > LATE ? 1 : smooth < EARLY ? -1 : 0;
      const next = Math.min(SIDES.length - 1, Math.max(0, level + step));
      if (next === level) return;
      if (step > 0) settle = Math.min(2 * settle, MOST_SETTLE);
      [level, smooth, changed] = [next, null, now()];
    },
  };
}

function problemOf(error) {
  return new Problem(200, error.code, error.message, { requestId: error.request_id });
}
