// Series of points -> lines over an axis, which a pointer, the arrow keys or a screen reader can read out.

import { h, svg } from "./dom.js";
import { clock, inner, moments, short, ticks } from "./scale.js";

const A_DIGIT = 7; // px that a character beside the lines takes, about
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 24;

/**
 * series of show: [{ name, points: [[x, y or null], …] by rising x, colour: 0…6, dashed }]; y null is a gap.
 * band of show: {low, middle, high}, a range to compare with, shaded.
 * time: x is ms since 1970, else whole steps called xName. zero: the axis begins at 0. top: it reaches at least so far.
 * headline: the newest value stands large above the lines, in place of a legend.
 */
export function chart(options) {
  const { title, note = "", height = 170, time = false, xName = "epoch", format = short, headline = false } = options;
  const legend = h("ul", { class: "legend" });
  const newest = h("p", { class: "newest number" });
  const plot = h("div", { class: "plot", tabindex: "0", role: "slider", "aria-label": title, "aria-valuenow": "0" });
  const readout = h("div", { class: "readout number", hidden: true });
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, as a table` });
  const details = h("details", {}, h("summary", {}, "Table"), table);
  const empty = h("p", { class: "empty muted" }, options.empty ?? "Nothing yet.");
  const element = h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("h3", {}, title), note && h("p", { class: "muted" }, note)),
    headline ? newest : legend,
    h("div", { class: "stage" }, plot, readout, empty),
    details,
  );
  let drawn = { series: [], band: null };
  let view = null; // how x and y become px, while there is something to see
  let at = null; // the x that is read out

  const resized = new ResizeObserver(draw);
  resized.observe(plot);
  details.addEventListener("toggle", tabulate);
  plot.addEventListener("pointermove", (event) => point(view?.nearest(event.clientX - plot.getBoundingClientRect().left)));
  plot.addEventListener("pointerleave", () => point(document.activeElement === plot ? at : null));
  plot.addEventListener("focus", () => point(at ?? view?.xs.at(-1)));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("keydown", step);

  function show(series, band = null) {
    drawn = { series, band };
    draw();
    tabulate();
  }

  function draw() {
    const width = plot.clientWidth;
    const xs = [...new Set(drawn.series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
    const ys = drawn.series.flatMap(({ points }) => points.map(([, y]) => y)).filter((y) => y !== null);
    const isEmpty = ys.length === 0 || width === 0;
    empty.hidden = ys.length > 0;
    plot.hidden = ys.length === 0;
    details.hidden = ys.length === 0;
    name(xs);
    if (isEmpty) {
      view = null;
      point(null);
      return;
    }
    const scale = ticks(...extent(ys, drawn.band, options), Math.max(2, Math.round(height / 50)));
    const [low, high] = [scale[0], scale.at(-1)];
    const [first, last] = [xs[0], xs.at(-1)];
    const left = 12 + A_DIGIT * Math.max(...scale.map((y) => format(y).length));
    const across = (x) => left + (last === first ? 0.5 : (x - first) / (last - first)) * (width - left - RIGHT);
    const down = (y) => TOP + (1 - (y - low) / (high - low)) * (height - TOP - BOTTOM);
    view = { xs, across, down, width, nearest: (px) => nearest(xs, across, px) };
    const most = Math.max(2, Math.floor(width / (time ? 110 : 70)));
    const below = time ? moments(first, last, most) : first === last ? [first] : inner(first, last, most, true);
    plot.replaceChildren(
      svg(
        "svg",
        { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
        drawn.band && shading(drawn.band, down, left, width - RIGHT),
        scale.map((y) => [
          svg("line", { class: "grid", x1: left, x2: width - RIGHT, y1: down(y), y2: down(y) }),
          svg("text", { class: "y", x: left - 8, y: down(y) + 4 }, format(y)),
        ]),
        below.map((x) => svg("text", { class: "x", x: across(x), y: height - 5 }, label(x, below))),
        drawn.series.map((one) => line(one, across, down)),
        svg("g", { class: "cursor" }),
      ),
    );
    point(at);
  }

  function name(xs) {
    const values = drawn.series.map(({ name, points }) => ({ name, value: points.findLast(([, y]) => y !== null)?.[1] ?? null }));
    const said = values.map((each) => `${each.name} ${format(each.value)}`).join(", ");
    newest.textContent = format(values[0]?.value ?? null);
    legend.replaceChildren(
      ...drawn.series.map((one, n) =>
        h("li", {}, swatch(one), h("span", {}, one.name), h("span", { class: "number muted" }, format(values[n].value))),
      ),
    );
    plot.setAttribute("aria-valuemin", xs[0] ?? 0);
    plot.setAttribute("aria-valuemax", xs.at(-1) ?? 0);
    if (at === null) {
      plot.setAttribute("aria-valuenow", xs.at(-1) ?? 0);
      plot.setAttribute("aria-valuetext", said);
    }
  }

  /** Reads out the values at x; null: nothing. */
  function point(x) {
    at = x === undefined || view === null ? null : x;
    readout.hidden = at === null;
    const cursor = plot.querySelector(".cursor");
    if (at === null || !cursor) {
      cursor?.replaceChildren();
      return;
    }
    const here = drawn.series
      .map((one) => ({ ...one, y: one.points.find(([x]) => x === at)?.[1] ?? null }))
      .filter(({ y }) => y !== null);
    const px = view.across(at);
    cursor.replaceChildren(
      svg("line", { x1: px, x2: px, y1: TOP, y2: height - BOTTOM }),
      ...here.map((one) => svg("circle", { class: `hand-${one.colour}`, cx: px, cy: view.down(one.y), r: 4 })),
    );
    const when = time ? clock(at, true) : `${xName} ${at}`;
    readout.replaceChildren(
      h("strong", {}, when),
      ...here.map((one) => h("span", {}, swatch(one), one.name === title ? "" : `${one.name} `, h("b", {}, format(one.y)))),
    );
    readout.classList.toggle("left", px > view.width / 2);
    readout.style.setProperty("--at", `${px}px`);
    plot.setAttribute("aria-valuenow", at);
    plot.setAttribute("aria-valuetext", `${when}: ${here.map((one) => `${one.name} ${format(one.y)}`).join(", ") || "no value"}`);
  }

  function step(event) {
    if (view === null) return;
    const now = view.xs.indexOf(at ?? view.xs.at(-1));
    const last = view.xs.length - 1;
    const page = Math.max(1, Math.round(last / 10));
    const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, ArrowDown: now - 1, ArrowUp: now + 1 };
    const to = { ...moves, PageDown: now - page, PageUp: now + page, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    point(view.xs[Math.min(last, Math.max(0, to))]);
  }

  function tabulate() {
    if (!details.open) return;
    const { series } = drawn;
    const values = series.map(({ points }) => new Map(points));
    const xs = [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => b - a);
    const row = (x) =>
      h("tr", {}, h("th", { scope: "row" }, time ? clock(x, true) : x), values.map((one) => h("td", { class: "number" }, format(one.get(x) ?? null))));
    const heads = [time ? "time" : xName, ...series.map((one) => one.name)].map((text) => h("th", { scope: "col" }, text));
    table.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, xs.map(row))));
  }

  function label(x, all) {
    if (!time) return String(x);
    return clock(x, all.length > 1 && all[1] - all[0] < 60_000);
  }

  return { element, show, remove: () => resized.disconnect() };
}

function extent(ys, band, { zero = false, top = null }) {
  const all = [...ys, ...(band ? [band.low, band.high] : []), ...(zero ? [0] : []), ...(top === null ? [] : [top])];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  return low === high && !zero ? [low - Math.abs(low) / 10 - 1e-9, high + Math.abs(high) / 10 + 1e-9] : [low, high];
}

function nearest(xs, across, px) {
  return xs.reduce((best, x) => (Math.abs(across(x) - px) < Math.abs(across(best) - px) ? x : best), xs[0]);
}

function line({ points, colour, dashed }, across, down) {
  const strokes = [];
  let open = false;
  for (const [x, y] of points) {
    if (y !== null) strokes.push(`${open ? "L" : "M"}${across(x).toFixed(1)} ${down(y).toFixed(1)}`);
    open = y !== null;
  }
  const alone = points.filter(([, y], n) => y !== null && (points[n - 1]?.[1] ?? null) === null && (points[n + 1]?.[1] ?? null) === null);
  return svg(
    "g",
    { class: `series hand-${colour}` },
    svg("path", { d: strokes.join(""), "stroke-dasharray": dashed ? "6 4" : null }),
    alone.map(([x, y]) => svg("circle", { cx: across(x), cy: down(y), r: 3 })),
  );
}

function shading({ low, middle, high }, down, left, right) {
  return svg(
    "g",
    { class: "band" },
    svg("rect", { x: left, width: right - left, y: down(high), height: Math.max(2, down(low) - down(high)) }),
    svg("line", { x1: left, x2: right, y1: down(middle), y2: down(middle) }),
  );
}

export function swatch({ colour, dashed }) {
  return svg(
    "svg",
    { class: `swatch hand-${colour}`, viewBox: "0 0 20 10", width: 20, height: 10, "aria-hidden": "true" },
    svg("line", { x1: 2, x2: 18, y1: 5, y2: 5, "stroke-dasharray": dashed ? "6 4" : null }),
  );
}
