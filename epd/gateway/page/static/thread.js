// The chat that is shown: questions with their items, answers, and how each answer came about.

import { html } from "./vendor/htm-preact-3.1.1.js";
import { Preview } from "./composer.js";
import { Text } from "./text.js";
import { Timeline } from "./timeline.js";

export function Thread({ chat }) {
  const last = chat.turns.length - 1;
  return html`
    <ol class="thread" role="log" aria-label="Chat">
      ${chat.turns.map(
        (turn, index) => html`
          <li key=${index}>
            <${Question} turn=${turn} />
            <${Answer} answer=${turn.answer} items=${turn.items} latest=${index === last} />
          </li>
        `,
      )}
    </ol>
  `;
}

function Question({ turn }) {
  return html`
    <div class="question">
      ${turn.items.length > 0 &&
      html`<ul class="items">
        ${turn.items.map((one) => html`<li key=${one.id}><${Preview} item=${one} /></li>`)}
      </ul>`}
      ${turn.text && html`<p>${turn.text}</p>`}
    </div>
  `;
}

function Answer({ answer, latest }) {
  return html`
    <article class="answer ${answer.state}" aria-busy=${answer.state === "asked"}>
      ${answer.state === "asked" && html`<p class="wait"><span>On its way</span></p>`}
      ${answer.reasoning &&
      html`<details class="reasoning" open=${!answer.text}>
        <summary>Reasoning</summary>
        <${Text} text=${answer.reasoning} />
      </details>`}
      ${answer.text && html`<${Text} text=${answer.text} />`}
      ${answer.error && html`<p class="error" role="alert">${answer.error}</p>`}
      <${Ending} answer=${answer} />
      ${answer.usage?.epd &&
      html`<${Timeline} path=${answer.usage.epd} usage=${answer.usage} open=${latest} />`}
    </article>
  `;
}

function Ending({ answer }) {
  if (answer.state === "stopped") return html`<p class="note">stopped</p>`;
  if (answer.reason === "length") return html`<p class="note">cut at its longest</p>`;
  return null;
}
