// The items of a question: files that were dropped, pasted, chosen or taken from the samples.

export const KINDS = {
  image: { word: "picture", accept: "image/*" },
  video: { word: "video", accept: "video/*" },
  audio: { word: "sound", accept: "audio/*" },
  time_series: { word: "time series", accept: ".npy,.csv" },
};

let counter = 0;

/** What a file is to the server, or null. */
export function kindOf(file) {
  const kind = file.type.split("/")[0];
  if (kind in KINDS) return kind;
  return /\.(npy|csv)$/i.test(file.name) ? "time_series" : null;
}

/** An item of this file; `url` shows it from memory until drop() is called. */
export function item(file) {
  return restored({ kind: kindOf(file), name: file.name || "pasted", file });
}

/** The same of one that was kept. */
export function restored({ kind, name, file }) {
  return { id: ++counter, kind, name, file, url: URL.createObjectURL(file) };
}

export function drop(one) {
  URL.revokeObjectURL(one.url);
}

/** Why these files cannot be added to those items, or "". `takes`: most of each kind. */
export function objection(files, items, takes) {
  const counts = {};
  for (const one of items) counts[one.kind] = (counts[one.kind] ?? 0) + 1;
  for (const file of files) {
    const kind = kindOf(file);
    if (kind === null) return `${file.name} is no picture, video or sound`;
    if (!(kind in takes)) return `this model takes no ${KINDS[kind].word}`;
    counts[kind] = (counts[kind] ?? 0) + 1;
    if (counts[kind] > takes[kind]) {
      return `a question may have ${takes[kind]} of the kind ${KINDS[kind].word} at most`;
    }
  }
  return "";
}

/** The part of a message that carries an item. */
export async function part(one) {
  const type = `${one.kind}_url`;
  return { type, [type]: { url: await dataUrl(one.file) } };
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
