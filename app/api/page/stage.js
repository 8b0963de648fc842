// The picture or video on which results are drawn.

import { byId, drawn, make } from "./dom.js";

const COLOURS = ["#b3261e", "#0b57d0", "#146c2e", "#8a2f9e", "#8f4700", "#00606f", "#4a4ac4", "#a0005f"]; // white text is readable on each
const LETTERS = 13; // px on the screen

let media = null;
let frame = null;
let layer = null;
let last = null;
let addresses = [];

export function clear() {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
  media = frame = layer = last = null;
  byId("stage").replaceChildren();
}

function address(blob) {
  addresses.push(URL.createObjectURL(blob));
  return addresses.at(-1);
}

function set(element, file, more = []) {
  media = element;
  layer = drawn("svg", { preserveAspectRatio: "none", class: "layer", "aria-hidden": "true" });
  frame = make("div", { class: "frame" }, element, layer);
  byId("stage").replaceChildren(make("figure", {}, frame, ...more, make("figcaption", {}, make("bdi", {}, file.name))));
  new ResizeObserver(() => last?.()).observe(frame);
}

// Remove what was drawn; the picture or video stays.
export function clean() {
  byId("stage").querySelectorAll(".map, .slider").forEach((element) => element.remove());
  layer?.replaceChildren();
  last = null;
}

// Show a picture; its size, or null where the browser can't show it.
export async function picture(file) {
  clear();
  const image = make("img", { alt: `Picture ${file.name}`, src: address(file) });
  set(image, file);
  try {
    await image.decode();
    return { width: image.naturalWidth, height: image.naturalHeight };
  } catch {
    image.hidden = true;
    return null;
  }
}

// Show a video; its size, or null where the browser can't play it.
export function video(file) {
  clear();
  const player = make("video", { muted: true, controls: true, playsinline: true, preload: "auto", "aria-label": `Video ${file.name}`, src: address(file) });
  player.muted = true;
  set(player, file);
  return new Promise((resolve) => {
    player.addEventListener("loadeddata", () => resolve({ width: player.videoWidth, height: player.videoHeight }), { once: true });
    player.addEventListener("error", () => { player.hidden = true; resolve(null); }, { once: true });
  });
}

// The video that is shown, or null: a picture, or one that the browser can't play.
export const player = () => (media?.tagName === "VIDEO" && !media.hidden ? media : null);

// Put `blob`, a map of the picture's size, over the picture; a slider lets the picture through.
export function map(blob, name) {
  const image = make("img", { alt: name, class: "map", src: address(blob) });
  const slider = make("input", { type: "range", min: "0", max: "100", value: "75", id: "strength" });
  const follow = () => { image.style.opacity = slider.value / 100; };
  slider.addEventListener("input", follow);
  follow();
  layer.before(image);
  frame.after(make("div", { class: "field slider" }, make("label", { for: "strength" }, `${name}, over the picture`), slider));
}

// Draw boxes in pixels of an image of `size`; what was drawn before goes away.
export function boxes(detections, size) {
  draw(size, (scale) => detections.flatMap((one) => box(one, size, scale)));
}

// Write lines of text onto the lower left corner.
export function captions(texts, size) {
  draw(size, (scale) => texts.map((text, row) =>
    label(text, 0, size.height - (texts.length - row) * 1.7 * LETTERS * scale, "#000c", size, scale)));
}

function draw(size, shapes) {
  if (layer === null) {
    return;
  }
  last = () => {
    layer.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    if (media.hidden) { // only the shapes can be shown
      frame.classList.add("bare");
      frame.style.aspectRatio = `${size.width} / ${size.height}`;
    }
    layer.replaceChildren(...shapes(size.width / Math.max(1, frame.clientWidth)));
    layer.querySelectorAll("g").forEach(fit);
  };
  last();
}

function box({ box: [x1, y1, x2, y2], score, class_id: id, class_name: name, track_id: track }, size, scale) {
  const colour = COLOURS[id % COLOURS.length];
  const text = `${name} ${score.toFixed(2)}${track === null || track === undefined ? "" : ` #${track}`}`;
  const high = 1.5 * LETTERS * scale;
  return [
    drawn("rect", { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), stroke: colour, class: "box" }),
    label(text, x1, y1 >= high ? y1 - high : y1, colour, size, scale),
  ];
}

function label(text, x, y, colour, size, scale) {
  const group = drawn("g", { class: "label", "data-width": size.width, "data-x": x, "data-y": y },
    drawn("rect", { height: 1.5 * LETTERS * scale, fill: colour }),
    drawn("text", { x: 0.35 * LETTERS * scale, y: 1.1 * LETTERS * scale, "font-size": LETTERS * scale }, text));
  group.dataset.pad = 0.35 * LETTERS * scale;
  return group;
}

// Make the background as wide as its text, and keep both inside the picture.
function fit(group) {
  const { width, x, y, pad } = group.dataset;
  const needed = group.lastChild.getComputedTextLength() + 2 * pad;
  group.firstChild.setAttribute("width", needed);
  group.setAttribute("transform", `translate(${Math.max(0, Math.min(Number(x), width - needed))} ${y})`);
}
