// A span of numbers -> the ticks of an axis, and how they are written.

const STEPS = [1, 2, 5, 10];
const CLOCK_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400]; // s

/** About `most` round numbers that hold from..to between the first and the last. */
export function ticks(from, to, most = 5) {
  const span = to - from || Math.abs(to) || 1;
  const rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * STEPS.find((each) => each * power >= rough * 0.999);
  const first = Math.floor(from / step + 1e-9);
  const last = Math.max(Math.ceil(to / step - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(12)));
}

/** Round numbers inside from..to, none beyond: for an axis that ends where its values end. */
export function inner(from, to, most = 5, whole = false) {
  return ticks(from, to, most).filter((tick) => tick >= from && tick <= to && (!whole || Number.isInteger(tick)));
}

/** Round moments inside from..to. All in ms since 1970, and round where the person is. */
export function moments(from, to, most = 5) {
  const rough = (to - from) / 1000 / most;
  const step = 1000 * (CLOCK_STEPS.find((each) => each >= rough) ?? CLOCK_STEPS.at(-1));
  const shift = new Date(from).getTimezoneOffset() * 60_000;
  const first = Math.ceil((from - shift) / step) * step + shift;
  return Array.from({ length: Math.max(0, Math.floor((to - first) / step) + 1) }, (_, n) => first + n * step);
}

/** 0.9512 -> "0.951", 1234567 -> "1.23 M": three digits that say something. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  for (const [factor, unit] of [[1e9, " G"], [1e6, " M"], [1e4, " k"]]) {
    if (size >= factor) return `${digits(value / (factor === 1e4 ? 1e3 : factor))}${unit}`;
  }
  return digits(value);
}

function digits(value) {
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size !== 0 && size < 1e-3) return value.toExponential(1).replace("e-", "e−");
  return String(Number(value.toPrecision(3)));
}

export function clock(at, seconds = false) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }), hourCycle: "h23" });
}
