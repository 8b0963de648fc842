// The options of a task as form controls, and their values as query parameters.

import { byId, make } from "./dom.js";

const READY = "ready";
const kept = new Map(); // by name, so that a value outlives a change of the task

// `family`: the entry of GET /v1/branches, or null while it isn't known.
export function show(task, family) {
  const fields = task.options.map((option) => field(option, family)).filter((made) => made !== null);
  byId("options").replaceChildren(...fields);
  for (const control of controls()) {
    control.addEventListener("change", () => kept.set(control.name, read(control)));
    if (kept.has(control.name)) {
      put(control, kept.get(control.name));
    }
  }
}

const controls = () => [...byId("options").querySelectorAll("input, select")];

const read = (control) => (control.type === "checkbox" ? (control.checked ? "true" : "") : control.value.trim());

function put(control, value) {
  if (control.type === "checkbox") {
    control.checked = value === "true";
  } else if (control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value)) {
    control.value = value;
  }
}

export const values = () => new Map(controls().map((control) => [control.name, read(control)]));

// Options to send: those whose value is not the API's default, and those of videos only with a video.
export function query(task, video) {
  const found = values();
  const wanted = task.options.filter((option) => {
    const value = found.get(option.name) ?? "";
    return value !== "" && value !== (option.default ?? "") && (video || !option.video);
  });
  return new URLSearchParams(wanted.map((option) => [option.name, found.get(option.name)]));
}

function field(option, family) {
  const control = CONTROLS[option.kind](option, family);
  if (control === null) {
    return null;
  }
  control.name = option.name;
  control.id = `option-${option.name}`;
  const label = make("label", { for: control.id }, option.label);
  return make("div", { class: option.kind === "flag" ? "flag" : "field" }, ...(option.kind === "flag" ? [control, label] : [label, control]));
}

const CONTROLS = {
  number: ({ min, max, step, value, default: standard }) =>
    make("input", { type: "number", min, max, step: step ?? "any", value: value ?? standard, inputmode: "decimal" }),
  text: () => make("input", { type: "text", autocomplete: "off", spellcheck: "false" }),
  flag: () => make("input", { type: "checkbox" }),
  choice: ({ choices, default: standard }) =>
    select([...(standard === undefined ? [["", "the model's own"]] : []), ...choices.map((choice) => [choice, choice])]),
  branch: (_, family) => select([
    ["", "chosen by the picture's size"],
    ...(family?.branches ?? []).filter((branch) => branch.readiness === READY).map(({ name }) => [name, name]),
  ]),
  variant: (_, family) => {
    const ready = new Set((family?.branches ?? []).filter((branch) => branch.readiness === READY).map(({ variant }) => variant));
    const names = (family?.variants ?? []).filter((name) => ready.has(name));
    return names.length < 2 ? null : select([["", `the gateway's own (${family.default_variant})`], ...names.map((name) => [name, name])]);
  },
};

function select(choices) {
  return make("select", {}, choices.map(([value, text]) => make("option", { value }, text)));
}
