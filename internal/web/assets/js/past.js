// Weeks and months: what the ledger keeps, drawn in place of the journal and
// before it.

import { h } from "./dom.js";
import { ask } from "./api.js";
import { count, money, moment } from "./format.js";
import { empty } from "./parts.js";
import { lane } from "./chart.js";

/** longest is the longest time that is drawn from the journal of decisions, in milliseconds. */
export const longest = 32 * 86400e3;

/** askPast reads what the ledger knows of a time; null where none is kept. */
export async function askPast(from, to, signal) {
  try {
    const past = await ask(`v1/fleet/past?since=${new Date(from).toISOString()}&until=${new Date(to).toISOString()}`, { signal });
    return past.points.length ? past : null;
  } catch (err) {
    if (err.status === 404) return null; // others run the workers: nothing is charged
    throw err;
  }
}

/** journalBegan is the time of the oldest decision on record; null where there is none. */
export async function journalBegan(signal) {
  const got = await ask("v1/decisions?limit=1", { signal });
  return got.decisions.length ? Date.parse(got.decisions[0].at) : null;
}

/**
 * pastPoints are those of the ledger as the chart draws them, up to a time.
 * Each holds for its step alone: where one is missing nobody looked, and there
 * is a gap.
 */
export function pastPoints(past, until) {
  if (!past) return [];
  const step = past.stepSeconds * 1000;
  return past.points.map((p) => ({ ...p, t: Date.parse(p.at), gap: step, end: Math.min(until, Date.parse(p.at) + step), ready: p.warm, starting: 0, past: true })).filter((p) => p.t < until);
}

/** holesIn are the times between two of which no point tells, shorter ones than a pixel or so left out. */
export function holesIn(points, from, to) {
  const out = [];
  let at = from;
  for (const p of [...points, { t: to, end: to }]) {
    if (p.t - at > (to - from) / 800) out.push([at, p.t]);
    at = Math.max(at, p.end);
  }
  return out;
}

const number = (v) => (v >= 100 ? count(Math.round(v)) : String(+v.toFixed(v < 10 ? 2 : 1)));
const dayOf = (t) => new Date(t).toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const minute = (t) => new Date(t).toLocaleString("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const steps = { 3600: "hour", 86400: "day" };
/** stepName is what one point stands for. */
export const stepName = (seconds) => steps[seconds] || (seconds < 86400 ? `${seconds / 3600} hours` : `${seconds / 86400} days`);

/** pastReadout is one point in words. */
export function pastReadout(p) {
  const row = (tone, name, v) => h("span", { class: `tone-${tone}` }, h("i", { "aria-hidden": "true" }), name, " ", h("b", {}, v));
  const step = p.gap / 1000;
  const when = step >= 86400 ? dayOf(p.t) : `${moment(p.t).replace(/:00$/, "")}, ${stepName(step)}`;
  return h("div", { class: "readout" }, h("time", {}, when), row("running", "running", number(p.running)), step > 3600 ? h("span", {}, "busiest hour ", h("b", {}, number(p.runningPeak))) : null, row("warm", "warm", number(p.warm)), row("node", "nodes", `${number(p.nodes)}, at most ${count(p.nodesPeak)}`), row("queued", "tasks ended", count(p.ended)), h("span", { class: "muted" }, h("b", {}, money(p.microUSD))));
}

const keys = (list) => h("ul", { class: "keys" }, list.map(([tone, name, kind]) => h("li", { class: `tone-${tone}` }, h("i", { class: kind || "", "aria-hidden": "true" }), name)));

/** pastLanes draws a long time: sandboxes, tasks and nodes. */
export function pastLanes(points, step, inside) {
  const holes = holesIn(points, inside.from, inside.to);
  const common = { ...inside, holes };
  if (!points.length) return [empty("Nothing is on record of this time.")];
  const pick = (f) => points.map((p) => ({ t: p.t, gap: p.gap, end: p.end, v: f(p) }));
  const each = stepName(step);
  return [
    h("div", { class: "lane-head" }, h("h2", {}, `Sandboxes, mean of ${step === 3600 || step === 86400 ? "each " : ""}${each}`), keys([["running", "running"], ["warm", "starting or warm"], ...(step > 3600 ? [["running", "running in the busiest hour", "pale"]] : []), ...(holes.length ? [["hole", "nothing on record"]] : [])])),
    lane({ ...common, height: 220, label: "Sandboxes that run, and that start or wait, on average", areas: [{ tone: "running", points: pick((p) => p.running) }, { tone: "warm", points: pick((p) => p.warm) }], bands: step > 3600 ? [{ tone: "running", held: true, points: pick((p) => p.runningPeak) }] : [] }),
    h("div", { class: "lane-head" }, h("h2", {}, "Tasks that ended"), keys([["queued", `in ${step === 3600 || step === 86400 ? "each " : ""}${each}`]])),
    lane({ ...common, height: 90, label: "Tasks that ended", areas: [{ tone: "queued", points: pick((p) => p.ended) }] }),
    h("div", { class: "lane-head" }, h("h2", {}, "Nodes"), keys([["node", "on average"], ["node", "most at once", "pale"]])),
    lane({ ...common, height: 106, bottom: 20, label: "Nodes", areas: [{ tone: "node", points: pick((p) => p.nodes) }], bands: [{ tone: "node", held: true, points: pick((p) => p.nodesPeak) }] }),
  ];
}

/** pastSums is a long time in a few numbers. */
export function pastSums(points) {
  const known = points.reduce((n, p) => n + p.knownHours, 0);
  if (!known) return null;
  const sum = (f) => points.reduce((n, p) => n + f(p), 0);
  const busiest = points.reduce((a, b) => (b.runningPeak > a.runningPeak ? b : a));
  const rows = [
    ["Tasks ended", count(sum((p) => p.ended))],
    ["Running, on average", number(sum((p) => p.running * p.knownHours) / known)],
    [`Busiest hour, ${dayOf(busiest.t)}`, number(busiest.runningPeak)],
    ["Nodes, on average", number(sum((p) => p.nodes * p.knownHours) / known)],
    ["Most nodes at once", count(Math.max(...points.map((p) => p.nodesPeak)))],
    ["Bill", money(sum((p) => p.microUSD))],
  ];
  return h("dl", { class: "numbers past-sums" }, rows.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))));
}

/** pastNote says where a long picture comes from, and what it cannot have. */
export function pastNote(past, journal) {
  const parts = [`From the ledger: means over ${stepName(past.stepSeconds) === "day" ? "days" : stepName(past.stepSeconds)} of UTC, kept for 400 days`];
  if (past.began) parts.push(`on record since ${dayOf(Date.parse(past.began))}`);
  return h("p", { class: "muted" }, `${parts.join("; ")}. A shaded time is one of which nothing is on record, not one without work. Demand, waits, what was wanted, floors, forecast and single events are not kept that long`, journal ? `. The journal that has them begins ${minute(journal)}: zoom in to what came after.` : ".");
}

/** beforeNote says so of the part of a picture that is older than the journal. */
export function beforeNote(past, journal) {
  return h("p", { class: "muted" }, journal ? `Before ${minute(journal)}, when the journal of decisions begins, ` : "No decision of this time is on record any more: ", `means over ${stepName(past.stepSeconds) === "hour" ? "hours" : stepName(past.stepSeconds)} from the ledger, warm and starting sandboxes as one. Demand, what was wanted, floors and events are not kept that long.`);
}
