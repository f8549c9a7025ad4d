// How long it takes to react, stage by stage, and what holds starts back.

import { h } from "./dom.js";
import { clock, count, has, moment, plural, since, span } from "./format.js";
import { chips, empty } from "./parts.js";

// In order of time. The last two are sums.
const all = [
  ["detect", "queued", "Detect", "a task is due and finds no sandbox, until the decision that sees it"],
  ["decide", "target", "Decide", "until that decision is journaled and applied"],
  ["node", "node", "Node", "a node is asked for, until it is ready"],
  ["room", "node", "Room", "until there is room for the sandbox: a node has to come, or a bound holds it back"],
  ["image", "draining", "Image", "a sandbox is asked for, until its image is there"],
  ["turn", "quiet", "Turn", "until it is its turn among the starts of its machine"],
  ["start", "starting", "Start", "until its runner is there"],
  ["prepare", "warm", "Prepare", "until the template's prepare commands are done"],
  ["sandbox", "starting", "Sandbox", "image to prepare together, from asked for to ready"],
  ["claim", "running", "Claim", "a task is leased, until its first instruction"],
  ["react", "demand", "Whole reaction", "a task finds no sandbox, until the first such task runs"],
];
const known = new Map(all.map((x) => [x[0], x]));
const mostReactions = 12;

/** breakers are the templates whose starts are held back, or fail. */
export function breakers(f) {
  const rows = f.pools.filter((p) => p.breaker.open || p.breaker.failures > 0);
  return h(
    "section",
    {},
    h("div", { class: "row-head" }, h("h2", {}, "Breakers"), rows.length ? null : h("span", { class: "muted" }, `closed: no start of ${plural(f.pools.length, "pool")} has failed of late`)),
    rows.length
      ? h("ul", { class: "breakers" }, rows.map((p) => h("li", { key: p.pool, class: p.breaker.open ? "open" : "" }, h("b", {}, p.pool), h("span", { class: p.breaker.open ? "bad" : "muted" }, p.breaker.open ? "open: starts are held back" : "closed"), h("span", {}, `${plural(p.breaker.failures || 0, "failure")} in a row`, has(p.breaker.retryAt) && Date.parse(p.breaker.retryAt) > Date.now() ? `, next try in ${span((Date.parse(p.breaker.retryAt) - Date.now()) / 1000)}` : ""), p.breaker.reason ? h("span", { class: "sentence" }, p.breaker.reason) : null)))
      : null,
  );
}

/** reactions are the newest times that tasks found no sandbox, as bars beside the bound. */
export function reactions(s) {
  const l = s.lead;
  if (!l) return null;
  const rows = l.reactions.slice(0, mostReactions);
  const most = Math.max(l.withinSeconds, ...rows.map((r) => r.totalSeconds)) * 1.02;
  const at = (v) => `${((v / most) * 100).toFixed(2)}%`;
  const used = all.filter(([k]) => rows.some((r) => r.parts.some((p) => p.stage === k)));
  return h(
    "section",
    { "aria-label": "Reactions" },
    h("div", { class: "row-head" }, h("h2", {}, "Reactions, stage by stage"), h("ul", { class: "keys" }, used.map(([, tone, name, what]) => h("li", { class: `tone-${tone}`, title: what }, h("i", { "aria-hidden": "true" }), name.toLowerCase())))),
    rows.length
      ? [
          h("p", { class: "muted" }, `From a task that finds no sandbox to the first such task's first instruction; the line is the bound of ${span(l.withinSeconds)}.`),
          h(
            "ol",
            { class: "reactions" },
            rows.map((r) =>
              h(
                "li",
                { key: `${r.pool} ${r.due}` },
                h("time", { datetime: r.due }, since(r.due) > 86400 ? moment(r.due) : clock(r.due)),
                h("span", { class: "node-name" }, r.pool),
                h(
                  "span",
                  { class: "reaction-bar", role: "img", "aria-label": r.parts.map((p) => `${p.stage} ${span(p.seconds)}`).join(", ") },
                  r.parts.map((p) => h("i", { class: `tone-${known.get(p.stage)?.[1] || "quiet"}`, style: { width: at(p.seconds) }, title: `${known.get(p.stage)?.[2] || p.stage} ${span(p.seconds)}` })),
                  h("i", { class: "bound", style: { left: at(l.withinSeconds) } }),
                ),
                h("b", { class: r.totalSeconds > l.withinSeconds ? "bad" : "" }, span(r.totalSeconds)),
                h("span", { class: "muted" }, r.over ? longest(r) : "goes on"),
              ),
            ),
          ),
        ]
      : empty("No task has found the stock empty.", `Since ${moment(l.since)} every task found a sandbox ready, or none came.`),
  );
}

