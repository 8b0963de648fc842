// The content of an answer, by task: what is drawn on the stage, what stands below it, and one line that sums it up.

import { bar, make, table } from "./dom.js";
import * as stage from "./stage.js";

const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));
const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

function detect({ detections, image }) {
  stage.boxes(detections, image);
  return {
    says: plural(detections.length, "object"),
    below: detections.length === 0 ? null : table("Objects", ["class", "score", "box (x1, y1, x2, y2)", "track"], detections.map((one) => [
      make("bdi", {}, one.class_name), bar(one.score, one.score.toFixed(2)), one.box.map((edge) => edge.toFixed(0)).join(", "), String(one.track_id ?? "–"),
    ])),
  };
}

const statistics = (name, values) => ({
  says: Object.entries(values).filter(([key]) => !/max|min/.test(key)).slice(0, 3).map(([key, value]) => `${key.replaceAll("_", " ")} ${number(value)}`).join(", "),
  below: table(name, ["statistic", "value"], Object.entries(values).map(([key, value]) => [key.replaceAll("_", " "), number(value)])),
});

const depth = (body) => statistics("Depth", body.depth);

const flow = (body) => statistics("Motion in pixels", body.flow);

function places({ places: best, image }) {
  stage.captions(best.slice(0, 3).map((one) => `${one.category} ${one.probability.toFixed(2)}`), image);
  return {
    says: best.length === 0 ? "no place" : `${best[0].category} ${best[0].probability.toFixed(2)}`,
    below: table("Places", ["place", "probability"], best.map((one) => [make("bdi", {}, one.category), bar(one.probability, one.probability.toFixed(3))])),
  };
}

function similarity({ prompts, cosine: [cosine], softmax: [softmax], truncated }, size) {
  const order = prompts.map((_, place) => place).sort((a, b) => softmax[b] - softmax[a]);
  if (size !== null) {
    stage.captions(order.slice(0, 3).map((place) => `${prompts[place]} ${softmax[place].toFixed(2)}`), size);
  }
  return {
    says: `“${prompts[order[0]]}” fits best, ${softmax[order[0]].toFixed(2)}`,
    below: table("Prompts", ["prompt", "softmax", "cosine"], order.map((place) => [
      make("bdi", {}, prompts[place], truncated[place] ? " (cut)" : ""), bar(softmax[place], softmax[place].toFixed(3)), cosine[place].toFixed(3),
    ])),
  };
}

const dot = (one, other) => one.reduce((sum, value, place) => sum + value * other[place], 0);

function text({ embeddings, dimension, truncated, model_calls: calls }, _, prompts) {
  return {
    says: `${plural(embeddings.length, "embedding")} of ${dimension} numbers, ${plural(calls, "call")} of the model`,
    below: table("Cosine between the prompts", ["prompt", ...prompts.map((_, place) => String(place + 1))], embeddings.map((one, row) => [
      make("bdi", {}, `${row + 1}. ${prompts[row]}`, truncated[row] ? " (cut)" : ""), ...embeddings.map((other) => dot(one, other).toFixed(2)),
    ])),
  };
}

function image({ embedding, dimension }) {
  return {
    says: `an embedding of ${dimension} numbers`,
    below: make("p", { class: "note" }, "It begins with ", make("code", {}, embedding.slice(0, 8).map((value) => value.toFixed(4)).join(", ")), "."),
  };
}

const BY_TASK = { detect, depth, flow, places, similarity, text, image };

// Show a JSON answer. `size`: of the picture; `prompts`: as they were sent.
export const show = (task, body, size, prompts) => BY_TASK[task.id](body, size, prompts);

// Show an answer that is a picture.
export function showMap(task, blob) {
  stage.map(blob, task.title);
  return { says: `${task.title.toLowerCase()} drawn`, below: null };
}

// One line of text about a frame of a video; `before`: the line of the frame before.
export const line = (task, body, before) => LINES[task.id](body, before);

const LINES = {
  detect: ({ detections }) => detections.map((one) => `${one.class_name} ${one.score.toFixed(2)}${one.track_id === null ? "" : ` #${one.track_id}`}`).join(", ") || "nothing",
  depth: ({ depth: values }) => statistics("", values).says,
  flow: ({ flow: values }) => statistics("", values).says,
  places: ({ places: best }) => best.slice(0, 3).map((one) => `${one.category} ${one.probability.toFixed(2)}`).join(", "),
  image: ({ embedding }, before) => (before?.embedding ? `cosine with the frame before ${dot(embedding, before.embedding).toFixed(3)}` : "first frame"),
};
