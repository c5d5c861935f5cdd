// What a model writes, as HTML. Nothing of it runs, loads anything or leaves this page.

import { Marked } from "./vendor/marked-18.2.1.js";
import "./vendor/purify-3.4.18.js";
import { html, useLayoutEffect, useRef } from "./vendor/htm-preact-3.1.1.js";

const { DOMPurify } = globalThis;
const RULES = {
  USE_PROFILES: { html: true },
  FORBID_TAGS: ["img", "picture", "video", "audio", "source", "style", "form", "input", "button"],
  FORBID_ATTR: ["style", "id", "name", "class"],
  RETURN_TRUSTED_TYPE: true,
};

// HTML that a model writes is shown as it stands.
const escape = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
const marked = new Marked({ gfm: true, breaks: true, renderer: { html: ({ text }) => escape(text) } });

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

/** Markdown, drawn again with every piece that comes. */
export function Text({ text }) {
  const place = useRef(null);
  useLayoutEffect(() => {
    place.current.innerHTML = DOMPurify.sanitize(marked.parse(text), RULES);
  }, [text]);
  return html`<div class="text" ref=${place}></div>`;
}
