// Posts a picture with Node's fetch, raw and as a form with a field, and prints both answers.
import { readFile } from "node:fs/promises";

const [url, path] = process.argv.slice(2);
const picture = await readFile(path);
const form = new FormData();
form.append("file", new Blob([picture], { type: "image/png" }), "a.png");
form.append("conf", "0.25");
for (const body of [picture, form]) {
  const answer = await fetch(`${url}/v1/detect`, { method: "POST", body });
  console.log(await answer.text());
}
