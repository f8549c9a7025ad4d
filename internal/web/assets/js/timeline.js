// Demand, sandboxes and nodes over time, with what was decided and why.

import { h } from "./dom.js";
import { ask, every, live, scalingSince } from "./api.js";
import { capital, clock, count, moment, span, words } from "./format.js";
import { chips, empty, title } from "./parts.js";
import { lane } from "./chart.js";
import { eventRow, sign, subject } from "./events.js";
import { askPast, beforeNote, holesIn, journalBegan, longest, pastLanes, pastNote, pastPoints, pastReadout, pastSums } from "./past.js";

const ranges = [["900", "15 min"], ["3600", "1 h"], ["21600", "6 h"], ["86400", "24 h"], ["604800", "7 d"], ["2592000", "30 d"], ["7776000", "90 d"], ["31536000", "1 y"]];

export function legend() {
  const items = [["demand", "demand"], ["running", "running"], ["starting", "starting"], ["warm", "warm"]];
  return h("ul", { class: "keys" }, items.map(([tone, name]) => h("li", { class: `tone-${tone}` }, h("i", { class: tone === "demand" ? "dash" : "", "aria-hidden": "true" }), name)));
}

const left = 36;
const right = 8;
const hour = 3600e3;

export function start({ redraw }) {
  let range = "900";
  let zoom = null; // [from, to]
  let series = null;
  let events = [];
  let cursor = null;
  let drag = null;
  let chosen = null;
  let why = null;
  let problem = "";
  let width = 1000;

  let ahead = null; // what is expected
  let past = null; // of the ledger: instead of the series, or before it
  let journal = null; // when the oldest decision was made
  let far = false; // the ledger alone is drawn
  let asked = 0; // of what is loaded, the newest question counts
  // A fourth of the time on top is what is expected, where that says something.
  const foresees = () => !zoom && Number(range) >= 3600 && Number(range) <= 604800;
  const bounds = () => (zoom ? zoom : [Date.now() - Number(range) * 1000, Date.now()]);
  const load = async (signal) => {
    const [from, to] = bounds();
    const turn = ++asked;
    const at = `since=${new Date(from).toISOString()}&until=${new Date(to).toISOString()}`;
    const step = Math.max(1, Math.ceil((to - from) / 1000 / 400));
    try {
      if (to - from > longest) {
        const got = await Promise.all([askPast(from, to, signal), journalBegan(signal)]);
        if (turn !== asked) return;
        [past, journal] = got;
        [far, series, ahead, events, problem] = [true, { points: [], stepSeconds: 0 }, null, [], ""];
        return redraw();
      }
      const horizon = `${Math.max(1, Math.round(Number(range) / 240))}m`;
      const [s, e, f] = await Promise.all([ask(`v1/fleet/series?${at}&step=${step}s`, { signal }), scalingSince(new Date(from), signal), foresees() ? ask(`v1/forecast?horizon=${horizon}`, { signal }).catch(() => null) : null]);
      const first = s.points.length ? Date.parse(s.points[0].at) : null;
      const missing = (first ?? to) - from > Math.max(hour, s.stepSeconds * 2000) || (first === null && from < Date.now() - hour);
      const before = missing ? await askPast(from, first ?? to, signal) : null;
      if (turn !== asked) return;
      [far, past, journal, series] = [false, before, first, s];
      ahead = f?.steps?.length ? f : null;
      events = e.filter((x) => Date.parse(x.at) <= to);
      problem = "";
    } catch (err) {
      if (err.name === "AbortError") throw err;
      if (turn !== asked) return;
      problem = err.message;
    }
    redraw();
  };
  const stop = every(() => (zoom ? 60000 : Math.max(3000, Number(range) * 2)), load);

  const choose = async (e) => {
    chosen = e;
    why = null;
    redraw();
    try {
      why = await ask(`v1/events/${e.seq}/explain`);
    } catch (err) {
      why = { summary: err.message };
    }
    redraw();
  };

  const seen = () => {
    const [from, to] = bounds();
    return [from, ahead && foresees() ? to + (to - from) / 4 : to];
  };
  const timeAt = (e) => {
    const [from, to] = seen();
    const box = e.currentTarget.getBoundingClientRect();
    const share = (e.clientX - box.left - left) / (box.width - left - right);
    return from + Math.max(0, Math.min(1, share)) * (to - from);
  };

  const draw = () => {
    const [from, to] = seen();
    const [, now] = bounds();
    const whole = to - from;
    const span0 = [
      title(
        "Timeline",
        h("div", { class: "actions" }, zoom ? h("button", { class: "button", onclick: () => ((zoom = null), load()) }, "Zoom out") : null),
        chips("Range", ranges.map(([v, t]) => [v, t]), zoom ? "" : range, (v) => {
          range = v;
          zoom = null;
          series = null;
          load();
        }),
      ),
    ];
    if (!series) return [span0, problem ? h("p", { class: "problem", role: "alert" }, problem) : h("div", { class: "loading" })];
    const told = series.points.map((p) => ({ ...p, t: Date.parse(p.at), end: now }));
    const points = [...pastPoints(past, told[0]?.t ?? now), ...told];
    const gap = Math.max(95e3, series.stepSeconds * 1500);
    const most = live.spec?.spec.capacity?.sandboxes?.max;
    const common = { width, from, to, gap, left, cursor };
    const holes = past ? holesIn(points.filter((p) => p.past), from, told[0]?.t ?? now) : [];
    const expected = ahead && foresees() ? ahead.steps.map((x) => ({ t: Math.max(now, Date.parse(x.from)), end: Math.min(to, Date.parse(x.from) + ahead.stepSeconds * 1000), lo: x.demand.p10, hi: x.demand.p90, v: x.demand.p50 })).filter((x) => x.t < to && x.end > now) : [];
    const at = cursor === null || cursor > now ? null : points.findLast((p) => p.t <= cursor) || null;
    return [
      span0,
      problem ? h("p", { class: "problem", role: "alert" }, problem) : null,
      h(
        "div",
        {
          key: "lanes",
          class: "lanes",
          ref: (el) =>
            new ResizeObserver(() => {
              if (!el.clientWidth || el.clientWidth === width) return; // it left the page, or is as it was
              width = el.clientWidth;
              redraw();
            }).observe(el),
          onpointermove: (e) => {
            cursor = timeAt(e);
            if (drag) drag.to = cursor;
            redraw();
          },
          onpointerleave: () => {
            cursor = null;
            drag = null;
            redraw();
          },
          onpointerdown: (e) => {
            if (e.target.closest(".mark")) return;
            const t = timeAt(e);
            drag = { from: t, to: t };
          },
          onpointerup: () => {
            if (drag && Math.abs(drag.to - drag.from) > whole / 100) {
              zoom = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
              load();
            }
            drag = null;
            redraw();
          },
        },
        far ? pastLanes(points, past?.stepSeconds, common) : lanes({ points, told, expected, most: past ? null : most, common: { ...common, holes } }, () => marks(events, from, to, width, chosen, choose)),
        drag && Math.abs(drag.to - drag.from) > whole / 200 ? h("div", { class: "brush", style: brush(drag, from, to, width) }) : null,
        cursor > now && expected.length ? foreseen(expected, cursor, whole) : at ? (at.past ? pastReadout(at) : readout(at, cursor, whole)) : h("div", { class: "readout muted" }, far ? "Point at the chart for values, drag to zoom." : "Point at the chart for values, drag to zoom, choose a mark for its decision."),
      ),
      past && (far ? [pastSums(points), pastNote(past, journal)] : beforeNote(past, journal)),
      far ? null : h("div", { class: "split" }, h("section", { class: "recent" }, h("h2", {}, "Scaling events"), events.length ? h("ol", { class: "events tall", "aria-label": "Scaling events, newest first" }, events.slice(-200).reverse().map((e) => eventRow(e, { chosen: chosen?.seq === e.seq, choose, whole: true }))) : empty("Nothing was scaled in this time.")), decision(chosen, why)),
    ];
  };
  return { title: () => "Timeline", stop, draw };
}

