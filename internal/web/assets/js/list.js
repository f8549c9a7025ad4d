// A table of any length: only the rows in sight are in the page.

import { h } from "./dom.js";
import { icon } from "./parts.js";

/**
 * Table keeps what of a long list is in sight. columns are {key, name, cell,
 * num, sort, wide, hide}; the rows' heights are the same, which is what makes
 * ten thousand of them cheap.
 */
export class Table {
  constructor({ columns, redraw, label, open, sort, down = true, near = () => {} }) {
    Object.assign(this, { columns, redraw, label, open, sort, down, near });
    this.top = 0;
    this.height = 600;
    this.at = -1; // the row that has the keyboard
  }

  get rowHeight() {
    return innerWidth < 720 ? 60 : 40;
  }

  /** ordered sorts anew only what has changed: scrolling draws often. */
  ordered(rows) {
    const made = this.made;
    if (made && made.rows === rows && made.sort === this.sort && made.down === this.down) return made.list;
    const list = this.sorted(rows);
    this.made = { rows, sort: this.sort, down: this.down, list };
    return list;
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
    this.redraw();
  }

  key(e, rows) {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[e.key];
    if (e.key === "Enter" && this.at >= 0 && rows[this.at]) {
      location.hash = this.open(rows[this.at]);
      return;
    }
    if (!move) return;
    e.preventDefault();
    this.at = Math.max(0, Math.min(rows.length - 1, this.at + move));
    const y = this.at * this.rowHeight;
    const box = this.box;
    if (y < box.scrollTop) box.scrollTop = y;
    if (y + this.rowHeight > box.scrollTop + box.clientHeight - 34) box.scrollTop = y + this.rowHeight - box.clientHeight + 34;
    this.redraw();
  }

  draw(all, keyOf) {
    const rows = this.ordered(all);
    const rh = this.rowHeight;
    const first = Math.max(0, Math.floor(this.top / rh) - 6);
    const last = Math.min(rows.length, Math.ceil((this.top + this.height) / rh) + 6);
    if (last >= rows.length) this.near();
    return h(
      "div",
      {
        key: "table",
        class: "table",
        role: "grid",
        tabindex: "0",
        "aria-label": this.label,
        "aria-rowcount": String(rows.length + 1),
        "aria-activedescendant": this.at >= first && this.at < last ? `row-${this.at}` : null,
        onkeydown: (e) => this.key(e, rows),
        onscroll: (e) => {
          this.top = e.target.scrollTop;
          this.redraw();
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
      h(
        "div",
        { class: "rows", role: "presentation", style: { height: `${rows.length * rh}px` } },
        rows.slice(first, last).map((r, i) =>
          h(
            "a",
            {
              key: keyOf(r),
              id: `row-${first + i}`,
              class: `tr ${first + i === this.at ? "at" : ""}`,
              role: "row",
              tabindex: "-1",
              "aria-rowindex": String(first + i + 2),
              href: this.open(r),
              style: { transform: `translateY(${(first + i) * rh}px)`, height: `${rh}px` },
            },
            this.columns.map((c) => h("div", { class: `td c-${c.key} ${c.num ? "num" : ""}`, role: "gridcell" }, c.cell(r))),
          ),
        ),
      ),
    );
  }
}
