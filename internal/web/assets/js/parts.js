// Small pieces that several views share.

import { h } from "./dom.js";
import { count, words } from "./format.js";

const icons = {
  fleet: "M2 4.5h3.5v7H2zM7 2.5h2.5v11H7zM11 6h3v4h-3z",
  agents: "M3 3h4v4H3zM9 3h4v4H9zM3 9h4v4H3zM9 9h4v4H9z",
  tasks: "M2.5 4h1.5M6 4h7.5M2.5 8h1.5M6 8h7.5M2.5 12h1.5M6 12h7.5",
  timeline: "M2 12.5l3.5-5 3 2.5 5.5-7M2 14h12",
  cost: "M8 1.5v13M11.2 4.6c-.5-1.1-1.700-1.600-3.200-1.600c-1.900 0-3.200 1-3.200 2.500c0 3.300 6.600 1.600 6.600 5c0 1.500-1.400 2.500-3.400 2.500c-1.700 0-3-.7-3.500-1.900",
  nodes: "M2.500 2.500h11v4.500h-11zM2.500 9h11v4.500h-11zM5 4.750h.5M5 11.250h.5",
  patterns: "M2.500 3.500h2M7 3.500h2M11.500 3.500h2M2.500 8h2M7 8h2M11.500 8h2M2.500 12.500h2M7 12.500h2M11.500 12.500h2",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6a2.8 2.8 0 0 0 0-5.6zM8 1.5v1.4M8 13.1v1.4M1.5 8h1.4M13.1 8h1.4M3.4 3.4l1 1M11.6 11.6l1 1M3.4 12.6l1-1M11.6 4.4l1-1",
  moon: "M13 9.6A5.5 5.5 0 0 1 6.4 3a5.5 5.5 0 1 0 6.6 6.6z",
  out: "M6.5 3H3v10h3.5M10 5l3 3l-3 3M13 8H6.5",
  close: "M4 4l8 8M12 4l-8 8",
  up: "M8 12V4M4.5 7.5L8 4l3.5 3.5",
  down: "M8 4v8M4.5 8.5L8 12l3.5-3.5",
  plus: "M8 3v10M3 8h10",
  terminal: "M2.5 3h11v10h-11zM5 6.5l2 1.75l-2 1.75M8.5 10.5h2.5",
  keys: "M2 4.5h12v7H2zM4.5 7h.01M7 7h.01M9.5 7h.01M11.8 7h.01M5.5 9.3h5",
};

export const icon = (name) => h("svg", { class: "icon", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, h("path", { d: icons[name] }));

// The tone of a state is the same wherever it appears.
const tones = {
  ready: "warm", warm: "warm", starting: "starting", claimed: "running", running: "running", collecting: "running",
  draining: "draining", failed: "bad", lost: "bad", timed_out: "bad", succeeded: "good", cancelled: "quiet", queued: "queued", gone: "quiet",
  booting: "starting", cordoned: "draining",
};

export const tone = (state) => tones[state] || "quiet";

export const state = (s, say) => h("span", { class: `state tone-${tone(s)}` }, h("i", { "aria-hidden": "true" }), say || words(s));

/** title is the head of a view. */
export const title = (text, ...rest) => h("header", { class: "head" }, h("h1", {}, text), ...rest);

export const empty = (text, more) => h("div", { class: "empty" }, h("p", {}, text), more ? h("p", { class: "muted" }, more) : null);

/** meter is a bar of used against a limit. */
export function meter(used, limit, kind = "") {
  const share = limit > 0 ? Math.min(1, used / limit) : 0;
  const level = share > 0.9 ? "high" : share > 0.75 ? "mid" : "";
  return h("span", { class: `meter ${kind} ${level}`, "aria-hidden": "true" }, h("i", { style: { width: `${(share * 100).toFixed(1)}%` } }));
}

/** facts is a list of names with values. */
export const facts = (rows) => h("dl", { class: "facts" }, rows.filter((r) => r && r[1] !== null && r[1] !== undefined && r[1] !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));

/** chips chooses one of several. */
export const chips = (label, options, chosen, choose) =>
  h(
    "div",
    { class: "chips", role: "group", "aria-label": label },
    options.map(([value, text, n]) =>
      h("button", { class: "chip", "aria-pressed": value === chosen ? "true" : "false", onclick: () => choose(value) }, text, n === undefined ? null : h("span", { class: "n" }, count(n))),
    ),
  );

/** short is an identifier that fits a row. */
export const short = (id) => (id.length > 12 ? id.slice(-8) : id);