/** lanes draws what the journal tells; points also hold what the ledger knows of before. */
function lanes({ points, told, expected, most, common }, marked) {
  const pick = (f, list = points) => list.map((p) => ({ t: p.t, v: f(p), gap: p.gap, end: p.end }));
  const floors = told.some((p) => p.floor > 0);
  return [
    h("div", { class: "lane-head" }, h("h2", {}, "Demand and sandboxes"), legend(), expected.length ? h("span", { class: "muted" }, `the band is what is expected, 8 of 10 times`) : null),
    points.length
      ? lane({ ...common, height: 220, label: "Demand beside running, starting and warm sandboxes", limit: most ?? null, areas: [{ tone: "running", points: pick((p) => p.running) }, { tone: "starting", points: pick((p) => p.starting) }, { tone: "warm", points: pick((p) => p.ready) }], bands: [{ tone: "demand", points: expected }], lines: [{ tone: "demand", points: pick((p) => p.backlog + p.inFlight, told) }, { tone: "target", points: expected }] })
      : empty("No decision was journaled in this time."),
    marked(),
    h("div", { class: "lane-head" }, h("h2", {}, "Warm"), h("ul", { class: "keys" }, h("li", { class: "tone-warm" }, h("i", { "aria-hidden": "true" }), "ready"), h("li", { class: "tone-target" }, h("i", { class: "dash", "aria-hidden": "true" }), "wanted beyond demand"), floors ? h("li", { class: "tone-bad" }, h("i", { class: "dash", "aria-hidden": "true" }), "floor of the calendar") : null)),
    points.length ? lane({ ...common, height: 90, label: "Warm sandboxes", areas: [{ tone: "warm", points: pick((p) => p.ready) }], lines: [{ tone: "target", points: pick((p) => p.warmTarget, told) }, ...(floors ? [{ tone: "bad", points: pick((p) => p.floor, told) }] : [])] }) : null,
    h("div", { class: "lane-head" }, h("h2", {}, "Nodes")),
    points.length ? lane({ ...common, height: 86, bottom: 20, label: "Nodes", areas: [{ tone: "node", points: pick((p) => p.nodes) }], lines: [{ tone: "target", points: pick((p) => p.nodesDesired, told) }] }) : null,
  ];
}

