// The chats of this browser: what was asked, what is being answered. No drawing here.

import { ask, model, Refused } from "./api.js";
import { drop, part } from "./items.js";
import * as kept from "./kept.js";

const SETTINGS = { max_tokens: 256, temperature: "" };

/** One for the whole page; calls `changed` after every change of what it holds. */
export class Session {
  constructor(changed) {
    this.changed = changed;
    this.card = null;
    this.chats = [];
    this.chat = newChat();
    this.settings = { ...SETTINGS };
    this.problem = "";
    this.needsKey = false;
    this.asking = null;
  }

  /** Most items of each kind in a request. */
  get takes() {
    return this.card?.items ?? {};
  }

  async open() {
    this.chats = await kept.all();
    await this.meet();
  }

  /** Learn which model is served. */
  async meet() {
    try {
      this.card = await model();
      this.needsKey = false;
      this.problem = "";
    } catch (error) {
      this.failed(error);
    }
    this.changed();
  }

  failed(error) {
    this.needsKey = error.status === 401;
    this.problem = this.needsKey ? "" : error.message;
  }

  show(chat) {
    this.chat = chat;
    this.changed();
  }

  begin() {
    this.show(newChat());
  }

  async forget(chat) {
    await kept.forget(chat); // first: what is not to be seen any more is gone
    for (const turn of chat.turns) turn.items.forEach(drop);
    this.chats = this.chats.filter((one) => one !== chat);
    if (this.chat === chat) this.chat = newChat();
    this.changed();
  }

  stop() {
    this.asking?.abort();
  }

  /** Ask in the chat that is shown. One question at a time. */
  async submit(text, items) {
    if (this.asking) return;
    const chat = this.chat;
    const turn = { text, items, answer: newAnswer() };
    chat.turns.push(turn);
    chat.title ||= text || items.map((one) => one.name).join(", ");
    if (!this.chats.includes(chat)) this.chats.unshift(chat);
    this.asking = new AbortController();
    this.changed();
    try {
      await this.follow(chat, turn.answer);
    } catch (error) {
      broken(turn.answer, error);
      if (error.status === 401) this.failed(error);
    }
    this.asking = null;
    this.changed();
    await kept.keep(chat);
  }

  async follow(chat, answer) {
    const began = performance.now();
    const body = {
      model: this.card?.id ?? "auto",
      messages: await messages(chat),
      max_tokens: Number(this.settings.max_tokens),
    };
    if (this.settings.temperature !== "") body.temperature = Number(this.settings.temperature);
    for await (const chunk of ask(body, this.asking.signal)) {
      answer.first_ms ??= performance.now() - began;
      take(answer, chunk);
      this.changed();
    }
    answer.state = "done";
  }
}

function newChat() {
  return { id: crypto.randomUUID?.() ?? String(Math.random()), at: Date.now(), title: "", turns: [] };
}

function newAnswer() {
  return { state: "asked", text: "", reasoning: "", error: "", usage: null, reason: "" };
}

function take(answer, chunk) {
  answer.state = "writing";
  answer.request = chunk.id;
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices[0];
  if (!choice) return;
  answer.text += choice.delta.content ?? "";
  answer.reasoning += choice.delta.reasoning_content ?? "";
  answer.reason = choice.finish_reason ?? answer.reason;
}

function broken(answer, error) {
  const stopped = error.name === "AbortError";
  answer.state = stopped ? "stopped" : "failed";
  answer.error = stopped ? "" : error.message;
  if (!stopped && !(error instanceof Refused)) console.error(error);
}

/** The chat as the server takes it; a question that was never answered is left out. */
async function messages(chat) {
  const last = chat.turns.at(-1);
  const found = [];
  for (const turn of chat.turns) {
    if (turn !== last && !turn.answer.text) continue;
    const parts = await Promise.all(turn.items.map(part));
    const text = turn.text ? [{ type: "text", text: turn.text }] : [];
    found.push({ role: "user", content: [...parts, ...text] });
    if (turn !== last) found.push({ role: "assistant", content: turn.answer.text });
  }
  return found;
}
