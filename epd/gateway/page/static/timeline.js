// The timeline of one request: a track for each worker and what it did, and the same as numbers.

import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { ends, tracks } from "./tracks.js";

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 3e5];

/** Percent of a track's width that a letter takes, about. */
const LETTER = { wide: 1.1, narrow: 2.3 };
const narrow = matchMedia("(max-width: 40rem)");

export function Timeline({ path, usage, open }) {
  const [whole, setWhole] = useState(false);
  if (path.ms.total === undefined) return null;
  const all = tracks(path);
  const until = ends(path);
  const end = whole ? until.whole : until.near;
  return html`
    <details class="timeline" open=${open}>
      <summary>${summary(path, usage)}</summary>
      <div class="view" role="group" aria-label="View">
        <button type="button" aria-pressed=${!whole} onClick=${() => setWhole(false)}>
          To the first token
        </button>
        <button type="button" aria-pressed=${whole} onClick=${() => setWhole(true)}>Whole answer</button>
      </div>
      <div class="tracks" role="img" aria-label="Timeline; the numbers follow below">
        <${Axis} end=${end} />
        ${all.map((track) => html`<${Track} track=${track} end=${end} first=${until.first} />`)}
      </div>
      <${Numbers} tracks=${all} />
    </details>
  `;
}

function summary(path, usage) {
  const seconds = (path.ms.total - path.ms.first_token) / 1000;
  const tokens = usage.completion_tokens;
  const rate = seconds > 0 && tokens > 1 ? `, ${((tokens - 1) / seconds).toFixed(0)} per second` : "";
  const said = [
    `first token after ${time(path.ms.first_token ?? path.ms.total)}`,
    `${tokens} token${tokens === 1 ? "" : "s"}${rate}`,
    `${usage.prompt_tokens} in the prompt`,
  ];
  if (path.retries) said.push(`${path.retries} tried again`);
  return said.join(" · ");
}

function Axis({ end }) {
  const step = STEPS.find((one) => end / one <= 6) ?? end;
  const ticks = [];
  for (let at = 0; at < end * 0.97; at += step) ticks.push(at);
  return html`
    <div class="axis">
      ${ticks.map((at) => html`<span style=${{ left: share(at, end) }}>${at ? time(at) : "0"}</span>`)}
    </div>
  `;
}

function Track({ track, end, first }) {
  return html`
    <div class="track">
      <div class="who"><b>${track.who}</b> <span>${track.what}</span></div>
      <div class="bars">
        ${track.bars
          .filter((bar) => bar.from < end)
          .map((bar) => html`<${Bar} bar=${bar} end=${end} />`)}
        <i class="first" style=${{ left: share(first, end) }}></i>
        ${track.note && html`<em style=${beside(track, end)}>${track.note}</em>`}
      </div>
    </div>
  `;
}

function Bar({ bar, end }) {
  const ms = Math.min(bar.ms, end - bar.from);
  const width = (100 * ms) / end;
  const cut = bar.ms > ms + 0.001;
  const place = { left: share(bar.from, end), width: `max(2px, ${width}%)` };
  const title = `${bar.text || bar.kind}: ${time(bar.took ?? bar.ms)}, from ${time(bar.from)}`;
  return html`
    <span class="bar ${bar.kind} ${cut ? "cut" : ""}" style=${place} title=${title}>
      ${width > bar.text.length * (narrow.matches ? LETTER.narrow : LETTER.wide) ? bar.text : ""}
    </span>
  `;
}

/** A note stands behind the last bar, or before the first where there is no room. */
function beside(track, end) {
  const last = Math.max(0, ...track.bars.map((bar) => Math.min(end, bar.from + bar.ms)));
  if (last / end < 0.72) return { left: `calc(${share(last, end)} + 6px)` };
  const from = Math.min(end, ...track.bars.map((bar) => bar.from));
  return { right: `calc(${100 - (100 * from) / end}% + 6px)` };
}

function Numbers({ tracks: all }) {
  return html`
    <details class="numbers">
      <summary>Numbers</summary>
      <div class="wide" tabindex="0">
        <table>
          <thead><tr><th>worker</th><th>what</th><th>activity</th><th>from</th><th>took</th></tr></thead>
          <tbody>
            ${all.flatMap((track) =>
              track.bars.map(
                (bar) => html`
                  <tr>
                    <td>${track.who}</td><td>${track.what}</td><td>${bar.text || bar.kind}</td>
                    <td>${time(bar.from)}</td><td>${time(bar.took ?? bar.ms)}</td>
                  </tr>
                `,
              ),
            )}
          </tbody>
        </table>
      </div>
    </details>
  `;
}

function share(at, end) {
  return `${(100 * Math.min(at, end)) / end}%`;
}

/** Milliseconds as people read them. */
export function time(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 1 : 2)} s`;
  return ms >= 100 ? `${ms.toFixed(0)} ms` : `${Number(ms.toPrecision(2))} ms`;
}