function brush(d, from, to, width) {
  const x = (t) => left + ((t - from) / (to - from)) * (width - left - right);
  const a = Math.min(d.from, d.to);
  const b = Math.max(d.from, d.to);
  return { left: `${x(a)}px`, width: `${x(b) - x(a)}px` };
}

function readout(p, cursor, whole) {
  const row = (tone, name, v) => h("span", { class: `tone-${tone}` }, h("i", { "aria-hidden": "true" }), name, " ", h("b", {}, count(v)));
  return h("div", { class: "readout" }, h("time", {}, whole > 86400e3 ? moment(cursor) : clock(cursor)), row("demand", "demand", p.backlog + p.inFlight), row("running", "running", p.running), row("starting", "starting", p.starting), row("warm", "warm", p.ready), row("node", "nodes", p.nodes), h("span", { class: "muted" }, "want ", h("b", {}, count(p.desired))));
}

function foreseen(expected, cursor, whole) {
  const x = expected.findLast((p) => p.t <= cursor) || expected[0];
  return h("div", { class: "readout" }, h("time", {}, whole > 86400e3 ? moment(cursor) : clock(cursor)), h("span", {}, "expected demand ", h("b", {}, `${count(Math.round(x.lo))} to ${count(Math.round(x.hi))}`), `, half of the times up to ${count(Math.round(x.v))}`));
}

