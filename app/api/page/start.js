// The page: choose a task and files, run, stop, show.

import { ask, Refused, ROOT, timings } from "./api.js";
import { code } from "./code.js";
import { byId, make, word } from "./dom.js";
import * as files from "./files.js";
import * as found from "./found.js";
import * as keys from "./keys.js";
import { made } from "./made.js";
import * as options from "./options.js";
import * as stage from "./stage.js";
import { TASKS } from "./tasks.js";
import { Film } from "./videos.js";

let task = TASKS[0];
let families = new Map();
let running = null; // the AbortController of the request under way
let shown = { picture: true, size: null };
let classified = Promise.resolve(); // until it is known whether the file is a picture or a video
let runs = 0; // requests that are over
let latest = 0; // counts changes, so that an old answer doesn't overwrite a newer one

class Missing extends Error {} // something that the visitor hasn't given yet

const say = (text) => { byId("status").textContent = text; };

// --- the form ---

function tasks() {
  byId("tasks").append(...TASKS.map((one) => {
    const radio = make("input", { type: "radio", name: "task", value: one.id, id: `task-${one.id}`, checked: one === task });
    radio.addEventListener("change", () => choose(one));
    return make("div", { class: "task" }, radio, make("label", { for: radio.id }, one.title, make("small", { id: `ready-${one.id}` })));
  }));
}

function choose(one) {
  task = one;
  byId(`task-${one.id}`).checked = true;
  const { takes } = one;
  byId("about").textContent = one.about;
  byId("files").hidden = takes === "prompts";
  byId("field1").hidden = takes !== "pair";
  byId("field-prompts").hidden = !takes.endsWith("prompts");
  byId("label0").textContent = { pair: "First picture, or a video", "picture+prompts": "Picture" }[takes] ?? "Picture or video";
  options.show(one, families.get(one.family) ?? null);
  preview();
}

// Files from a drop, the clipboard or the example: two pictures are a pair.
function take([first, second]) {
  files.put(0, first);
  if (second !== undefined) {
    files.put(1, second);
    if (task.takes !== "pair") {
      choose(TASKS.find((one) => one.takes === "pair"));
      say("Two files are a pair: the task is now Motion.");
      return;
    }
  }
  preview();
}

async function preview() {
  const change = ++latest;
  const file = task.takes === "prompts" ? null : files.chosen(0);
  running?.abort();
  empty();
  stage.clear();
  byId("plan").textContent = "";
  shown = { picture: true, size: null };
  classified = file === null ? Promise.resolve() : classify(file, change);
  await classified;
  if (file === null || change !== latest) {
    return;
  }
  const size = await (shown.picture ? stage.picture(file) : stage.video(file));
  if (change === latest && size !== null) {
    shown.size = size;
    await plan();
  }
}

async function classify(file, change) {
  try {
    const picture = await files.isPicture(file);
    if (change === latest) {
      shown.picture = picture;
    }
  } catch {
    problem({ title: "The file can't be read", code: "unreadable_file", detail: "It was changed or removed after it was chosen." });
  }
}

// Tell which branch a file of this size would take, before it is sent.
async function plan() {
  if (shown.size === null) {
    return;
  }
  const change = latest;
  const { width, height } = shown.size;
  const query = new URLSearchParams({ width, height });
  for (const [name, value] of options.values()) {
    if (["variant", "fallback"].includes(name) && value !== "") {
      query.set(name, value);
    }
  }
  try {
    const answer = await (await ask(`v1/branches?${query}`)).json();
    const route = answer.families.find(({ name }) => name === task.family)?.route;
    if (change === latest && route !== undefined) {
      byId("plan").textContent = route.error === undefined
        ? `${width} × ${height} pixels take ${route.branch} (${route.why}).`
        : `${width} × ${height} pixels: ${route.error.detail}.`;
    }
  } catch (error) {
    if (!(error instanceof Refused)) {
      throw error;
    }
  }
}

// --- a request ---

