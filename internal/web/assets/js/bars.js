// Bars over time, drawn as SVG by hand, and the width that charts have.

import { h } from "./dom.js";
import { ticks, times, timeText } from "./chart.js";

/** sized knows the width of an element and redraws when it changes. */
export function sized(redraw, first = 1000) {
  const s = { width: first };
  s.ref = (el) =>
    new ResizeObserver(() => {
      if (!el.clientWidth || el.clientWidth === s.width) return; // it left the page, or is as it was
      s.width = el.clientWidth;
      redraw();
    }).observe(el);
  return s;
}

/** amounts are round numbers from 0 to at least most, below 1 as well. */
function amounts(most, n = 3) {
  if (most > 3) return ticks(most, n);
  if (!(most > 0)) return [0];
  const mag = 10 ** Math.floor(Math.log10(most / n));
  const step = [1, 2, 5, 10].map((m) => m * mag).find((s) => s >= most / n - 1e-12);
  const out = [];
  for (let i = 0; i * step < most + step * 0.999; i++) out.push(i * step);
  return out;
}

/**
 * bars is one bar for each point {t, parts: [{tone, v}]}, each step
 * milliseconds long; limit is a dashed line, text writes a value.
 */
export function bars({ width, height, from, to, step, points, label, text = String, limit = null, chosen = null, choose, left = 52 }) {
  const right = 8;
  const bottom = 20;
  const floor = height - bottom - 1;
  const x = (t) => left + ((t - from) / (to - from)) * (width - left - right);
  const sum = (p) => p.parts.reduce((n, a) => n + a.v, 0);
  const most = Math.max(limit || 0, ...points.map(sum));
  const top = most * 1.05 || 1;
  const marks = amounts(most, 4).filter((v) => v <= top);
  const y = (v) => floor - (v / top) * (floor - 10);
  const wide = x(from + step) - x(from);
  const gap = wide > 6 ? Math.min(3, wide * 0.2) : 0;
  const at = (e) => {
    const box = e.currentTarget.getBoundingClientRect();
    const t = from + (((e.clientX - box.left) * (width / box.width) - left) / (width - left - right)) * (to - from);
    return points.findIndex((p) => t >= p.t && t < p.t + step);
  };
  return h(
    "svg",
    { class: "lane bars", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, onpointermove: (e) => choose(at(e)), onpointerdown: (e) => choose(at(e)), onpointerleave: () => choose(-1) },
    marks.map((v) => h("g", {}, h("line", { class: v ? "grid" : "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }), h("text", { class: "tick", x: left - 8, y: y(v) + 3.5, "text-anchor": "end" }, text(v)))),
    points.map((p, i) => {
      let base = 0;
      const rects = p.parts.filter((a) => a.v > 0).map((a) => {
        base += a.v;
        return h("rect", { class: `area tone-${a.tone}`, x: (x(p.t) + gap / 2).toFixed(1), width: Math.max(0.5, wide - gap).toFixed(1), y: y(base).toFixed(1), height: Math.max(0, y(base - a.v) - y(base)).toFixed(1) });
      });
      return h("g", { class: chosen >= 0 && chosen !== i ? "off" : "" }, rects);
    }),
    limit ? h("line", { class: "limit", x1: left, x2: width - right, y1: y(limit), y2: y(limit) }) : null,
    times(from, to, Math.max(2, Math.floor((width - left) / 70)))
      .map((t) => [t, timeText(t, to - from)])
      .filter(([, says], i, all) => i === 0 || all[i - 1][1] !== says) // a day is named once
      .map(([t, says]) => h("text", { class: "tick", x: x(t), y: height - 4, "text-anchor": "middle" }, says)),
  );
}
