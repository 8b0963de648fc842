// A video's answer: a line per frame, drawn on the video at the frame's time.

import { lines } from "./api.js";
import { make } from "./dom.js";
import * as found from "./found.js";
import * as stage from "./stage.js";

const LISTED = 200; // lines on the page
const KEPT = 50_000; // frames whose drawing is kept, for who plays the video afterwards

export class Film {
  constructor(task) {
    this.task = task;
    this.count = 0;
    this.frames = [];
    this.last = null;
    this.summary = null;
    this.fault = null;
    this.list = make("ol");
    this.element = make("div", { class: "lines", tabindex: "0", role: "region", "aria-label": "Frames, the newest first" }, this.list);
    const player = stage.player();
    player?.addEventListener("timeupdate", () => this.draw(this.at(player.currentTime)));
  }

  // Read `response` to its end; `progress` is called for each frame with their number so far.
  // Throws AbortError where the visitor stopped it.
  async read(response, progress) {
    for await (const line of lines(response)) {
      if (line.summary !== undefined) {
        this.summary = line.summary;
      } else if (line.frame === undefined) {
        this.fault = line.error;
      } else {
        this.add(line);
        progress(this.count);
      }
    }
    if (this.last !== null && !(stage.player()?.paused === false)) {
      this.seek(this.last); // the lines may have been faster than the video
    }
  }

  add(line) {
    const text = line.error === undefined ? found.line(this.task, line, this.last) : `${line.error.title}: ${line.error.detail}`;
    const seek = make("button", { type: "button", class: "plain" }, `${line.frame.time_s.toFixed(2)} s`);
    seek.addEventListener("click", () => this.seek(line));
    this.list.prepend(make("li", {}, seek, ` frame ${line.frame.index} · `, make("bdi", {}, text)));
    if (this.list.children.length > LISTED) {
      this.list.lastChild.remove();
    }
    this.count += 1;
    if (this.frames.length < KEPT) {
      this.frames.push(drawing(line));
    }
    if (line.error === undefined) {
      this.last = line;
    }
    const player = stage.player();
    if (player === null || (player.paused && !player.seeking)) {
      this.seek(line);
    }
  }

  seek(line) {
    const player = stage.player();
    if (player !== null) {
      player.pause();
      player.currentTime = line.frame.time_s + 0.001; // the frame itself, not the end of the one before
    }
    this.draw(line);
  }

  // The last frame that was sampled at or before `time`.
  at(time) {
    let [low, high] = [0, this.frames.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      [low, high] = this.frames[middle].frame.time_s <= time + 0.002 ? [middle + 1, high] : [low, middle];
    }
    return this.frames[low - 1] ?? null;
  }

  draw(line) {
    if (line?.detections !== undefined) {
      stage.boxes(line.detections, line.image);
    } else if (line?.error === undefined && line?.image !== undefined) {
      stage.captions(found.line(this.task, line, null).split(", "), line.image);
    }
  }
}

// The parts of a line that are drawn; provenance would take most of the memory.
const drawing = ({ frame, error, image, detections, places, depth, flow }) => ({ frame, error, image, detections, places, depth, flow });
