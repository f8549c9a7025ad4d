// A table of any length: only the rows in sight are in the page.

import { draw, h, memo } from "./dom.js";
import { icon } from "./parts.js";

/**
 * Table keeps what of a long list is in sight. columns are {key, name, cell,
 * num, sort}; the rows' heights are the same, which is what makes ten thousand
 * of them cheap. It draws a list, which it sorts, or a source {length, at(i)}
 * that has its own order and may have nothing at i yet: sort is then only a mark
 * of what can be sorted by, and chosen hears of the choice. Scrolling draws the
 * rows alone, and of these only those that are new in sight.
 */
export class Table {
  constructor({ columns, redraw, label, open, sort, down = true, near = () => {}, chosen = () => {} }) {
    Object.assign(this, { columns, redraw, label, open, sort, down, near, chosen });
    this.top = 0;
    this.height = 600;
    this.at = -1; // the row that has the keyboard
    this.places = 0; // rows that the page has had at once
  }

  get rowHeight() {
    return innerWidth < 720 ? 60 : 40;
  }

  /** ordered sorts anew only what has changed: scrolling draws often. */
  ordered(rows) {
    if (!Array.isArray(rows)) return rows;
    const made = this.made;
    if (made && made.rows === rows && made.sort === this.sort && made.down === this.down) return made.source;
    const list = this.sorted(rows);
    const source = { length: list.length, at: (i) => list[i] };
    this.made = { rows, sort: this.sort, down: this.down, source };
    return source;
  }

  sorted(rows) {
    const c = this.columns.find((c) => c.key === this.sort);
    if (!c || !c.sort) return rows;
    const sign = this.down ? -1 : 1;
    return rows
      .map((r, i) => [c.sort(r), i, r])
      .sort(([a, i], [b, j]) => (a < b ? -sign : a > b ? sign : i - j))
      .map((x) => x[2]);
  }

  choose(c) {
    if (this.sort === c.key) this.down = !this.down;
    else {
      this.sort = c.key;
      this.down = Boolean(c.num);
    }
    this.chosen(this.sort, this.down);
    this.redraw();
  }

  key(e) {
    const n = this.source.length;
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[e.key];
    if (e.key === "Enter" && this.at >= 0 && this.source.at(this.at) && e.target === this.box) {
      location.hash = this.open(this.source.at(this.at));
      return;
    }
    if (!move || e.target !== this.box) return;
    e.preventDefault();
    this.at = Math.max(0, Math.min(n - 1, this.at + move));
    const y = this.at * this.rowHeight;
    const box = this.box;
    if (y < box.scrollTop) box.scrollTop = y;
    if (y + this.rowHeight > box.scrollTop + box.clientHeight - 34) box.scrollTop = y + this.rowHeight - box.clientHeight + 34;
    this.redraw();
  }

  /** sight is what of the list is in sight, and a little more. */
  sight() {
    const rh = this.rowHeight;
    return [Math.max(0, Math.floor(this.top / rh) - 6), Math.min(this.source.length, Math.ceil((this.top + this.height) / rh) + 6)];
  }

  /**
   * paint draws the rows in sight. Each has a place in the page that the row so
   * many further on takes over: nothing is moved, made or thrown away while the
   * list scrolls.
   */
  paint() {
    if (!this.body) return;
    const [first, last] = this.sight();
    this.near(first, last);
    this.places = Math.max(this.places, last - first);
    const out = [];
    for (let i = first; i < last; i++) {
      const r = this.source.at(i);
      out[i % this.places] = memo(i % this.places, [r, i, i === this.at, this.rowHeight], () => this.row(r, i));
    }
    draw(this.body, ...out);
  }

  row(r, i) {
    const linked = this.columns.find((c) => c.key === "task") || this.columns[0];
    const cell = (c) => {
      if (!r) return c === linked ? h("i", { class: "coming" }) : null;
      // The link of one cell is as large as its row.
      return c === linked ? h("a", { class: "row-link", tabindex: "-1", href: this.open(r) }, c.cell(r)) : c.cell(r);
    };
    return h(
      "div",
      {
        id: `row-${i}`,
        class: `tr ${i === this.at ? "at" : ""}`,
        role: "row",
        "aria-rowindex": String(i + 2),
        "aria-selected": i === this.at ? "true" : null,
        style: { transform: `translateY(${i * this.rowHeight}px)`, height: `${this.rowHeight}px` },
      },
      this.columns.map((c) => h("div", { class: `td c-${c.key} ${c.num ? "num" : ""}`, role: "gridcell" }, cell(c))),
    );
  }

  draw(all) {
    this.source = this.ordered(all);
    const [first, last] = this.sight();
    queueMicrotask(() => this.paint()); // before the frame is shown
    return h(
      "div",
      {
        key: "table",
        class: "table",
        role: "grid",
        tabindex: "0",
        "aria-label": this.label,
        "aria-rowcount": String(this.source.length + 1),
        "aria-activedescendant": this.at >= first && this.at < last ? `row-${this.at}` : null,
        onkeydown: (e) => this.key(e),
        onscroll: (e) => {
          this.top = e.target.scrollTop;
          this.paint();
        },
        ref: (el) => {
          this.box = el;
          new ResizeObserver(() => {
            if (!el.clientHeight) return; // it left the page
            this.height = el.clientHeight;
            this.redraw();
          }).observe(el);
        },
      },
      h(
        "div",
        { class: "tr th", role: "row" },
        this.columns.map((c) =>
          h(
            "div",
            { class: `td c-${c.key} ${c.num ? "num" : ""}`, role: "columnheader", "aria-sort": this.sort === c.key ? (this.down ? "descending" : "ascending") : null },
            c.sort ? h("button", { onclick: () => this.choose(c) }, c.name, this.sort === c.key ? icon(this.down ? "down" : "up") : null) : c.name,
          ),
        ),
      ),
      h("div", { class: "rows", role: "presentation", raw: true, ref: (el) => (this.body = el), style: { height: `${this.source.length * this.rowHeight}px` } }),
    );
  }
}
