// A loaded version -> its release: the classes' numbers, thresholds, scores and lineage.

const known = new Map();

/** model: {version, sha256} as an answer names it. Asked once a version; a Problem is not remembered. */
export function releaseOf(api, model) {
  const id = `${model.version} ${model.sha256}`;
  if (!known.has(id)) {
    const asked = api.get(`models/${encodeURIComponent(model.version)}`);
    known.set(id, asked);
    asked.catch(() => known.delete(id));
  }
  return known.get(id);
}
