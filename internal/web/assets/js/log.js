// The live log of a task, as text.

import { h } from "./dom.js";
import { Ansi } from "./ansi.js";
import { bytes, plural } from "./format.js";

const mostLines = 5000;

export class Log {
  constructor(url, redraw) {
    this.redraw = redraw;
    this.lines = []; // {n, stream, pieces}
    this.count = 0;
    this.dropped = 0;
    this.ended = false;
    this.attempt = 0;
    this.stick = true;
    this.streams = {};
    this.source = new EventSource(`${url}?follow=true`); // goes on behind the last record by itself
    this.source.addEventListener("log", (m) => this.take(JSON.parse(m.data)));
    this.source.addEventListener("end", () => {
      this.ended = true;
      for (const [name, s] of Object.entries(this.streams)) this.add(name, s, s.ansi.end());
      this.source.close();
      redraw();
    });
  }

  stop() {
    this.source.close();
  }

  take(r) {
    if (r.attempt !== this.attempt) {
      if (this.attempt) this.line("system", [["", `Attempt ${r.attempt}`]]);
      this.attempt = r.attempt;
      this.streams = {};
    }
    const raw = Uint8Array.from(atob(r.data), (c) => c.charCodeAt(0));
    const s = (this.streams[r.stream] ||= { ansi: new Ansi(), decoder: new TextDecoder(), open: null });
    this.add(r.stream, s, s.ansi.feed(s.decoder.decode(raw, { stream: true })));
    this.redraw();
  }

  add(stream, s, pieces) {
    for (const [cls, text] of pieces) {
      const parts = text.split("\n");
      parts.forEach((part, i) => {
        if (i > 0) s.open = null;
        if (part === "" && i === parts.length - 1) return;
        if (!s.open) s.open = this.line(stream, []);
        // A bare carriage return writes the line anew.
        const anew = part.lastIndexOf("\r");
        if (anew >= 0) s.open.pieces = [];
        s.open.pieces = [...s.open.pieces, [cls, part.slice(anew + 1)]];
      });
    }
  }

  line(stream, pieces) {
    const l = { n: ++this.count, stream, pieces };
    this.lines.push(l);
    if (this.lines.length > mostLines) {
      this.lines.shift();
      this.dropped++;
    }
    return l;
  }

  draw(t) {
    const words = [plural(this.count, "line"), t.logBytes ? bytes(t.logBytes) : "", t.logDropped ? `${bytes(t.logDropped)} beyond the limit` : "", this.dropped ? `the first ${this.dropped} are not shown` : ""];
    if (this.stick && this.box) {
      queueMicrotask(() => {
        if (this.stick) this.box.scrollTop = this.box.scrollHeight;
      });
    }
    return [
      h("div", { class: "row-head" }, h("h2", {}, "Log"), h("span", { class: "muted" }, words.filter(Boolean).join(", ")), this.ended ? null : h("span", { class: "link link-live" }, h("i", { "aria-hidden": "true" }), "live")),
      h(
        "div",
        {
          key: "log",
          class: "log",
          tabindex: "0",
          role: "log",
          "aria-label": "Log",
          "aria-live": "off",
          ref: (el) => (this.box = el),
          onscroll: (e) => (this.stick = e.target.scrollTop + e.target.clientHeight >= e.target.scrollHeight - 24),
        },
        this.lines.length
          ? this.lines.map((l) => h("div", { key: l.n, class: `l l-${l.stream}` }, l.pieces.map(([cls, text]) => (cls ? h("span", { class: cls }, text) : text))))
          : h("div", { class: "l muted" }, this.ended ? "The log is empty." : t.state === "queued" ? "The task waits; there is no log yet." : "No output yet."),
      ),
    ];
  }
}
