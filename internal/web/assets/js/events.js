// Events of the fleet as rows.

import { h } from "./dom.js";
import { capital, clock, moment, words } from "./format.js";

const signs = { scale_out: "out", scale_in: "in", node_scale_out: "out", node_scale_in: "in" };

export function sign(e) {
  if (signs[e.kind]) return signs[e.kind];
  if (/fail|lost|breaker|bind|missing|gave/.test(e.kind)) return "bad";
  return e.to > e.from ? "out" : e.to < e.from ? "in" : "other";
}

/** subject is what an event is about: default 2 → 4. */
export function subject(e) {
  const name = e.layer === "nodes" ? "nodes" : e.layer === "consumers" ? "consumers" : e.pool || e.sandbox || e.node || "";
  return e.from !== e.to ? `${name} ${e.from} → ${e.to}` : name;
}

export function eventRow(e, { chosen, choose, whole } = {}) {
  const inner = [
    h("time", { datetime: e.at }, whole ? moment(e.at) : clock(e.at)),
    h("span", { class: `sign sign-${sign(e)}`, "aria-hidden": "true" }),
    h("span", { class: "event-text" }, h("b", {}, capital(words(e.kind))), " ", h("span", { class: "event-what" }, subject(e)), h("span", { class: "event-why" }, e.reason)),
  ];
  return h("li", { key: e.seq, class: "event" }, choose ? h("button", { class: "event-row", "aria-pressed": chosen ? "true" : "false", onclick: () => choose(e) }, inner) : h("div", { class: "event-row" }, inner));
}
