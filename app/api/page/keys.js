// The API key: asked for when the gateway wants one, kept in this tab only, sent in a header of its own (a proxy may use
// `Authorization`).

import { byId } from "./dom.js";

const NAME = "gateway-key";
const dialog = byId("key-dialog");

export const stored = () => sessionStorage.getItem(NAME);

export const headers = () => (stored() === null ? {} : { "X-API-Key": stored() });

export function forget() {
  sessionStorage.removeItem(NAME);
  show();
}

export function show() {
  byId("forget").hidden = stored() === null;
}

let asking = null;

// Resolves to whether there is a key to try again with; several callers share one question.
export function request(problem) {
  asking ??= ask(problem).finally(() => { asking = null; });
  return asking;
}

function ask(problem) {
  byId("key-says").textContent = stored() === null
    ? "This gateway answers only with an API key."
    : `The gateway refused the key: ${problem.detail ?? problem.title}`;
  const input = byId("key");
  input.value = "";
  input.setCustomValidity("");
  dialog.showModal();
  return new Promise((resolve) => {
    const done = new AbortController();
    const end = (given) => {
      done.abort();
      dialog.close();
      show();
      resolve(given);
    };
    const on = (target, event, call) => target.addEventListener(event, call, { signal: done.signal });
    on(byId("key-form"), "submit", (event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(key)) {
        input.setCustomValidity("A key consists of printable ASCII characters without spaces.");
        input.reportValidity();
        return;
      }
      sessionStorage.setItem(NAME, key);
      end(true);
    });
    on(input, "input", () => input.setCustomValidity(""));
    on(byId("key-cancel"), "click", () => end(false));
    on(dialog, "cancel", (event) => { event.preventDefault(); end(false); });
  });
}