function longest(r) {
  const p = r.parts.reduce((a, b) => (b.seconds > a.seconds ? b : a), r.parts[0]);
  return p ? `mostly ${(known.get(p.stage)?.[2] || p.stage).toLowerCase()}` : "";
}

/** stages is the distribution of each, on a scale of decades. */
export function stages(s, redraw) {
  const l = s.lead;
  if (!l) return null;
  const templates = [...new Set(l.stages.map((x) => x.template || ""))].sort();
  if (!templates.includes(s.template)) s.template = "";
  const of = new Map(l.stages.filter((x) => (x.template || "") === s.template).map((x) => [x.stage, x]));
  const rows = all.map((a) => [a, of.get(a[0])]).filter(([, x]) => x);
  const missing = all.filter(([k]) => !of.has(k) && !["node", "room", "prepare"].includes(k)).map(([, , name]) => name.toLowerCase());
  const low = -4;
  const high = Math.log10(Math.max(l.withinSeconds * 2, ...rows.map(([, x]) => x.maxSeconds * 1.2), 1));
  const at = (v) => `${Math.max(0, Math.min(100, ((Math.log10(Math.max(v, 1e-4)) - low) / (high - low)) * 100)).toFixed(2)}%`;
  const ticks = [[0.001, "1 ms"], [0.01, "10 ms"], [0.1, "100 ms"], [1, "1 s"], [10, "10 s"], [100, "100 s"]].filter(([v]) => Math.log10(v) < high);
  return h(
    "section",
    {},
    h("div", { class: "row-head" }, h("h2", {}, "Lead times"), templates.length > 2 ? chips("Template", templates.map((t) => [t, t || "All"]), s.template, (t) => ((s.template = t), redraw())) : null),
    rows.length
      ? h(
          "div",
          { class: "scroll", tabindex: "0", role: "region", "aria-label": "Lead times" },
          h(
            "table",
            { class: "grid leads" },
            h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Stage"), h("td", { class: "lead-scale" }, h("span", { class: "lead-ticks", "aria-hidden": "true" }, ticks.map(([v, t]) => h("span", { style: { left: at(v) } }, t)))), ["Samples", "p50", "p95", "p99", "Longest", "Newest"].map((t) => h("th", { class: "num", scope: "col" }, t)))),
            h(
              "tbody",
              {},
              rows.map(([[k, tone, name, what], x]) =>
                h(
                  "tr",
                  { key: k, class: k === "react" || k === "sandbox" ? "sum" : "" },
                  h("th", { scope: "row", title: what }, name),
                  h("td", { class: "lead-scale" }, h("span", { class: `lead-line tone-${k === "react" && x.maxSeconds > l.withinSeconds ? "bad" : tone}`, "aria-hidden": "true" }, ticks.map(([v]) => h("i", { class: "tickline", style: { left: at(v) } })), h("i", { class: "reach", style: { left: at(x.p50Seconds), width: `calc(${at(x.p99Seconds)} - ${at(x.p50Seconds)})` } }), h("i", { class: "mid", style: { left: at(x.p50Seconds) } }), h("i", { class: "end", style: { left: at(x.maxSeconds) } }), k === "react" ? h("i", { class: "bound", style: { left: at(l.withinSeconds) } }) : null)),
                  [count(x.samples), span(x.p50Seconds), span(x.p95Seconds), span(x.p99Seconds), span(x.maxSeconds), clock(x.newest)].map((v) => h("td", { class: "num" }, v)),
                ),
              ),
            ),
          ),
        )
      : empty("Nothing was measured yet.", "The first start of a sandbox is the first sample."),
    rows.length && missing.length ? h("p", { class: "muted" }, `Not measured yet, or not told apart here: ${missing.join(", ")}.`) : null,
  );
}
