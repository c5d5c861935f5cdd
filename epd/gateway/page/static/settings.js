// How answers are to be made, for the questions that follow.

import { html } from "./vendor/htm-preact-3.1.1.js";

export function Settings({ session }) {
  const { settings } = session;
  function set(name) {
    return (event) => {
      if (event.target.validity.valid) settings[name] = event.target.value;
      session.changed();
    };
  }
  return html`
    <details class="settings">
      <summary>Settings</summary>
      <label>
        Longest answer, in tokens
        <input type="number" min="1" max="100000" required value=${settings.max_tokens} onChange=${set("max_tokens")} />
      </label>
      <label>
        Temperature
        <input type="number" min="0" max="2" step="0.1" placeholder="the model's" value=${settings.temperature} onChange=${set("temperature")} />
      </label>
    </details>
  `;
}
