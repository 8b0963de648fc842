// The request that was sent, as a line for a shell and as a program in Python.

import { ROOT } from "./api.js";
import { make } from "./dom.js";
import { stored } from "./keys.js";

// A request: {path, query, raw: name} or {path, query, form: [[field, {file: name} | {text}]]} or {path, query, json},
// with `accept` and `save` where the answer is a picture, `video` where it is lines.
export function code(request) {
  return [
    make("h3", {}, "The same request"),
    block("curl", curl(request)),
    block("Python", python(request)),
  ];
}

function block(name, text) {
  const shown = make("pre", { tabindex: "0", role: "region", "aria-label": `The request for ${name}` }, make("code", {}, text));
  const said = make("span", { role: "status" });
  const copy = make("button", { type: "button" }, `Copy as ${name}`);
  copy.addEventListener("click", async () => { said.textContent = (await copied(text, shown)) ? " copied" : " selected: copy it with your keyboard"; });
  return make("div", { class: "snippet" }, shown, copy, said);
}

// `navigator.clipboard` is there for HTTPS and localhost only.
async function copied(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(shown);
    return false;
  }
}

const address = ({ path, query }) => {
  const url = new URL(path, ROOT);
  url.search = query.toString();
  return url.href;
};

const here = (name) => (name === "-" ? "./-" : name); // curl's name for its input

export function shell(text) {
  if (/^[\w%+=:,./@-]+$/.test(text)) {
    return text;
  }
  if (/[\x00-\x1f\x7f]/.test(text)) {
    const escape = (found) => `\\x${found.charCodeAt(0).toString(16).padStart(2, "0")}`;
    return `$'${text.replace(/[\\']/g, "\\$&").replace(/[\x00-\x1f\x7f]/g, escape)}'`;
  }
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// A file name inside curl's -F, where `;`, `,` and quotes have a meaning.
const quoted = (name) => `"${here(name).replace(/[\\"]/g, "\\$&")}"`;

export function curl(request) {
  const parts = ["curl"];
  if (request.video) {
    parts.push("-N");
  }
  if (stored() !== null) {
    parts.push('-H "X-API-Key: $GATEWAY_KEY"');
  }
  if (request.accept) {
    parts.push(`-H ${shell(`Accept: ${request.accept}`)}`);
  }
  if (request.raw !== undefined) {
    parts.push(`--data-binary ${shell(`@${here(request.raw)}`)}`);
  } else if (request.json !== undefined) {
    parts.push("-H 'Content-Type: application/json'", `-d ${shell(JSON.stringify(request.json))}`);
  } else {
    parts.push(...request.form.map(([field, { file, text }]) =>
      (file === undefined ? `--form-string ${shell(`${field}=${text}`)}` : `-F ${shell(`${field}=@${quoted(file)}`)}`)));
  }
  if (request.save) {
    parts.push(`-o ${request.save}`);
  }
  return [...parts, shell(address(request))].join(" ");
}

const py = (value) => JSON.stringify(value);

const dict = (pairs) => `{${pairs.map(([name, value]) => `${py(name)}: ${value}`).join(", ")}}`;

export function python(request) {
  const headers = [
    ...(request.accept ? [["Accept", py(request.accept)]] : []),
    ...(stored() === null ? [] : [["X-API-Key", 'os.environ["GATEWAY_KEY"]']]),
  ];
  const query = [...request.query].map(([name, value]) => [name, py(value)]);
  const files = names(request);
  const send = [
    `    ${py(new URL(request.path, ROOT).href)},`,
    ...(query.length === 0 ? [] : [`    params=${dict(query)},`]),
    ...(headers.length === 0 ? [] : [`    headers=${dict(headers)},`]),
    ...sent(request),
    `    timeout=${request.video ? "None" : "60"},`,
  ];
  return [
    ...(request.video ? ["import json"] : []),
    ...(stored() === null ? [] : ["import os"]),
    ...(files.length === 0 ? [] : ["from pathlib import Path"]),
    ...(request.video || stored() !== null || files.length > 0 ? [""] : []),
    "import httpx",
    "",
    ...(request.video ? streamed(send, request) : answered(send, request)),
    "",
  ].join("\n");
}

const names = ({ raw, form = [] }) => (raw === undefined ? form.map(([, { file }]) => file).filter((file) => file !== undefined) : [raw]);

function sent({ raw, json, form, video }) {
  const read = (name) => `Path(${py(name)}).read_bytes()`;
  if (raw !== undefined) {
    return [`    content=${video ? "file" : read(raw)},`];
  }
  if (json !== undefined) {
    return [`    json=${py(json)},`];
  }
  const files = form.filter(([, { file }]) => file !== undefined).map(([field, { file }]) => [field, read(file)]);
  const texts = form.filter(([, { text }]) => text !== undefined);
  const field = texts[0]?.[0];
  return [
    `    files=${dict(files)},`,
    ...(texts.length === 0 ? [] : [`    data={${py(field)}: ${py(texts.map(([, { text }]) => text))}},`]),
  ];
}

const answered = (send, { save }) => [
  "answer = httpx.post(", ...send, ")", "answer.raise_for_status()",
  save ? `Path(${py(save)}).write_bytes(answer.content)` : "print(answer.json())",
];

const streamed = (send, { raw }) => [
  `with Path(${py(raw)}).open("rb") as file, httpx.stream(`, '    "POST",', ...send, ") as answer:", "    answer.raise_for_status()",
  "    for line in answer.iter_lines():", "        print(json.loads(line))",
];
