// The fleet as one picture: backlog, consumers, sandboxes, nodes.

import { h } from "./dom.js";
import { ask, every, live, scaling } from "./api.js";
import { bytes, cores, count, plural, since, span, usd } from "./format.js";
import { empty, meter, state } from "./parts.js";
import { eventRow } from "./events.js";
import { lane } from "./chart.js";
import { legend } from "./timeline.js";

export function start({ redraw }) {
  let series = null;
  const stop = every(
    () => 5000,
    async (signal) => {
      series = await ask("v1/fleet/series?since=15m&step=4s", { signal });
      redraw();
    },
  );
  return { title: () => "Fleet", stop, draw: () => page(series) };
}

function page(series) {
  const f = live.fleet;
  if (!f) return h("div", { class: "loading" });
  const sum = (k) => f.pools.reduce((n, p) => n + p[k], 0);
  return [
    verdict(f),
    h("section", { class: "flow", "aria-label": "The layers of the fleet" }, backlog(f), consumers(f), sandboxes(f, sum), nodes(f)),
    scales(f),
    h(
      "div",
      { class: "split" },
      h("div", { class: "sections" }, h("section", {}, h("h2", {}, "Pools"), pools(f)), h("section", { class: "strip-part" }, h("div", { class: "row-head" }, h("h2", {}, "Last 15 minutes"), legend()), strip(series, f, sum))),
      recent(),
    ),
  ];
}

/** verdict is whether the objective is met, and what binds, in a sentence. */
function verdict(f) {
  const o = f.start;
  const late = o.objectiveSeconds > 0 && o.p99Seconds > o.objectiveSeconds;
  const trouble = f.signalsError || f.pools.find((p) => p.breaker.open) || late;
  const some = o.p99Seconds > 0;
  const bound = f.pools.find((p) => p.bound)?.bound;
  const text = f.signalsError
    ? "The queue cannot be read"
    : late
      ? `Late: p99 start ${span(o.p99Seconds)}, objective ${span(o.objectiveSeconds)}`
      : some
        ? `Objective met: p99 start ${span(o.p99Seconds)} of ${span(o.objectiveSeconds)}`
        : `Objective: p99 start within ${span(o.objectiveSeconds)}`;
  return h(
    "header",
    { class: "verdict" },
    h("h1", { class: trouble ? "bad" : some ? "good" : "" }, h("i", { "aria-hidden": "true" }), text),
    h("p", { class: "sentence" }, f.signalsError || f.sentence, bound && !f.sentence.includes(bound) ? ` (bound: ${bound})` : ""),
  );
}

const column = (name, n, unit, body, foot) =>
  h("div", { class: "col" }, h("h2", {}, name), h("div", { class: "big" }, n, unit ? h("span", { class: "unit" }, unit) : null), h("div", { class: "col-body" }, body), h("div", { class: "col-foot" }, foot));

/** cells draws one square for each thing, or a bar where there are too many to count. */
function cells(groups) {
  const all = groups.reduce((n, g) => n + g.n, 0);
  const label = groups.filter((g) => g.n).map((g) => `${g.n} ${g.name}`).join(", ");
  if (all > 240) {
    return h("div", { class: "bar", role: "img", "aria-label": label }, groups.filter((g) => g.n).map((g) => h("i", { class: `tone-${g.tone}`, style: { "flex-grow": g.n } })));
  }
  const out = [];
  for (const g of groups) for (let i = 0; i < g.n; i++) out.push(h("i", { class: `tone-${g.tone}` }));
  return h("div", { class: "cells", role: "img", "aria-label": label || "none" }, out);
}

function backlog(f) {
  return column(
    "Backlog",
    count(f.backlog),
    f.backlog === 1 ? "task waits" : "tasks wait",
    cells([{ name: "waiting", n: f.backlog, tone: "queued" }]),
    [
      h("span", {}, f.backlog ? ["oldest ", h("b", {}, span(f.oldestAgeSeconds))] : "nobody waits"),
      f.delayed ? h("span", {}, `${count(f.delayed)} not due yet`) : null,
      f.dead ? h("span", { class: "bad" }, `${count(f.dead)} dead letters`) : null,
    ],
  );
}

function consumers(f) {
  const free = Math.max(0, f.consumers - f.consumersBusy);
  return column(
    "Consumers",
    count(f.consumersBusy),
    `of ${count(f.consumers)} busy`,
    cells([
      { name: "busy", n: f.consumersBusy, tone: "running" },
      { name: "free", n: free, tone: "slot" },
    ]),
    [h("span", {}, [h("b", {}, rate(f)), " tasks arrive"])],
  );
}

function rate(f) {
  const perMinute = f.pools.reduce((n, p) => n + p.arrivalRate, 0) * 60;
  return perMinute >= 600 ? `${(perMinute / 60).toFixed(0)}/s` : `${perMinute < 10 ? perMinute.toFixed(1) : Math.round(perMinute)}/min`;
}

