// The page: earlier chats, the chat that is shown, and the cluster. On a phone one of them at once.

import { html, render, useEffect, useReducer, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { useKey } from "./api.js";
import { Cluster } from "./cluster.js";
import { Composer } from "./composer.js";
import { item } from "./items.js";
import { Samples } from "./samples.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";
import { Thread } from "./thread.js";

const THEMES = ["auto", "light", "dark"];

function App() {
  const [, redraw] = useReducer((num) => num + 1, 0);
  const [panel, setPanel] = useState("");
  const held = useRef(null);
  held.current ??= new Session(redraw);
  const session = held.current;
  useEffect(() => void session.open(), []);
  useEffect(() => {
    const close = (event) => event.key === "Escape" && setPanel("");
    addEventListener("keydown", close);
    return () => removeEventListener("keydown", close);
  }, []);
  const choose = (work) => {
    work();
    setPanel("");
  };
  return html`
    <${Header} session=${session} panel=${panel} onPanel=${setPanel} />
    <div class="room ${panel}">
      <aside id="chats" aria-label="Chats">
        <button type="button" class="new" onClick=${() => choose(() => session.begin())}>New chat</button>
        <${Chats} session=${session} onShow=${(chat) => choose(() => session.show(chat))} />
        <${Settings} session=${session} />
      </aside>
      <${Chat} session=${session} />
      <aside id="cluster" aria-label="Cluster"><h2>Cluster</h2><${Cluster} card=${session.card} /></aside>
    </div>
    <${KeyDialog} session=${session} />
  `;
}

function Header({ session, panel, onPanel }) {
  const toggle = (name) => () => onPanel(panel === name ? "" : name);
  return html`
    <header>
      <button type="button" class="narrow" aria-expanded=${panel === "chats"} aria-controls="chats" onClick=${toggle("chats")}>
        Chats
      </button>
      <h1><img src="page/icon.svg" alt="" /> epd</h1>
      <p class="model">${session.card?.id ?? ""}</p>
      <${Theme} />
      <button type="button" class="narrow" aria-expanded=${panel === "cluster"} aria-controls="cluster" onClick=${toggle("cluster")}>
        Cluster
      </button>
    </header>
  `;
}

function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem("epd.theme") ?? THEMES[0]);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("epd.theme", theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`
    <button type="button" class="theme" aria-label="Colours: ${theme}. Change to ${next}" onClick=${() => setTheme(next)}>
      ${{ auto: "◐", light: "☀", dark: "☾" }[theme]}
    </button>
  `;
}

function Chats({ session, onShow }) {
  return html`
    <ul class="earlier">
      ${session.chats.map(
        (chat) => html`
          <li key=${chat.id}>
            <button type="button" aria-current=${chat === session.chat} onClick=${() => onShow(chat)}>
              ${chat.title}
            </button>
            <button type="button" class="remove" onClick=${() => session.forget(chat)}>
              <span aria-hidden="true">×</span><span class="hidden">Forget ${chat.title}</span>
            </button>
          </li>
        `,
      )}
    </ul>
  `;
}

function Chat({ session }) {
  const end = useRef(null);
  const turns = session.chat.turns;
  const length = turns.at(-1)?.answer.text.length;
  useEffect(() => end.current?.scrollIntoView({ block: "end" }), [session.chat, turns.length, length, session.asking]);
  function sample(text, files) {
    session.begin();
    session.submit(text, files.map(item));
  }
  return html`
    <main>
      <div class="scroll">
        ${session.problem &&
        html`<p class="error" role="alert">
          ${session.problem} <button type="button" onClick=${() => session.meet()}>Try again</button>
        </p>`}
        ${turns.length === 0 &&
        session.card &&
        html`<div class="welcome">
          <h2>Ask about ${things(session.takes)}</h2>
          <p>Drop files anywhere, paste them, or take one of these:</p>
          <${Samples} takes=${session.takes} onAsk=${sample} />
        </div>`}
        <${Thread} chat=${session.chat} />
        <div ref=${end}></div>
      </div>
      <${Composer} session=${session} onSend=${(text, items) => session.submit(text, items)} />
    </main>
  `;
}

function things(takes) {
  const words = { image: "pictures", video: "videos", audio: "sounds", time_series: "time series" };
  const taken = Object.keys(takes).map((kind) => words[kind]);
  if (!taken.length) return "anything";
  const last = taken.pop();
  return taken.length ? `${taken.join(", ")} and ${last}` : last;
}

function KeyDialog({ session }) {
  const place = useRef(null);
  useEffect(() => {
    if (session.needsKey && !place.current.open) place.current.showModal();
    if (!session.needsKey && place.current.open) place.current.close();
  }, [session.needsKey]);
  function enter(event) {
    event.preventDefault();
    useKey(new FormData(event.target).get("key").trim());
    session.meet();
  }
  return html`
    <dialog ref=${place} onCancel=${(event) => event.preventDefault()} aria-labelledby="key-title">
      <form onSubmit=${enter}>
        <h2 id="key-title">This server asks for a key</h2>
        <p>It is kept until this tab is closed.</p>
        <input type="password" name="key" required autocomplete="off" aria-label="Key" />
        <button>Go on</button>
      </form>
    </dialog>
  `;
}

render(html`<${App} />`, document.getElementById("app"));
