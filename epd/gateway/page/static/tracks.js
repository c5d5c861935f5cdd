// From the path of a request, as `usage.epd` tells it, to what the timeline draws. No drawing here.
//
// A track is a worker and what it did for one thing: {who, what, note, bars}. A bar is {kind, from,
// ms, text}, in milliseconds since the request's arrival.

const WORDS = {
  fetch: "fetch",
  decode: "read",
  preprocess: "preprocess",
  encode: "encode",
  transfer: "rows",
  wait: "wait for rows",
};
const SOURCES = { cache: "from the cache", shared: "shared with an equal item", kv: "KV was there" };

/** All tracks in the order of the stages. */
export function tracks(path) {
  return [gateway(path), ...path.items.map(item), ...prefill(path), ...decode(path)];
}

/** {whole, first, near}: the end of all, the first token, and where a close view ends. */
export function ends(path) {
  const first = path.ms.first_token ?? path.ms.total;
  const starts = path.decode?.began_ms.decode ?? first;
  return { whole: path.ms.total, first, near: Math.min(path.ms.total, 1.12 * Math.max(first, starts)) };
}

function gateway({ ms, items, attempts }) {
  const what = items.length ? "layouts" : "prompt";
  const laid = ms.layouts ?? ms.total;
  const bars = [{ kind: "layouts", from: 0, ms: laid, text: what }];
  if (ms.admitted > laid) {
    bars.push({ kind: "admission", from: laid, ms: ms.admitted - laid, text: "admission" });
  }
  return { who: "gateway", what: "places it", bars, note: attempts > 1 ? `${attempts} attempts` : "" };
}

function item(one) {
  const names = ["fetch", "decode", "preprocess", "encode"].filter((name) => name in one.ms);
  const bars = names.map((name) => bar(one, name, WORDS[name], name === "decode" ? "read" : name));
  if (one.attempts > 1) bars.forEach((each) => (each.again = true));
  const word = one.modality.replace("_", " ");
  return {
    who: one.encoder || "encode",
    what: `${word} ${one.index + 1}`,
    bars: [...inHand(one, bars), ...bars],
    note: [SOURCES[one.rows_from], one.attempts > 1 && `${one.attempts} attempts`]
      .filter(Boolean)
      .join(", "),
  };
}

/** From the job to its last activity: what no bar covers is waiting. */
function inHand(part, bars) {
  const from = part.began_ms.queue;
  if (from === undefined) return [];
  const end = Math.max(from + part.ms.queue, ...bars.map((one) => one.from + one.ms));
  return [{ kind: "queue", from, ms: end - from, text: "", took: part.ms.queue }];
}

function prefill({ items, prefill: part }) {
  if (!part) return [];
  const rows = items.filter((one) => "transfer" in one.ms);
  const found = [];
  if (rows.length) {
    const bars = rows.map((one) => bar(one, "transfer", `rows ${one.index + 1}`, "transfer"));
    found.push({ who: part.worker, what: "rows come", bars, note: "" });
  }
  const chunks = part.chunks.map((one) => ({
    kind: "prefill",
    from: one.began_ms,
    ms: one.ms,
    text: `prefill ${one.tokens}`,
  }));
  const waits = part.ms.wait > 0 ? [bar(part, "wait", WORDS.wait, "wait")] : [];
  const bars = [...inHand(part, chunks), ...waits, ...chunks];
  const note = part.cached_tokens ? `${part.cached_tokens} tokens cached` : "";
  return [...found, { who: part.worker, what: "prompt", bars, note }];
}

function decode({ decode: part, prefill: before }) {
  if (!part) return [];
  const found = [];
  const moves = [];
  if ("transfer" in part.ms) moves.push(bar(part, "transfer", "KV", "transfer"));
  if ("handoff" in part.ms) moves.push(bar(part, "handoff", "hand-off", "handoff"));
  if (moves.length) found.push({ who: part.worker, what: "KV comes", bars: moves, note: "" });
  if ("decode" in part.ms) {
    const bars = [bar(part, "decode", "decode", "decode")];
    const note = part.worker === before?.worker ? "where it was prefilled" : "";
    found.push({ who: part.worker, what: "tokens", bars, note });
  }
  return found;
}

function bar(part, name, text, kind) {
  return { kind, from: part.began_ms[name] ?? 0, ms: part.ms[name], text };
}
