// Two looks at /metrics as JSON -> what happened between them.

const LEFT_OUT = new Set(["/metrics", "/drift", "/health", "/ready", "/livez", "/", "/dashboard/{name}"]); // pages and probes
export const PARTS = ["queue", "decode", "faces", "detect"];

/** look: {at: ms, samples: what /metrics answers}. Shares and quantiles are null where nothing was counted. Memory in MB. */
export function between(before, after) {
  const seconds = Math.max((after.at - before.at) / 1000, 1e-3);
  const grown = (name, wanted) => grow(before.samples, after.samples, name, wanted);
  const asked = grown("requests_total", ({ route }) => !LEFT_OUT.has(route));
  const latency = buckets(grown("request_seconds_bucket", ({ route }) => route === "/predict"));
  const confidence = buckets(grown("confidence_bucket"));
  const hands = grown("hands_total");
  const pictures = total(grown("pictures_total"));
  const spent = grown("picture_seconds_sum");
  const looked = grown("picture_seconds_count");
  const seen = total(hands);
  return {
    requests: total(asked) / seconds,
    pictures: pictures / seconds,
    errors: total(grown("errors_total", ({ route }) => !LEFT_OUT.has(route))) / seconds,
    latency: [0.5, 0.95, 0.99].map((q) => inMs(quantile(latency, q))),
    parts: PARTS.map((part) => inMs(share(of(spent, "part", part), of(looked, "part", part)))),
    queue: total(now(after.samples, "queue_pictures")),
    clients: total(now(after.samples, "websockets")),
    dropped: total(grown("frames_dropped_total")) / seconds,
    hands: Object.fromEntries(hands.map(({ labels, value }) => [labels.class_name, (value / seconds) * 60])),
    unknown: share(total(grown("unknown_hands_total")), seen),
    confidence: [0.05, 0.5].map((q) => quantile(confidence, q)),
    faces: share(total(grown("pictures_with_faces_total")), pictures),
    cpu: Object.fromEntries(
      grown("process_cpu_seconds_total").map(({ labels, value }) => [labels.process, value / seconds]),
    ),
    memory: Object.fromEntries([
      ...now(after.samples, "process_memory_bytes").map(({ labels, value }) => [labels.process, value / 2 ** 20]),
      ...now(after.samples, "gpu_memory_bytes").map(({ labels, value }) => [`GPU ${labels.gpu}`, value / 2 ** 20]),
    ]),
    gpus: Object.fromEntries(now(after.samples, "gpu_busy").map(({ labels, value }) => [`GPU ${labels.gpu}`, value])),
  };
}

/** From Prometheus' buckets, [[upper edge, how many up to it], …], by linear interpolation as its histogram_quantile. */
export function quantile(cumulative, q) {
  const all = cumulative.at(-1)?.[1] ?? 0;
  if (all === 0) return null;
  const rank = q * all;
  const n = cumulative.findIndex(([, count]) => count >= rank);
  const [edge, count] = cumulative[n];
  const [below, before] = n === 0 ? [0, 0] : cumulative[n - 1];
  if (edge === Infinity) return below; // beyond the last edge nothing is known
  return count === before ? edge : below + ((edge - below) * (rank - before)) / (count - before);
}

function buckets(samples) {
  const sums = new Map();
  for (const { labels, value } of samples) {
    const edge = labels.le === "+Inf" ? Infinity : Number(labels.le);
    sums.set(edge, (sums.get(edge) ?? 0) + value);
  }
  return [...sums].sort(([a], [b]) => a - b);
}

/** What a counter gained by labels; one that is lower than before began anew with its process. */
function grow(before, after, name, wanted = () => true) {
  const earlier = new Map(now(before, name).map(({ labels, value }) => [JSON.stringify(labels), value]));
  return now(after, name)
    .filter(({ labels }) => wanted(labels))
    .map(({ labels, value }) => {
      const was = earlier.get(JSON.stringify(labels)) ?? 0;
      return { labels, value: value >= was ? value - was : value };
    });
}

function now(samples, name) {
  return samples[`fingers_${name}`] ?? [];
}

function of(samples, label, wanted) {
  return total(samples.filter(({ labels }) => labels[label] === wanted));
}

function total(samples) {
  return samples.reduce((sum, { value }) => sum + value, 0);
}

function share(part, whole) {
  return whole > 0 ? part / whole : null;
}

function inMs(seconds) {
  return seconds === null ? null : seconds * 1000;
}
