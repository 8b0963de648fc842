// The making of an answer: stages, branch and reason, models with their weights, signature.

import { bar, make, table, word } from "./dom.js";

// `provenance`: fields of an answer, or of X-Provenance; `stages`: ms by name; `total`: ms that the browser waited.
export function made(provenance, stages, total) {
  return [
    warnings(provenance),
    make("h3", {}, "Time"),
    times(stages, total),
    make("h3", {}, "Branch"),
    ...branches(provenance).map(branch),
    make("h3", {}, "Models"),
    models(provenance.models_used ?? []),
    make("p", {}, "Signature ", word(provenance.model_signature ?? "none")),
  ];
}

function warnings({ warnings: said = [], degraded }) {
  const all = degraded ? ["A smaller branch than the rule's served this (degraded).", ...said] : said;
  return all.length === 0 ? null : make("ul", { class: "warnings", "aria-label": "Warnings" }, all.map((text) => make("li", {}, text)));
}

function times(stages, total) {
  const rows = Object.entries(stages);
  const longest = Math.max(1e-9, ...rows.map(([, ms]) => ms));
  return table("Time of each stage", ["stage", "ms"], [
    ...rows.map(([stage, ms]) => [stage, bar(ms / longest, ms.toFixed(1))]),
    ...(total === null ? [] : [["from the click to the answer", total.toFixed(1)]]),
  ]);
}

const branches = ({ branch: one, branches: several }) => several ?? (one === undefined ? [] : [one]);

function branch({ name, tier, size, variant, why, passed_over: passed = [] }) {
  const facts = [tier, size && `${size} px`, variant && `variant ${variant}`].filter(Boolean).join(", ");
  return make("div", {},
    make("p", {}, make("strong", {}, word(name)), facts && ` (${facts})`),
    make("p", { class: "note" }, why),
    passed.length === 0 ? null : make("ul", { class: "note" }, passed.map((other) => make("li", {}, `not ${other.branch}: ${other.reason}`))));
}

function models(used) {
  return table("Models and their weights", ["model", "weights", "runs on", "digest"], used.map((model) => [
    make("span", {}, word(model.model_name), ` version ${model.model_version}`),
    make("span", { class: model.weights === "random" ? "badge warn" : "badge" }, model.weights),
    [model.runtime, model.engine, model.precision, model.device].filter(Boolean).join(", "),
    word(model.weights_digest ?? "unknown"),
  ]));
}
