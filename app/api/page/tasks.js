// THE table of tasks: the route of each, the files it takes, its options, and the form in which a picture is answered.
// An option at its default isn't sent: `default` is the API's own.

const FPS = { name: "fps", label: "Frames per second (videos)", kind: "number", min: 0.0001, max: 1000, value: "5", video: true };
const BRANCH = { name: "branch", label: "Branch", kind: "branch" };
const VARIANT = { name: "variant", label: "Variant", kind: "variant" };
const FALLBACK = { name: "fallback", label: "Allow a smaller branch where one isn't ready", kind: "flag" };
const FIT = { name: "fit", label: "Fit", kind: "choice", choices: ["crop", "stretch"] };

export const TASKS = [
  {
    id: "detect", title: "Objects", family: "detect", path: "v1/detect", takes: "frame",
    about: "Boxes with classes and scores. In a video, each object keeps its track number.",
    options: [
      { name: "conf", label: "Least score", kind: "number", min: 0, max: 1, default: "0.25" },
      { name: "iou", label: "Overlap that counts as one object", kind: "number", min: 0, max: 1, default: "0.7" },
      { name: "max_det", label: "Most boxes", kind: "number", min: 1, max: 3000, step: 1, default: "300" },
      { name: "classes", label: "Classes, separated by commas", kind: "text" },
      VARIANT, BRANCH, FALLBACK, FPS,
    ],
  },
  {
    id: "depth", title: "Depth", family: "depth", path: "v1/depth", takes: "frame", picture: { render: "color" },
    about: "Relative depth: bright is near. It has no unit.",
    options: [VARIANT, BRANCH, FALLBACK, FPS],
  },
  {
    id: "flow", title: "Motion", family: "flow", path: "v1/flow", takes: "pair", picture: {},
    about: "Optical flow between two pictures, or between the frames of a video. The hue is the direction, a strong colour is fast.",
    options: [VARIANT, BRANCH, FALLBACK, FPS],
  },
  {
    id: "places", title: "Scene", family: "places", path: "v1/places", takes: "frame",
    about: "The most probable of 365 kinds of places.",
    options: [
      { name: "k", label: "Number of places", kind: "number", min: 1, max: 365, step: 1, default: "5" },
      FIT, VARIANT, BRANCH, FALLBACK, FPS,
    ],
  },
  {
    id: "similarity", title: "Picture and prompts", family: "clip_image", path: "v1/clip/similarity", takes: "picture+prompts",
    about: "Which of your prompts fits the picture best (CLIP, zero-shot).",
    options: [FIT, VARIANT, BRANCH, FALLBACK],
  },
  {
    id: "text", title: "Prompts", family: "clip_text", path: "v1/clip/text", takes: "prompts",
    about: "An embedding per prompt, and how similar the prompts are to each other.",
    options: [
      VARIANT,
      { name: "tokens", label: "Prompts of more than 75 tokens", kind: "choice", choices: ["truncate", "strict"], default: "truncate" },
    ],
  },
  {
    id: "image", title: "Picture embedding", family: "clip_image", path: "v1/clip/image", takes: "frame",
    about: "CLIP's embedding of a picture; in a video, how much each frame resembles the one before.",
    options: [FIT, VARIANT, BRANCH, FALLBACK, FPS],
  },
];
