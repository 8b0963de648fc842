// A page that is opened from a folder may start no worker. There, the search runs in a hidden frame instead. The theme would
// load a script for this from another host; it takes one of this name instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.srcdoc = "<!doctype html><title>search</title>"
      this.started = new Promise((resolve) => {
        this.frame.addEventListener("load", () => {
          const inside = this.frame.contentWindow
          inside.postMessage = (data) => setTimeout(() => this.onmessage?.(new MessageEvent("message", { data })))
          const script = inside.document.createElement("script")
          script.src = url
          script.addEventListener("load", () => resolve(inside))
          script.addEventListener("error", () => this.onerror?.(new ErrorEvent("error")))
          inside.document.head.append(script)
        })
      })
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.started.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
