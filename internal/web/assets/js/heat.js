// The week of a fleet as a heat map in half hours, Monday first.

import { h } from "./dom.js";

export const dayNames = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const halves = 48;
const left = 36;
const top = 16;

/** slotNow is the half hour of the week that it is in a zone. */
export function slotNow(zone, now = new Date()) {
  const parts = Object.fromEntries(new Intl.DateTimeFormat("en-GB", { timeZone: zone, weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).formatToParts(now).map((p) => [p.type, p.value]));
  return dayNames.indexOf(parts.weekday) * halves + Number(parts.hour) * 2 + (Number(parts.minute) >= 30 ? 1 : 0);
}

const pad = (n) => String(n).padStart(2, "0");
export const clockOf = (half) => `${pad(Math.floor((half % halves) / 2))}:${half % 2 ? "30" : "00"}`;

/** slotsOf are the half hours of a peak as the API tells it. */
export function slotsOf(peak) {
  const at = (text) => Number(text.slice(0, 2)) * 2 + (Number(text.slice(3)) >= 30 ? 1 : 0);
  const from = at(peak.from);
  let until = at(peak.until);
  if (until <= from) until += halves;
  const out = new Set();
  for (const d of peak.weekdays) for (let i = from; i < until; i++) out.add((((d + 6) % 7) * halves + i) % (7 * halves));
  return out;
}

/**
 * heat draws 336 values; null is a half hour that was never looked at. marked
 * are half hours of a peak that is pointed at.
 */
export function heat({ values, tone, label, width, at, now, marked, point, choose }) {
  const row = width < 560 ? 18 : 26;
  const cell = (width - left) / halves;
  const height = top + row * 7 + 2;
  const most = Math.max(1e-9, ...values.filter((v) => v !== null));
  const place = (e) => {
    const box = e.currentTarget.getBoundingClientRect();
    const x = (e.clientX - box.left) * (width / box.width) - left;
    const y = (e.clientY - box.top) * (width / box.width) - top;
    if (x < 0 || y < 0 || x >= cell * halves || y >= row * 7) return -1;
    return Math.floor(y / row) * halves + Math.floor(x / cell);
  };
  const box = (i, cls, grow = 0) => h("rect", { class: cls, x: (left + (i % halves) * cell - grow).toFixed(2), y: top + Math.floor(i / halves) * row - grow, width: Math.max(1, cell - 1 + 2 * grow).toFixed(2), height: row - 2 + 2 * grow, rx: 2 });
  const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -halves, ArrowDown: halves };
  return h(
    "svg",
    {
      class: "heat",
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "img",
      tabindex: "0",
      "aria-label": label,
      onpointermove: (e) => point(place(e)),
      onpointerdown: (e) => point(place(e)),
      onpointerleave: () => point(-1),
      onkeydown: (e) => {
        if (!(e.key in move)) return;
        e.preventDefault();
        point(((at < 0 ? now : at) + move[e.key] + 7 * halves) % (7 * halves));
      },
      onclick: (e) => choose?.(place(e)),
    },
    [0, 6, 12, 18].map((hour) => h("text", { class: "tick", x: left + hour * 2 * cell, y: 10 }, `${pad(hour)}:00`)),
    dayNames.map((d, i) => h("text", { class: "tick", x: 0, y: top + i * row + row / 2 + 3 }, d)),
    values.map((v, i) => {
      const r = box(i, v === null ? "unseen" : `cell tone-${tone}`);
      if (v !== null) r.props["fill-opacity"] = v <= 0 ? 0.05 : (0.12 + 0.88 * Math.sqrt(v / most)).toFixed(3);
      return r;
    }),
    [...(marked || [])].map((i) => box(i, "in-peak")),
    now >= 0 ? box(now, "present", 1) : null,
    at >= 0 ? box(at, "pointed", 1) : null,
  );
}
