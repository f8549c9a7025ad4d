// The sandboxes as the server has them: the rows in view, live, out of any
// number.

import { clean, reopening } from "./stream.js";

const least = 60; // rows that are asked for beyond those in view, at least
const most = 300;
const pause = 150; // milliseconds between two questions while the list moves
const kept = 40; // readings of a trail

/**
 * Boxes follows one page of the sandboxes. Rows are replaced, never changed, so
 * that what draws them sees by their identity what is new.
 */
export class Boxes {
  constructor(redraw) {
    this.redraw = redraw;
    this.filter = {};
    this.total = 0;
    this.counts = null; // null: nothing has come yet
    this.problem = "";
    this.rows = new Map(); // by index: those of this page, and of the page before
    this.offset = 0;
    this.limit = 100;
    this.close = () => {};
    this.timer = 0;
    this.asked = 0;
  }

  /** show asks for other rows: {state, q, sort, order}. */
  show(filter) {
    if (JSON.stringify(filter) === JSON.stringify(this.filter)) return;
    this.filter = filter;
    this.offset = 0;
    this.stale = true;
    this.open();
  }

  /** need makes sure that the rows from first up to last are there, or come. */
  need(first, last) {
    last = Math.min(last, this.total);
    if (first >= this.offset && last <= this.offset + this.limit) return;
    // One question at a time, so that a list that moves fast is answered at all.
    if (this.waiting && performance.now() - this.asked < 2000) return;
    const more = Math.max(least, Math.floor((last - first) / 2));
    this.offset = Math.max(0, first - more);
    this.limit = Math.min(most, last + more - this.offset);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), Math.max(0, this.asked + pause - performance.now()));
  }

  at(i) {
    return this.rows.get(i) || null;
  }

  open() {
    this.close();
    this.asked = performance.now();
    this.waiting = true;
    const q = new URLSearchParams({ follow: "true", offset: this.offset, limit: this.limit, ...clean(this.filter) });
    let page = new Map(); // of this stream: id -> row
    let ids = [];
    this.close = reopening(
      `./v1/sandboxes?${q}`,
      "sandboxes",
      (d, first) => {
        if (first) page = new Map();
        for (const r of d.rows || []) page.set(r.id, this.joined(page.get(r.id), r));
        for (const u of d.uses || []) {
          const r = page.get(u.id);
          if (r) page.set(u.id, { ...r, usage: u.usage, trail: longer(r.trail, u.usage, u.ioBytes) });
        }
        if (d.ids) {
          ids = d.ids;
          const there = new Set(ids);
          for (const id of page.keys()) if (!there.has(id)) page.delete(id);
        }
        this.take(d, ids, page, first);
      },
      (text) => {
        this.problem = text;
        this.redraw();
      },
    );
  }

  joined(was, row) {
    const trail = row.trail || was?.trail;
    return trail ? { ...row, trail } : row;
  }

  take(d, ids, page, first) {
    this.problem = "";
    this.waiting = false;
    this.total = d.total;
    this.counts = d.counts;
    if (this.stale) this.rows.clear();
    this.stale = false;
    // What is far away is forgotten; what is near shows until it comes anew.
    if (first) for (const i of this.rows.keys()) if (i >= d.total || Math.abs(i - d.offset) > 2 * most) this.rows.delete(i);
    ids.forEach((id, i) => this.rows.set(d.offset + i, page.get(id)));
    this.redraw();
  }

  stop() {
    clearTimeout(this.timer);
    this.close();
  }
}

/** longer is a trail with one reading more. */
export function longer(t, u, io = 0) {
  const list = (name, v) => [...(t?.[name] || []).slice(1 - kept), v];
  return { at: list("at", Date.now()), cpu: list("cpu", u.cpuNow || 0), memory: list("memory", u.memoryBytes), pids: list("pids", u.pids), ioBytes: list("ioBytes", io) };
}
