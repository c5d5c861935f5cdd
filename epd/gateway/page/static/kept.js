// Chats kept in this browser's own database, the newest few; without one they last as long as the
// page.

import { restored } from "./items.js";

const MOST = 30;
const STORE = "chats";

let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("epd", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function inStore(mode, work) {
  try {
    const store = (await database()).transaction(STORE, mode).objectStore(STORE);
    const request = work(store);
    return await new Promise((resolve, reject) => {
      request.transaction.oncomplete = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } catch (error) {
    console.warn("chats are not kept:", error);
    return undefined;
  }
}

/** Newest first. */
export async function all() {
  const found = ((await inStore("readonly", (store) => store.getAll())) ?? []).sort(
    (one, other) => other.at - one.at,
  );
  for (const chat of found.slice(MOST)) await forget(chat);
  return found.slice(0, MOST).map((chat) => ({
    ...chat,
    turns: chat.turns.map((turn) => ({ ...turn, items: turn.items.map(restored) })),
  }));
}

export async function keep(chat) {
  const turns = chat.turns.map((turn) => ({
    ...turn,
    items: turn.items.map(({ kind, name, file }) => ({ kind, name, file })),
  }));
  await inStore("readwrite", (store) => store.put({ ...chat, turns }));
}

export async function forget(chat) {
  await inStore("readwrite", (store) => store.delete(chat.id));
}