function prompts() {
  return byId("prompts").value.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

// The request as `code` describes it, with the body that is sent.
function prepared() {
  const video = task.takes !== "prompts" && !shown.picture;
  const query = options.query(task, video);
  const request = { path: task.path, query, video };
  if (task.takes.endsWith("prompts") && prompts().length === 0) {
    throw new Missing("Write at least one prompt.");
  }
  if (task.takes === "prompts") {
    const json = { prompts: prompts() };
    return [{ ...request, json }, JSON.stringify(json), { "Content-Type": "application/json" }];
  }
  const first = files.chosen(0);
  if (first === null) {
    throw new Missing("Choose a file first.");
  }
  if (task.picture !== undefined && !video) {
    Object.entries(task.picture).forEach(([name, value]) => query.set(name, value));
    Object.assign(request, { accept: "image/png", save: `${task.id}.png` });
  }
  if (video || task.takes === "frame") {
    return [{ ...request, raw: first.name }, first, { "Content-Type": "application/octet-stream" }];
  }
  return prepareForm(request, first);
}

function prepareForm(request, first) {
  const second = files.chosen(1);
  if (task.takes === "pair" && second === null) {
    throw new Missing("Choose the second picture, too, or one video.");
  }
  const parts = task.takes === "pair"
    ? [["frame0", first], ["frame1", second]]
    : [["file", first], ...prompts().map((prompt) => ["prompt", prompt])];
  const body = new FormData();
  parts.forEach(([name, value]) => body.append(name, value));
  const form = parts.map(([name, value]) => [name, typeof value === "string" ? { text: value } : { file: value.name }]);
  return [{ ...request, form }, body, {}];
}

async function run() {
  if (running !== null) {
    return;
  }
  begin();
  try {
    await classified;
    const [request, body, headers] = prepared();
    empty();
    stage.clean();
    const began = performance.now();
    const response = await ask(`${request.path}?${request.query}`, {
      method: "POST", body, signal: running.signal,
      headers: { ...headers, ...(request.accept ? { Accept: request.accept } : {}) },
    });
    fill("code", ...code(request));
    await show(response, began);
  } catch (error) {
    failed(error);
  } finally {
    end();
  }
}

function begin() {
  running = new AbortController();
  byId("stop").disabled = false;
  if (document.activeElement === byId("run")) { // a disabled button would lose the keyboard's place
    byId("stop").focus();
  }
  byId("run").disabled = true;
  byId("result").setAttribute("aria-busy", "true");
  say("Running …");
}

function end() {
  const stopped = document.activeElement === byId("stop");
  running = null;
  byId("run").disabled = false;
  byId("stop").disabled = true;
  byId("result").removeAttribute("aria-busy");
  byId("result").dataset.runs = ++runs;
  if (stopped || document.activeElement === document.body) {
    byId("run").focus();
  }
}

async function show(response, began) {
  const kind = response.headers.get("Content-Type") ?? "";
  if (kind.startsWith("application/x-ndjson")) {
    await showFilm(response);
    return;
  }
  const isMap = kind.startsWith("image/");
  const body = isMap ? await response.blob() : await response.json();
  const total = performance.now() - began;
  const { says, below } = isMap ? found.showMap(task, body) : found.show(task, body, shown.size, prompts());
  fill("found", below);
  const provenance = isMap ? JSON.parse(response.headers.get("X-Provenance") ?? "{}") : body;
  fill("made", ...made(provenance, timings(response), total));
  byId("result").scrollIntoView({ block: "nearest" });
  const random = (provenance.models_used ?? []).some(({ weights }) => weights === "random");
  say(`${says}. ${total.toFixed(0)} ms.${random ? " Random weights: the answer means nothing." : ""}`);
}

async function showFilm(response) {
  const film = new Film(task);
  const count = make("p", { class: "count" });
  fill("found", count, film.element);
  byId("result").scrollIntoView({ block: "nearest" });
  let said = 0;
  const progress = (frames) => {
    count.textContent = `${frames} frame${frames === 1 ? "" : "s"} so far`;
    if (performance.now() - said > 3000) { // a reader that speaks each line would never end
      said = performance.now();
      say(`Running: ${count.textContent}.`);
    }
  };
  try {
    await film.read(response, progress);
  } catch (error) {
    if (error.name !== "AbortError") {
      throw new Refused({ title: "The answer broke off", code: "broken_answer", detail: "The connection ended before the last line." }, 0);
    }
    count.textContent = `Stopped by you after ${film.count} frames`;
    say(`${count.textContent}.`);
    return;
  } finally {
    showEnd(film);
  }
  count.textContent = `${film.summary?.frames ?? film.count} frames, ${film.summary?.errors ?? 0} with an error`;
  say(film.fault === null ? `Done: ${count.textContent}.` : `Ended early: ${film.fault.title}.`);
}

function showEnd(film) {
  if (film.fault !== null) {
    problem(film.fault);
  }
  if (film.summary !== null) {
    fill("made", ...made({ ...film.last, ...film.summary }, film.summary.stage_timings_ms, null));
  } else if (film.last !== null) {
    fill("made", ...made(film.last, film.last.timings_ms, null));
  }
}

// --- refusals ---

function failed(error) {
  if (error.name === "AbortError") {
    say("Stopped by you.");
  } else if (error instanceof Missing) {
    say(error.message);
  } else if (error instanceof Refused) {
    problem(error.problem);
    say("");
  } else {
    problem({ title: "The page failed", code: "page_error", detail: String(error.message ?? error) });
    say("");
    throw error;
  }
}

function problem({ title, status, code: name, detail, what_to_do: advice, retry, request_id: id }) {
  const facts = [name, status, id && `request ${id}`].filter(Boolean).join(" · ");
  fill("problem", make("div", { class: "problem" },
    make("h3", {}, title), make("p", {}, detail ?? ""), advice ? make("p", {}, advice) : null,
    retry ? make("p", {}, `Try again in ${retry} s.`) : null, make("p", { class: "note" }, word(facts))));
}

const fill = (id, ...parts) => byId(id).replaceChildren(...parts.filter(Boolean));

function empty() {
  ["problem", "found", "made", "code"].forEach((id) => byId(id).replaceChildren());
}

// --- the gateway's state ---

async function look() {
  try {
    const answer = await (await ask("v1/branches")).json();
    families = new Map(answer.families.map((family) => [family.name, family]));
  } catch (error) {
    if (error instanceof Refused) {
      problem(error.problem);
      return;
    }
    throw error;
  }
  TASKS.forEach((one) => {
    const ready = (families.get(one.family)?.branches ?? []).some(({ readiness }) => readiness === "ready");
    byId(`ready-${one.id}`).textContent = ready ? "" : " not ready";
  });
  options.show(task, families.get(task.family) ?? null);
}

async function example() {
  const response = await ask("page/example.jpg");
  take([new File([await response.blob()], "astronaut.jpg", { type: "image/jpeg" })]);
}

tasks();
choose(task);
keys.show();
files.listen(take, preview);
byId("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
byId("stop").addEventListener("click", () => running?.abort());
byId("forget").addEventListener("click", () => { keys.forget(); say("The key is forgotten."); });
byId("example").addEventListener("click", () => example().catch(failed));
byId("options").addEventListener("change", plan);
fetch(new URL("page/example.jpg", ROOT), { method: "HEAD" }).then(({ ok }) => { byId("example").hidden = !ok; }, () => {});
look();