function sandboxes(f, sum) {
  const parts = [
    { name: "running", n: sum("running"), tone: "running" },
    { name: "warm", n: sum("ready"), tone: "warm" },
    { name: "starting", n: sum("starting"), tone: "starting" },
    { name: "draining", n: sum("draining"), tone: "draining" },
  ];
  const all = parts.reduce((n, p) => n + p.n, 0);
  const most = live.spec?.spec.capacity?.sandboxes?.max;
  const left = f.pools.map((p) => p.timeToEmptySeconds).filter((s) => s !== undefined && s !== null);
  const soonest = left.length ? Math.min(...left) : null;
  return column(
    "Sandboxes",
    count(all),
    most ? `of at most ${count(most)}` : "",
    [cells(parts.concat(most && most - all <= 240 && most <= 240 ? [{ name: "not used", n: Math.max(0, most - all), tone: "slot" }] : [])), h("ul", { class: "keys" }, parts.map((p) => h("li", { class: `tone-${p.tone}` }, h("i", { "aria-hidden": "true" }), h("b", {}, count(p.n)), ` ${p.name}`)))],
    [h("span", {}, soonest === null ? "warm pool is not being emptied" : soonest > 0 ? ["warm pool empty in ", h("b", {}, span(soonest))] : h("b", {}, "warm pool is empty"))],
  );
}

function nodes(f) {
  const there = f.nodes.filter((n) => n.state !== "gone");
  const booting = there.filter((n) => n.state === "booting").length;
  return column(
    "Nodes",
    count(there.length),
    booting ? `${booting} booting` : there.length === 1 ? "node" : "nodes",
    h(
      "ul",
      { class: "nodes" },
      there.slice(0, 12).map((n) => nodeRow(n)),
      there.length > 12 ? h("li", { class: "muted" }, `and ${plural(there.length - 12, "more node")}`) : null,
    ),
    [h("span", {}, f.nodeHourUSD ? [h("b", {}, `${usd(there.length * f.nodeHourUSD)}`), " an hour now"] : "no price is set"), f.nodesError ? h("span", { class: "bad" }, f.nodesError) : null],
  );
}

function nodeRow(n) {
  // A host takes more sandboxes than its processors and memory can bear.
  const slots = n.slots < 1000 ? `${n.used} of ${n.slots} slots` : plural(n.used, "sandbox", "sandboxes");
  return h(
    "li",
    { key: n.id, title: n.message || n.id },
    h("div", { class: "node-head" }, h("span", { class: "node-name" }, n.id), n.state === "ready" ? h("span", { class: "muted" }, slots) : state(n.state)),
    n.slots < 1000 ? meter(n.used, n.slots) : null,
    h("div", { class: "node-line" }, h("span", {}, "CPU"), meter(n.usedMilliCPU, n.milliCPU), h("span", { class: "muted" }, `${cores(n.usedMilliCPU / 1000)} of ${cores(n.milliCPU / 1000)}`)),
    h("div", { class: "node-line" }, h("span", {}, "Memory"), meter(n.usedMemory, n.memoryBytes), h("span", { class: "muted" }, `${bytes(n.usedMemory)} of ${bytes(n.memoryBytes)}`)),
  );
}

/** scales show how long tasks waited, and how long scaling out took, each beside its bound. */
function scales(f) {
  const o = f.start;
  const r = f.reaction;
  const promise = r.withinSeconds;
  return h(
    "div",
    { class: "scales" },
    scale({
      title: "Submitted to first instruction, last hour", from: o.p50Seconds, to: o.p99Seconds, limit: o.objectiveSeconds,
      rows: [["p50", o.p50Seconds ? span(o.p50Seconds) : "–"], ["p99", o.p99Seconds ? span(o.p99Seconds) : "–", o.objectiveSeconds > 0 && o.p99Seconds > o.objectiveSeconds], ["objective", span(o.objectiveSeconds)]],
    }),
    scale({
      title: "Reaction: no sandbox free to first instruction", from: r.p50Seconds, to: r.maxSeconds, limit: promise,
      rows: r.samples ? [["p50", span(r.p50Seconds)], ["p95", span(r.p95Seconds)], ["worst", span(r.maxSeconds), r.maxSeconds > promise], ["promised", span(promise)]] : [["not needed yet", ""], ["promised", span(promise)]],
      note: r.samples ? [`${plural(r.samples, "time")} lately, `, h("a", { href: "#/nodes" }, "stage by stage")] : "every task found a sandbox ready, or none came",
    }),
  );
}