/** marks are the scaling events below the chart. Those too close for a finger share one place. */
function marks(events, from, to, width, chosen, choose) {
  const x = (t) => left + ((t - from) / (to - from)) * (width - left - right);
  const places = new Map();
  for (const e of events) {
    const t = Date.parse(e.at);
    if (t < from || t > to) continue;
    const at = Math.round(x(t) / 9) * 9;
    const list = places.get(at) || [];
    list.push(e);
    places.set(at, list);
  }
  return h(
    "div",
    { class: "marks", role: "group", "aria-label": "Scaling events" },
    [...places].map(([at, list]) => {
      const e = list.find((e) => sign(e) === "bad") || list.at(-1);
      const open = chosen && list.some((x) => x.seq === chosen.seq);
      return h("button", { key: at, class: `mark sign-${sign(e)} ${open ? "open" : ""}`, tabindex: "-1", style: { left: `${at}px` }, title: `${clock(e.at)} ${words(e.kind)} ${subject(e)}${list.length > 1 ? `, and ${list.length - 1} more` : ""}`, "aria-label": `${clock(e.at)} ${words(e.kind)} ${subject(e)}`, onclick: () => choose(e) });
    }),
  );
}

function decision(e, why) {
  if (!e) return h("section", {}, h("h2", {}, "Decision"), empty("No event is chosen.", "Choose one to see what was observed, what was decided, and what bound."));
  const d = why?.decision;
  const numbers = Object.entries(e.numbers || {});
  return h(
    "section",
    { class: "decision", "aria-live": "polite" },
    h("div", { class: "row-head" }, h("h2", {}, `${capital(words(e.kind))}: ${subject(e)}`), h("span", { class: "muted" }, moment(e.at))),
    h("p", { class: "sentence" }, e.reason),
    why?.summary && !why.summary.includes(e.reason) ? h("p", { class: "muted" }, why.summary) : null,
    e.bound ? h("p", {}, "Bound by ", h("span", { class: "tag" }, e.bound)) : null,
    numbers.length ? h("dl", { class: "numbers" }, numbers.map(([k, v]) => h("div", {}, h("dt", {}, numberName(k)), h("dd", {}, /Seconds$/.test(k) ? span(v) : String(+v.toFixed(3)))))) : null,
    !why ? h("div", { class: "loading" }) : null,
    why?.otherwise?.length ? otherwise(why.otherwise) : null,
    d ? table(d) : null,
    why?.steps?.length > 1 ? [h("h3", {}, "What happened"), h("ol", { class: "events" }, why.steps.map((s) => eventRow(s)))] : null,
  );
}

const numberName = (k) => k.replace(/Seconds$/, "").replace(/([A-Z])/g, (c) => ` ${c.toLowerCase()}`);

/** otherwise is the same decision made again without bounds. */
function otherwise(list) {
  return [
    h("h3", {}, "Without the bound"),
    h("ul", { class: "otherwise" }, list.map((o) => h("li", {}, h("b", {}, o.pool || "nodes"), o.without === o.desired ? ` starts ${count(o.withoutStarted)} rather than ${count(o.started)}` : ` wants ${count(o.without)} rather than ${count(o.desired)}`, h("span", { class: "event-why" }, o.reason)))),
  ];
}

/** table is a decision: per pool what was there and what is wanted, then what is done. */
function table(d) {
  const o = d.observation || {};
  const p = d.plan || {};
  const demand = (key) => (o.queues || []).flatMap((q) => q.pools || []).filter((x) => x.pool === key).reduce((n, x) => n + x.backlog + x.inFlight, 0);
  return [
    h("h3", {}, `Decision ${d.seq}`),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Decision" },
      h(
        "table",
        { class: "grid" },
        h("thead", {}, h("tr", {}, ["Pool", "Demand", "Ready", "Starting", "Running", "Want", "Warm"].map((t, i) => h("th", { class: i ? "num" : "", scope: "col" }, t)))),
        h("tbody", {}, (p.pools || []).map((t) => {
          const was = (o.pools || []).find((x) => x.key === t.pool) || {};
          return h("tr", {}, h("th", { scope: "row" }, t.pool), [demand(t.pool), was.ready || 0, was.starting || 0, was.running || 0, t.desired, t.warm].map((v) => h("td", { class: v ? "num" : "num zero" }, String(v))));
        })),
      ),
    ),
    h("ul", { class: "files" }, (p.actions || []).slice(0, 20).map((a) => h("li", {}, h("span", {}, `${words(a.kind)} ${a.n || ""} ${a.pool || a.node || a.sandbox || ""}`), h("span", { class: "muted" }, a.node && a.pool ? `on ${a.node}` : "")))),
  ];
}
