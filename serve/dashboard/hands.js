// An answer and a threshold -> the hands that count, and how many fingers they raise.

export const LOWEST = 0.05; // asked for once; what lies between it and the threshold is left out here

export function handsAbove(answer, confidence) {
  return answer.predictions.filter((hand) => hand.confidence >= confidence);
}

/** counts: of the release, by class; null for a class whose fingers cannot be told. */
export function fingersOf(hands, counts) {
  return hands.reduce((sum, hand) => sum + (counts[hand.class_id] ?? 0), 0);
}

export function unknownOf(hands, counts) {
  return hands.filter((hand) => counts[hand.class_id] === null).length;
}

/** "5 fingers, 2 hands, 1 of them unclear". */
export function inWords(hands, counts) {
  const unknown = unknownOf(hands, counts);
  const words = [plural(fingersOf(hands, counts), "finger"), plural(hands.length, "hand")];
  return [...words, ...(unknown ? [`${unknown} of them unclear`] : [])].join(", ");
}

export function plural(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

export function percent(share, digits = 0) {
  return share === null || share === undefined ? "–" : `${(share * 100).toFixed(digits)} %`;
}

export function milliseconds(value) {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}
