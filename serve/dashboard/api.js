// A path of the server -> its answer, or a Problem that says in words what went wrong and what to do about it.

const KEPT = "fingers-key"; // in sessionStorage, and only if the person wants it there

const REMEDIES = {
  unreachable: "Is it running? The page goes on by itself as soon as the server is back.",
  unauthorized: "Give a key that this server knows; whoever runs it hands them out.",
  forbidden: "This needs a key of the role admin.",
  too_large: "Send a smaller picture, or fewer at once.",
  unsupported_media_type: "Save the picture as JPEG, PNG or WebP, and choose it again.",
  unreadable_image: "Is the file whole? Open it in a picture program and save it again as JPEG, PNG or WebP.",
  rate_limited: "Wait a moment, then ask again.",
  unavailable: "Ask again in a few seconds.",
  timeout: "The server is busy; ask again, or send a smaller picture.",
  model_not_loaded: "Load this version in the view Models first.",
  internal: "Nothing was kept. If it happens again, give the request's id to whoever runs the server.",
};

export class Problem extends Error {
  /** status 0: there was no answer. code: as the API has it, or "unreachable". */
  constructor(status, code, message, { requestId = null, remedy = REMEDIES[code] ?? "" } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId, remedy });
  }
}

/** askForKey(why) -> {key, keep}, or null when the person would rather not. */
export function createApi(askForKey) {
  let key = sessionStorage.getItem(KEPT);
  let asking = null;

  async function ask(why) {
    asking ??= askForKey(why).finally(() => (asking = null));
    const given = await asking;
    if (!given) return false;
    key = given.key;
    if (given.keep) sessionStorage.setItem(KEPT, key);
    else sessionStorage.removeItem(KEPT);
    return true;
  }

  async function send(path, options) {
    for (;;) {
      const used = key;
      const response = await fetched(path, options, used);
      if (response.ok) return response;
      const problem = await problemOf(response);
      const another = problem.status === 401 && (key !== used || (await ask(used ? problem.message : "")));
      if (!another) throw problem;
    }
  }

  return {
    /** JSON. options: those of fetch, such as signal. */
    get: async (path, options = {}) => (await send(path, options)).json(),
    /** body: a Blob, or anything that becomes JSON. */
    async post(path, body, headers = {}, options = {}) {
      const isBlob = body instanceof Blob;
      const type = isBlob ? body.type : "application/json";
      const content = isBlob ? body : JSON.stringify(body);
      const given = { ...options, method: "POST", body: content, headers: { "Content-Type": type, ...headers } };
      return (await send(path, given)).json();
    },
    /** A WebSocket on a path, not open yet. It cannot carry the key: the first message does. */
    socket(path) {
      const url = new URL(path, document.baseURI);
      url.protocol = url.protocol.replace("http", "ws");
      return new WebSocket(url);
    },
    get key() {
      return key;
    },
    /** Resolves to whether one was given. */
    askForKey: ask,
  };
}

async function fetched(path, options, key) {
  const headers = { Accept: "application/json", ...options.headers, ...(key && { "X-API-Key": key }) };
  try {
    return await fetch(new URL(path, document.baseURI), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "the server does not answer");
  }
}

async function problemOf(response) {
  try {
    const { error } = await response.json();
    return new Problem(response.status, error.code, error.message, { requestId: error.request_id });
  } catch {
    return new Problem(response.status, "unavailable", `something before the server answered with ${response.status}`);
  }
}
