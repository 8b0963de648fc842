// Requests to the gateway that served this page, under whatever path a proxy put it.

import * as keys from "./keys.js";

export const ROOT = new URL("../", import.meta.url);

// An answer that is no answer: `problem` is the gateway's own problem+json, or made in its form.
export class Refused extends Error {
  constructor(problem, status) {
    super(problem.title);
    this.problem = problem;
    this.status = status;
  }
}

// Fetch `path`; a 401 asks for a key and tries again. Throws Refused, or AbortError where `signal` stopped it.
export async function ask(path, { signal, headers = {}, ...how } = {}) {
  for (;;) {
    const response = await fetched(new URL(path, ROOT), { ...how, signal, headers: { ...headers, ...keys.headers() } });
    if (response.ok) {
      return response;
    }
    const problem = await problemOf(response);
    if (response.status !== 401 || !(await keys.request(problem))) {
      throw new Refused(problem, response.status);
    }
  }
}

async function fetched(url, how) {
  try {
    return await fetch(url, { ...how, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new Refused({
      title: "No answer",
      code: "no_answer",
      detail: "The connection to the gateway failed or was closed before an answer came.",
      what_to_do: "Is the gateway running? A file that is larger than it takes can end the connection, too.",
    }, 0);
  }
}

async function problemOf(response) {
  const retry = response.headers.get("Retry-After");
  const text = await response.text();
  let problem;
  try {
    problem = JSON.parse(text);
  } catch {
    problem = null;
  }
  if (typeof problem !== "object" || problem === null) { // a proxy's own page
    problem = { title: `HTTP ${response.status} ${response.statusText}`, detail: "Something before the gateway answered." };
  }
  return retry === null ? problem : { ...problem, retry };
}

// The JSON lines of an answer, as they arrive.
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const parts = (rest + (value ?? "")).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      yield JSON.parse(part);
    }
    if (done) {
      return;
    }
  }
}

// `decode;dur=1.2, queue;dur=0.1` as {decode: 1.2, queue: 0.1}.
export function timings(response) {
  const found = (response.headers.get("Server-Timing") ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g);
  return Object.fromEntries([...found].map(([, stage, ms]) => [stage, Number(ms)]));
}
