// What the page knows of the server: its public HTTP, and nothing else.

const KEY = "epd.key";

/** An answer that is none; `status` is HTTP's, 0 where nobody answered. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Keep the key for as long as this tab is open. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function send(path, init = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...init.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...init, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the server does not answer");
  }
  if (response.ok) return response;
  throw new Refused(response.status, await reasonOf(response));
}

async function reasonOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

/** The card of the model that is served: its name, its context, the items that it takes. */
export async function model() {
  return (await (await send("v1/models")).json()).data[0];
}

/** The workers, and what each has to do. */
export async function cluster() {
  return (await send("cluster")).json();
}

/** The chunks of a streamed answer; the last one has the usage with the path of the request. */
export async function* ask(body, signal) {
  const response = await send("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, return_path: true }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refused(chunk.error.code ?? 500, chunk.error.message);
    yield chunk;
  }
  throw new Refused(0, "the answer broke off");
}

/** The data of server-sent events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}
