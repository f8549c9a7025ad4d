// The part of a task's page that has the terminal.

import { h } from "./dom.js";
import { mayAct, why } from "./role.js";
import { icon } from "./parts.js";

export class Shell {
  constructor(task, redraw) {
    this.task = task;
    this.redraw = redraw;
    this.shown = false;
    this.said = "";
    this.count = 0;
  }

  /** button opens it; null where there is nothing to open. */
  button(running) {
    if (!running || this.shown) return null;
    return h("button", { class: "button terminal-open", disabled: !mayAct(), title: mayAct() ? "A shell beside the task, in its sandbox" : why("open a terminal"), onclick: () => this.show() }, icon("terminal"), "Terminal");
  }

  show() {
    this.shown = true;
    this.said = "connecting";
    this.count++;
    this.redraw();
  }

  hide() {
    this.shown = false;
    this.stop();
    this.redraw();
  }

  async begin(el) {
    const n = this.count;
    try {
      const { open } = await import("./terminal.js"); // large, and seldom needed
      if (n !== this.count || !el.isConnected) return;
      this.session = open(el, this.task, (said) => {
        if (n !== this.count) return;
        this.said = said;
        this.redraw();
      });
    } catch (e) {
      this.said = `The terminal could not be loaded: ${e.message}`;
      this.redraw();
    }
  }

  stop() {
    this.count++;
    this.session?.close();
    this.session = null;
  }

  draw(running) {
    if (!this.shown) return null;
    const over = !["connecting", "open"].includes(this.said);
    return h(
      "section",
      { key: "shell", class: "shell", "aria-label": "Terminal" },
      h(
        "div",
        { class: "row-head" },
        h("h2", {}, "Terminal"),
        h("span", { class: "muted", role: "status" }, over ? this.said : this.said === "open" ? "a shell in the sandbox; Ctrl+Alt+Q leaves it" : "connecting"),
        h("div", { class: "actions" }, over && running ? h("button", { class: "button", onclick: () => (this.stop(), this.show()) }, "Open again") : null, h("button", { class: "plain terminal-close", "aria-label": "Close the terminal", onclick: () => this.hide() }, icon("close"))),
      ),
      h("div", { key: `terminal ${this.count}`, class: "term-box", raw: true, ref: (el) => queueMicrotask(() => this.begin(el)) }),
    );
  }
}