/** scale is one span of times on a scale of decades. */
function scale({ title, from, to, limit, rows, note }) {
  const low = -3;
  const high = Math.log10(Math.max(300, to * 1.5));
  const at = (s) => `${Math.max(0, Math.min(100, ((Math.log10(Math.max(s, 1e-3)) - low) / (high - low)) * 100)).toFixed(2)}%`;
  const marks = [[0.001, "1 ms"], [0.01, "10 ms"], [0.1, "100 ms"], [1, "1 s"], [10, "10 s"], [100, "100 s"]];
  const late = limit > 0 && to > limit;
  return h(
    "section",
    { class: "scale", "aria-label": `${title}: ${rows.map(([k, v]) => `${k} ${v}`).join(", ")}` },
    h("div", { class: "row-head" }, h("h2", {}, title), h("ul", { class: "keys" }, rows.map(([k, v, bad]) => h("li", { class: bad ? "bad" : "" }, `${k} `, v ? h("b", {}, v) : null)))),
    h(
      "div",
      { class: "scale-line", "aria-hidden": "true" },
      marks.map(([s, text]) => h("span", { class: "scale-tick", style: { left: at(s) } }, text)),
      to ? h("i", { class: `scale-span ${late ? "late" : ""}`, style: { left: at(from), width: `calc(${at(to)} - ${at(from)})` } }) : null,
      from ? h("i", { class: "scale-dot", style: { left: at(from) } }) : null,
      to ? h("i", { class: `scale-dot hollow ${late ? "late" : ""}`, style: { left: at(to) } }) : null,
      limit ? h("i", { class: "scale-limit", style: { left: at(limit) } }) : null,
    ),
    note ? h("p", { class: "scale-note muted" }, note) : null,
  );
}

function pools(f) {
  if (!f.pools.length) return empty("No pool: the fleet has no template.");
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Pools" },
    h(
      "table",
      { class: "grid" },
      h("thead", {}, h("tr", {}, ["Pool", "Waiting", "Oldest", "Arrive", "Warm", "Starting", "Running", "Draining", "Want", "Lead p95", "Empty in"].map((t, i) => h("th", { class: i ? "num" : "", scope: "col" }, t)))),
      h(
        "tbody",
        {},
        f.pools.map((p) => [
          h(
            "tr",
            { key: p.pool, class: "first" },
            h("th", { scope: "row" }, p.pool, p.breaker.open ? h("span", { class: "tag bad" }, "breaker open") : null),
            [count(p.backlog), p.backlog ? span(p.oldestAgeSeconds) : "–", p.arrivalRate ? `${(p.arrivalRate * 60).toFixed(1)}/min` : "–", p.ready || p.warmTarget ? `${p.ready} of ${p.warmTarget}` : 0, p.starting, p.running, p.draining, p.desired, p.startLead.samples ? span(p.startLead.p95Seconds) : "–", p.timeToEmptySeconds === undefined || p.timeToEmptySeconds === null ? "–" : span(p.timeToEmptySeconds)].map((v) =>
              h("td", { class: v === 0 || v === "0" || v === "–" ? "num zero" : "num" }, String(v)),
            ),
          ),
          h("tr", { key: `${p.pool} why`, class: "why" }, h("td", { colspan: "11" }, h("div", {}, p.breaker.open ? `${p.breaker.reason} ` : "", p.reason, p.bound && !p.reason.includes(p.bound) ? ` (bound: ${p.bound})` : ""))),
        ]),
      ),
    ),
  );
}

function recent() {
  const list = live.events.filter(scaling).slice(-40).reverse();
  return h(
    "section",
    { class: "recent" },
    h("div", { class: "row-head" }, h("h2", {}, "Scaling"), h("a", { href: "#/timeline" }, "Timeline")),
    list.length ? h("ol", { class: "events", tabindex: "0", "aria-label": "Scaling events, newest first" }, list.map((e) => eventRow(e))) : empty("Nothing was scaled yet."),
  );
}

function strip(series, f, sum) {
  if (!series) return h("div", { class: "strip" });
  const to = Math.max(Date.parse(series.until), Date.parse(f.at));
  const from = to - 900e3;
  // The journal has a decision that changes nothing once a minute: what is there now ends the picture.
  const now = { at: f.at, backlog: f.backlog, inFlight: f.inFlight, running: sum("running"), starting: sum("starting"), ready: sum("ready") };
  const points = [...series.points.filter((p) => Date.parse(p.at) < Date.parse(f.at)), now];
  const width = Math.min(1600, Math.max(320, document.querySelector(".strip-part")?.clientWidth || innerWidth - 32));
  const pick = (k) => points.map((p) => ({ t: Date.parse(p.at), v: p[k], end: to }));
  const demand = points.map((p) => ({ t: Date.parse(p.at), v: p.backlog + p.inFlight, end: to }));
  return h(
    "div",
    { class: "strip" },
    series.points.length || f.pools.length
      ? lane({ width, height: 190, from, to, gap: 95e3, bottom: 20, label: "Demand and sandboxes in the last 15 minutes", areas: [{ tone: "running", points: pick("running") }, { tone: "starting", points: pick("starting") }, { tone: "warm", points: pick("ready") }], lines: [{ tone: "demand", points: demand }] })
      : empty("No decision was journaled yet."),
  );
}
