// Charts, drawn as SVG by hand.

import { h } from "./dom.js";

/** ticks are round numbers from 0 to at least most. */
export function ticks(most, n = 3) {
  if (most <= 0) return [0, 1];
  const raw = most / n;
  const mag = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(1, [1, 2, 5, 10].map((m) => m * mag).find((s) => s >= raw - 1e-9));
  const out = [];
  for (let v = 0; v < most + step * 0.999; v += step) out.push(v);
  return out.length > 1 ? out : [0, step];
}

const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600];
const monthly = [1, 2, 3, 6, 12];

/** times are round times between two, in milliseconds. */
export function times(from, to, n) {
  const fits = steps.find((s) => (to - from) / 1000 / s <= n);
  if (!fits) return months(from, to, n);
  const step = fits * 1000;
  const shift = new Date(from).getTimezoneOffset() * 60000;
  const out = [];
  for (let t = Math.ceil((from - shift) / step) * step + shift; t <= to; t += step) out.push(t);
  return out;
}

/** months are the firsts of months between two times. */
function months(from, to, n) {
  const by = monthly.find((m) => (to - from) / (m * 30.4 * 86400e3) <= n) || 12;
  const out = [];
  const at = new Date(from);
  for (let m = Math.ceil((at.getMonth() + 0.001) / by) * by; ; m += by) {
    const t = new Date(at.getFullYear(), m, 1).getTime();
    if (t > to) return out;
    if (t >= from) out.push(t);
  }
}

const pad = (n) => String(n).padStart(2, "0");
export function timeText(t, whole) {
  const d = new Date(t);
  if (whole > 200 * 86400e3) return d.toLocaleString("en", d.getMonth() ? { month: "short" } : { month: "short", year: "numeric" });
  if (whole > 2 * 86400e3) return `${d.getDate()} ${d.toLocaleString("en", { month: "short" })}`;
  return `${pad(d.getHours())}:${pad(d.getMinutes())}${whole < 300e3 ? `:${pad(d.getSeconds())}` : ""}`;
}

/** hold draws a line that keeps each value until the next one; a gap longer than gap, or than the point's own, breaks it. */
export function hold(points, x, y, gap, base) {
  let d = "";
  let first = null;
  points.forEach((p, i) => {
    const next = points[i + 1];
    const px = x(p.t).toFixed(1);
    const py = y(p.v).toFixed(1);
    if (first === null) {
      first = px;
      d += base === undefined ? `M${px} ${py}` : `M${px} ${base}V${py}`;
    } else d += `V${py}`;
    const most = p.t + (p.gap ?? gap);
    const until = next ? Math.min(next.t, most) : Math.min(most, p.end ?? p.t);
    d += `H${x(until).toFixed(1)}`;
    if (!next || next.t > most) {
      if (base !== undefined) d += `V${base}Z`;
      first = null;
    }
  });
  return d;
}

/** between draws the room from lo to hi, each held until the next. */
function between(points, x, y) {
  if (points.length < 2) return "";
  const edge = (k) => points.flatMap((p, i) => [[x(p.t), y(p[k])], [x(points[i + 1]?.t ?? p.end ?? p.t), y(p[k])]]);
  return `M${[...edge("hi"), ...edge("lo").reverse()].map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}Z`;
}

/** sparkline of plain numbers, oldest first, against most; with 40 of them it is full. */
export function spark(values, most, { width = 64, height = 18, level = "" } = {}) {
  const props = { class: `spark ${level}`, viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" };
  if (values.length < 2) return h("svg", props, h("path", { class: "spark-area" }), h("path", { class: "spark-line" }));
  const top = Math.max(most || 0, ...values) || 1;
  const step = width / Math.max(39, values.length - 1);
  const y = (v) => (height - 1 - (v / top) * (height - 2)).toFixed(1);
  const first = (width - (values.length - 1) * step).toFixed(1);
  let line = `M${first} ${y(values[0])}`;
  for (let i = 1; i < values.length; i++) line += `L${(width - (values.length - 1 - i) * step).toFixed(1)} ${y(values[i])}`;
  return h("svg", props, h("path", { class: "spark-area", d: `${line}V${height}H${first}Z` }), h("path", { class: "spark-line", d: line }));
}

/**
 * lane is one strip of a chart over time. areas are stacked from below, lines
 * lie on top: {name, tone, points: [{t, v}]}. bands lie below both, from lo to
 * hi: {tone, points: [{t, lo, hi}]}, or held from the floor to v, with gaps as
 * areas have them: {tone, held: true, points: [{t, v}]}. holes are times of
 * which nothing is known: [[from, to]].
 */
export function lane({ width, height, from, to, gap, areas = [], lines = [], bands = [], holes = [], label, left = 36, bottom = 0, cursor = null, limit = null }) {
  const right = 8;
  const x = (t) => left + ((Math.max(from, Math.min(to, t)) - from) / (to - from)) * (width - left - right);
  let most = 1;
  const sums = [];
  for (const a of areas) {
    a.points.forEach((p, i) => {
      sums[i] = (sums[i] || 0) + p.v;
      most = Math.max(most, sums[i]);
    });
  }
  for (const l of lines) for (const p of l.points) most = Math.max(most, p.v);
  for (const b of bands) for (const p of b.points) most = Math.max(most, b.held ? p.v : p.hi);
  if (limit !== null && limit <= most * 2.5) most = Math.max(most, limit);
  const marks = ticks(most);
  const top = Math.max(marks.at(-1), most);
  const floor = height - bottom - 1;
  const y = (v) => floor - (v / top) * (floor - 10);
  const stacked = [];
  const below = [];
  for (const a of areas) {
    const pts = a.points.map((p, i) => ({ t: p.t, gap: p.gap, v: (below[i] = (below[i] || 0) + p.v), end: p.end }));
    stacked.unshift(h("path", { class: `area tone-${a.tone}`, d: hold(pts, x, y, gap, floor) }));
  }
  return h(
    "svg",
    { class: "lane", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    marks.map((v) => h("g", {}, h("line", { class: v ? "grid" : "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }), h("text", { class: "tick", x: left - 8, y: y(v) + 3.5, "text-anchor": "end" }, String(v)))),
    holes.map(([a, b]) => h("rect", { class: "hole", x: x(a).toFixed(1), y: 10, width: Math.max(0, x(b) - x(a)).toFixed(1), height: floor - 10 })),
    bands.map((b) => h("path", b.held ? { class: `band held tone-${b.tone}`, d: hold(b.points, x, y, gap, floor) } : { class: `band tone-${b.tone}`, d: between(b.points, x, y) })),
    stacked,
    limit !== null && limit <= top ? h("line", { class: "limit", x1: left, x2: width - right, y1: y(limit), y2: y(limit) }) : null,
    lines.map((l) => h("path", { class: `line tone-${l.tone}`, d: hold(l.points, x, y, gap) })),
    bottom
      ? times(from, to, Math.max(2, Math.floor((width - left) / 90))).map((t) => h("text", { class: "tick", x: x(t), y: height - 4, "text-anchor": "middle" }, timeText(t, to - from)))
      : null,
    cursor !== null && cursor >= from && cursor <= to ? h("line", { class: "cursor", x1: x(cursor), x2: x(cursor), y1: 0, y2: floor }) : null,
  );
}
