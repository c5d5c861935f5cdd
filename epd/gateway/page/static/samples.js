// Questions that one click asks, of those that the served model can be asked.

import { html, useEffect, useState } from "./vendor/htm-preact-3.1.1.js";

const WHERE = "page/samples/";

/** `onAsk(text, files)` is called with the files themselves. */
export function Samples({ takes, onAsk }) {
  const [all, setAll] = useState([]);
  useEffect(() => {
    fetch("page/samples.json")
      .then(async (response) => setAll(await response.json()))
      .catch((error) => console.warn("no samples:", error)); // as where the page is left meanwhile
  }, []);
  const fit = all.filter(({ takes: needs }) =>
    Object.entries(needs).every(([kind, num]) => (takes[kind] ?? 0) >= num),
  );
  return html`
    <ul class="samples" aria-label="Samples">
      ${fit.map(
        (sample) => html`
          <li key=${sample.label}>
            <button type="button" onClick=${async () => onAsk(sample.question, await files(sample))}>
              <span class="shown" aria-hidden="true">${sample.files.map(shown)}</span>
              <b>${sample.label}</b>
              <span>${sample.question}</span>
            </button>
          </li>
        `,
      )}
    </ul>
  `;
}

function shown(name) {
  if (name.endsWith(".png")) return html`<img src=${WHERE + name} alt="" />`;
  if (name.endsWith(".mp4")) return html`<video src=${WHERE + name} muted autoplay loop playsinline />`;
  return html`<span class="sound">♪</span>`;
}

function files(sample) {
  return Promise.all(
    sample.files.map(async (name) => {
      const blob = await (await fetch(WHERE + name)).blob();
      return new File([blob], name, { type: blob.type });
    }),
  );
}
