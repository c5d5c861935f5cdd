// Where a question is written, and where its items are dropped, pasted and chosen.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { drop, item, KINDS, objection } from "./items.js";

/** The form below the chat. `onSend(text, items)` takes what was asked. */
export function Composer({ session, onSend }) {
  const [text, setText] = useState("");
  const [items, setItems] = useState([]);
  const [said, setSaid] = useState("");
  const field = useRef(null);

  function add(files) {
    const wrong = objection(files, items, session.takes);
    setSaid(wrong);
    if (!wrong) setItems([...items, ...files.map(item)]);
    field.current?.focus();
  }

  function remove(one) {
    drop(one);
    setItems(items.filter((other) => other !== one));
    field.current?.focus();
  }

  function send(event) {
    event.preventDefault();
    if (session.asking || (!text.trim() && !items.length)) return;
    onSend(text.trim(), items);
    setText("");
    setItems([]);
    setSaid("");
  }

  function onKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  }

  const over = useFiles(add);
  return html`
    <form class="composer ${over ? "over" : ""}" onSubmit=${send} aria-label="Ask">
      ${over && html`<p class="drop">Drop it here</p>`}
      ${said && html`<p class="said" role="alert">${said}</p>`}
      <${Chosen} items=${items} onRemove=${remove} />
      <div class="line">
        <${Choose} takes=${session.takes} onFiles=${add} />
        <textarea
          ref=${field}
          rows="1"
          aria-label="Question"
          placeholder=${Object.keys(session.takes).length ? "Ask, or drop files" : "Ask"}
          value=${text}
          onInput=${(event) => setText(event.target.value)}
          onKeyDown=${onKey}
        ></textarea>
        ${session.asking
          ? html`<button type="button" class="stop" onClick=${() => session.stop()}>Stop</button>`
          : html`<button class="send" disabled=${!text.trim() && !items.length}>Ask</button>`}
      </div>
    </form>
  `;
}

function Choose({ takes, onFiles }) {
  const place = useRef(null);
  const kinds = Object.keys(takes);
  if (!kinds.length) return null;
  function chosen(event) {
    onFiles([...event.target.files]);
    event.target.value = "";
  }
  return html`
    <button type="button" class="choose" title="Add files" onClick=${() => place.current.click()}>
      <span aria-hidden="true">+</span><span class="hidden">Add files</span>
    </button>
    <input
      ref=${place}
      type="file"
      hidden
      multiple
      accept=${kinds.map((kind) => KINDS[kind].accept).join(",")}
      onChange=${chosen}
    />
  `;
}

function Chosen({ items, onRemove }) {
  if (!items.length) return null;
  return html`
    <ul class="items">
      ${items.map(
        (one) => html`
          <li key=${one.id}>
            <${Preview} item=${one} />
            <button type="button" class="remove" onClick=${() => onRemove(one)}>
              <span aria-hidden="true">×</span><span class="hidden">Remove ${one.name}</span>
            </button>
          </li>
        `,
      )}
    </ul>
  `;
}

/** An item as people see or hear it. */
export function Preview({ item: one }) {
  if (one.kind === "image") return html`<img src=${one.url} alt=${one.name} />`;
  if (one.kind === "video") {
    return html`<video src=${one.url} aria-label=${one.name} controls muted loop playsinline></video>`;
  }
  if (one.kind === "audio") return html`<audio src=${one.url} aria-label=${one.name} controls></audio>`;
  return html`<span class="file">${one.name}</span>`;
}

/** Files that are dropped or pasted anywhere on the page; whether some are over it now. */
function useFiles(onFiles) {
  const [over, setOver] = useState(false);
  const latest = useRef(onFiles);
  latest.current = onFiles;
  useEffect(() => {
    const carries = (event) => event.dataTransfer?.types.includes("Files");
    const listeners = {
      dragover: (event) => carries(event) && (event.preventDefault(), setOver(true)),
      dragleave: (event) => event.relatedTarget === null && setOver(false),
      drop: (event) => {
        setOver(false);
        if (!carries(event)) return;
        event.preventDefault();
        latest.current([...event.dataTransfer.files]);
      },
      paste: (event) => {
        const files = [...(event.clipboardData?.files ?? [])];
        if (!files.length) return;
        event.preventDefault();
        latest.current(files);
      },
    };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
    };
  }, []);
  return over;
}
