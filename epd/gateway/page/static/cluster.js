// The live view of the cluster: who is there, what each has to do, who comes and who goes.

import { html, useEffect, useReducer, useRef } from "./vendor/htm-preact-3.1.1.js";
import { cluster } from "./api.js";

const EVERY_MS = 1000;
const GONE_MS = 20000;
const SAMPLES = 60;
const MOST_NEWS = 6;

/** What was seen of the cluster so far. */
class Watch {
  constructor() {
    this.seen = null;
    this.problem = "";
    this.workers = new Map();
    this.news = [];
  }

  /** A new answer of the server. The workers of the first one are no news. */
  met(seen, now) {
    const first = this.seen === null;
    this.seen = seen;
    this.problem = "";
    const there = new Set(seen.workers.map((worker) => worker.name));
    for (const [name, known] of this.workers) {
      if (there.has(name) || known.gone) continue;
      known.gone = now;
      this.tell(`${name} left`, now);
    }
    for (const worker of seen.workers) this.meet(worker, now, first);
    for (const [name, known] of this.workers) {
      if (known.gone && now - known.gone > GONE_MS) this.workers.delete(name);
    }
  }

  meet(worker, now, first) {
    const known = this.workers.get(worker.name);
    const same = known && known.row.pid === worker.pid && known.row.host === worker.host;
    if (known && !same && !known.gone) this.tell(`${worker.name} left`, now);
    if (!first && (!same || known.gone)) this.tell(`${worker.name} joined`, now);
    if (same && known.row.state !== worker.state) this.tell(`${worker.name} drains`, now);
    const load = same ? [...known.load, busy(worker)].slice(-SAMPLES) : [busy(worker)];
    this.workers.set(worker.name, { row: worker, load, gone: 0 });
  }

  tell(what, now) {
    this.news = [{ what, at: new Date(now) }, ...this.news].slice(0, MOST_NEWS);
  }
}

function busy(worker) {
  return (worker.items ?? 0) + (worker.requests ?? 0);
}

/** Asks once a second, while the page is seen. `card` comes once the server lets this page in. */
export function Cluster({ card }) {
  const [, redraw] = useReducer((count) => count + 1, 0);
  const held = useRef(null);
  held.current ??= new Watch();
  useEffect(() => (card ? follow(held.current, redraw) : undefined), [card]);
  const { seen, problem, workers, news } = held.current;
  if (!seen) return html`<p class="note">${problem || "Looking for the cluster"}</p>`;
  return html`
    <p class="about">
      <b>${seen.gateway}</b> ${problem || (seen.ready ? "ready" : "not ready")}<br />
      ${count(seen.requests, "request")}, ${seen.waiting} of them waiting
    </p>
    ${stages(workers).map(
      ([stage, members]) => html`
        <h3>${stage}</h3>
        <ul class="workers">
          ${members.map((known) => html`<${Worker} key=${known.row.name} known=${known} />`)}
        </ul>
      `,
    )}
    <ul class="news" role="log" aria-label="Who came and went">
      ${news.map(({ what, at }) => html`<li><time>${at.toLocaleTimeString()}</time> ${what}</li>`)}
    </ul>
  `;
}

function follow(watch, redraw) {
  let timer = 0;
  let over = false;
  async function look() {
    if (!document.hidden) {
      try {
        watch.met(await cluster(), Date.now());
      } catch (error) {
        watch.problem = error.message;
      }
      if (!over) redraw();
    }
    if (!over) timer = setTimeout(look, EVERY_MS);
  }
  look();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}

/** [stage, workers] in the order of a request's way. */
function stages(workers) {
  const order = ["encode", "prefill", "decode"];
  const found = new Map();
  for (const known of workers.values()) {
    const stage = known.row.stages.join(" + ");
    found.set(stage, [...(found.get(stage) ?? []), known]);
  }
  for (const members of found.values()) {
    members.sort((one, other) => one.row.name.localeCompare(other.row.name, "en", { numeric: true }));
  }
  const place = ([stage]) => order.indexOf(stage.split(" ")[0]);
  return [...found].sort((one, other) => place(one) - place(other));
}

function Worker({ known: { row, load, gone } }) {
  const state = gone ? "gone" : row.state;
  return html`
    <li class="worker ${state}">
      <div class="head">
        <i class="dot" aria-hidden="true"></i><b>${row.name}</b>
        <span class="state">${gone ? "left" : row.state === "serving" ? age(row.age_s) : row.state}</span>
      </div>
      ${!gone &&
      html`
        <${Load} load=${load} />
        <p>${facts(row).join(" · ")}</p>
        ${"kv_used" in row &&
        html`<${Fill} label="KV" parts=${[["used", row.kv_used], ["cached", row.kv_cached]]} />`}
        ${row.cache_most_bytes > 0 &&
        html`<${Fill} label="cache" parts=${[["full", row.cache_bytes / row.cache_most_bytes]]} />`}
      `}
    </li>
  `;
}

function facts(row) {
  const said = [];
  if ("items" in row) {
    said.push(count(row.items, "item"), `${row.queued_items} queued`);
    const asked = row.cache_hits + row.cache_misses;
    if (asked) said.push(`${Math.round((100 * row.cache_hits) / asked)}% hits`);
  }
  if ("requests" in row) said.push(count(row.requests, "request"));
  return said;
}

/** The last minute, as a line. */
function Load({ load }) {
  const most = Math.max(4, ...load);
  const points = load.map((num, index) => `${index},${(15 - (14 * num) / most).toFixed(1)}`).join(" ");
  return html`
    <svg class="load" viewBox="0 0 ${SAMPLES - 1} 16" preserveAspectRatio="none" aria-hidden="true">
      <polyline points=${points} />
    </svg>
  `;
}

function Fill({ label, parts }) {
  const words = parts.map(([name, share]) => `${percent(share)} ${name}`).join(", ");
  return html`
    <div class="fill">
      <span>${label}</span>
      <span class="bar" role="img" aria-label=${words} title=${words}>
        ${parts.map(([name, share]) => html`<i class=${name} style=${{ width: `${100 * share}%` }}></i>`)}
      </span>
      <span class="words">${words}</span>
    </div>
  `;
}

function percent(share) {
  return share > 0 && share < 0.01 ? "<1%" : `${Math.round(100 * share)}%`;
}

function count(num, word) {
  return `${num} ${word}${num === 1 ? "" : "s"}`;
}

function age(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
