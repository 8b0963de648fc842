// The files that a visitor chose, dropped or pasted.

import { byId } from "./dom.js";

const inputs = [byId("file0"), byId("file1")];

export const chosen = (place) => inputs[place].files[0] ?? null;

export function put(place, file) {
  const list = new DataTransfer();
  list.items.add(file);
  inputs[place].files = list.files;
}

export function clear(place) {
  inputs[place].value = "";
}

// Pictures are told from videos as the gateway does it: by their first bytes, not by their names.
export async function isPicture(file) {
  const head = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const text = String.fromCharCode(...head);
  return text.startsWith("\xff\xd8\xff") || text.startsWith("\x89PNG") || text.startsWith("BM")
    || (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") || text.startsWith("GIF8");
}

// Call `take` with the files that are dropped or pasted anywhere on the page, `changed` when an input changes.
export function listen(take, changed) {
  inputs.forEach((input) => input.addEventListener("change", changed));
  const has = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (on) => document.body.classList.toggle("dropping", on);
  window.addEventListener("dragover", (event) => {
    if (has(event)) {
      event.preventDefault();
      mark(true);
    }
  });
  window.addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
  window.addEventListener("drop", (event) => {
    mark(false);
    if (has(event)) {
      event.preventDefault();
      take([...event.dataTransfer.files]);
    }
  });
  window.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length > 0) {
      event.preventDefault();
      take(files);
    }
  });
}
