// Answers -> files for the person: a table as CSV, pictures, text on the clipboard.

import { h } from "./dom.js";

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the download has begun by then
}

/** rows: of strings and numbers, the first being the header. */
export function csv(rows) {
  return new Blob(["\ufeff", ...rows.map((row) => `${row.map(field).join(",")}\r\n`)], { type: "text/csv" });
}

/** Quoted as RFC 4180 has it. A text that a spreadsheet would take for a formula is marked as text. */
function field(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Resolves to whether it worked: browsers allow it over HTTPS and on this machine only. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
