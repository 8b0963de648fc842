// Mermaid has 3 MB: only pages with a diagram load it, and from this site. The theme draws with what it finds here.
if (document.querySelector("pre.mermaid")) {
  document.write(`<script src="${new URL("mermaid.min.js", document.currentScript.src)}"><\/script>`)
}
