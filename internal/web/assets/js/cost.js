// What the fleet has cost: the bill, who it is for, what is idle, what is saved.

import { h } from "./dom.js";
import { ask, every, live } from "./api.js";
import { count, has, hours, moment, money, plural, share, words } from "./format.js";
import { chips, empty, facts, meter, title } from "./parts.js";
import { bars, sized } from "./bars.js";

const ranges = [["24h", "24 h"], ["168h", "7 d"], ["720h", "30 d"], ["2160h", "90 d"], ["8760h", "1 year"]];
const splits = [["team", "Team"], ["project", "Project"], ["template", "Template"], ["tenant", "Tenant"], ["task", "Task"], ["node", "Node"]];
const causes = [["warm_pool", "warm", "Warm pool", "sandboxes that start or wait"], ["headroom", "node", "Headroom", "room that no sandbox holds"], ["boot", "starting", "Boot", "nodes that are not ready yet"], ["drain", "draining", "Drain", "room on nodes that take nothing new"], ["system", "queued", "System", "what nodes keep for themselves"], ["minimum", "quiet", "Minimum", "minimum billing beyond a node's life"]];

export function start({ redraw }) {
  const s = { range: "168h", by: "team", off: "20:00-07:00", weekends: true, fixed: "", report: null, series: null, problem: "", wrong: "", none: "", at: -1, size: sized(redraw) };
  const load = async (signal) => {
    if (s.none) return; // nothing is ever charged here
    const since = s.range;
    try {
      const zone = encodeURIComponent(Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC");
      const more = `&offHours=${encodeURIComponent(s.off)}&weekends=${s.weekends}&timezone=${zone}${Number(s.fixed) > 0 ? `&fixed=${Number(s.fixed)}` : ""}`;
      const [report, series] = await Promise.all([ask(`v1/cost?since=${since}&by=${encodeURIComponent(s.by)}&limit=100${more}`, { signal }), ask(`v1/cost/series?since=${since}`, { signal })]);
      if (since === s.range) Object.assign(s, { report, series, problem: "", wrong: "", none: "" });
    } catch (e) {
      if (e.name === "AbortError") throw e;
      if (e.status === 404) s.none = e.message;
      else if (e.status === 422) s.wrong = e.message;
      else s.problem = e.message;
    }
    redraw();
  };
  const set = (change) => {
    Object.assign(s, change);
    redraw();
    load();
  };
  const stop = every(() => 10000, load);
  return { title: () => "Cost", stop, draw: () => page(s, set, redraw) };
}

function page(s, set, redraw) {
  const head = title("Cost", h("div", { class: "actions" }, s.report && s.range.length < 5 && Number(s.range.slice(0, -1)) <= 720 ? h("a", { class: "button", href: `./v1/cost/focus?since=${s.range}`, download: "cost-focus.csv" }, "FOCUS CSV") : null), chips("Range", ranges, s.range, (range) => set({ range, at: -1, by: s.by === "task" && Number(range.slice(0, -1)) > 720 ? "team" : s.by })));
  const problem = s.problem ? h("p", { class: "problem", role: "alert" }, s.problem) : null;
  if (s.none) return [head, empty("Nothing is charged here.", s.none)];
  const r = s.report;
  if (!r) return [head, problem || (s.wrong ? h("p", { class: "problem", role: "alert" }, s.wrong) : h("div", { class: "loading" }))];
  if (!has(r.began)) return [head, problem, empty("Nothing has been charged yet.", "The first charge comes about 15 seconds after the first node.")];
  return [
    head,
    problem,
    unpriced(r),
    h("section", { class: "flow figures", "aria-label": "The bill" }, agentHour(r), bill(r), saving(r), today(r)),
    over(s, r, redraw),
    h("div", { class: "split" }, groups(s, r, set), h("div", { class: "sections" }, idle(r), offHours(s, r, set))),
  ];
}

/** unpriced says that there are no prices, or not for everything. */
function unpriced(r) {
  if (!(r.unpricedNodeHours > 0)) return null;
  const all = r.unpricedNodeHours >= r.nodeHours * 0.9995;
  return h(
    "div",
    { class: "note", role: "note" },
    h("b", {}, all ? "No price is known, so everything counts as $0." : `${hours(r.unpricedNodeHours)} of ${hours(r.nodeHours)} of nodes have no price and count as $0.`),
    " Set ",
    h("code", {}, "spec.cost.nodeHourUSD"),
    ", ",
    h("code", {}, "prices"),
    " or, for this machine, ",
    h("code", {}, "host"),
    all ? "; hours are counted all the same." : ".",
  );
}

const figure = (name, n, unit, body, foot) => h("div", { class: "col" }, h("h2", {}, name), h("div", { class: "big" }, n, unit ? h("span", { class: "unit" }, unit) : null), body ? h("div", { class: "col-body" }, body) : null, h("div", { class: "col-foot" }, foot));

function agentHour(r) {
  const one = r.agentHourMicroUSD;
  return figure("Agent-hour", one === undefined ? "–" : money(one), one === undefined ? "no task had a sandbox" : "", null, [
    h("span", {}, ["of ", h("b", {}, hours(r.busyHours)), " of sandboxes with a task"]),
    r.succeededTaskMicroUSD === undefined ? null : h("span", {}, [h("b", {}, money(r.succeededTaskMicroUSD)), ` for each of ${count(r.succeeded)} that succeeded`]),
  ]);
}

function bill(r) {
  return figure("Bill", money(r.microUSD), "", null, [h("span", {}, [h("b", {}, share(r.idleShare)), " of it idle"]), h("span", {}, [h("b", {}, hours(r.nodeHours)), ` of nodes, at most ${plural(r.peakNodes, "node")} at once`])]);
}

function saving(r) {
  const f = r.fixed.find((x) => x.kind === "same_peak");
  if (!f) return figure("Saved beside a fixed fleet", "–", "", null, h("span", {}, "there was no node"));
  const asked = r.fixed.find((x) => x.kind === "asked");
  return figure("Saved beside a fixed fleet", Math.abs(f.savingShare) < 0.0005 ? "$0" : money(f.savingMicroUSD), f.microUSD ? share(f.savingShare) : "", null, [
    h("span", {}, [plural(f.nodes, "node"), " all the time: ", h("b", {}, money(f.microUSD))]),
    asked ? h("span", {}, [`${count(asked.nodes)}: `, h("b", {}, money(asked.microUSD)), asked.short ? ", too few at the peak" : `, saved ${money(asked.savingMicroUSD)}`]) : null,
  ]);
}

/** today is the day so far beside its bound and what its end is foreseen to be. */
function today(r) {
  const t = r.today;
  if (!t) return figure("Today, UTC", "–", "", null, h("span", {}, "nothing was charged since midnight"));
  const bound = t.budgetMicroUSD || 0;
  const most = Math.max(bound, t.foreseenMicroUSD, t.spentMicroUSD, 1);
  const at = (v) => `${((v / most) * 100).toFixed(1)}%`;
  const above = bound && t.foreseenMicroUSD > bound;
  const hourly = live.spec?.spec.cost?.budget?.perHour;
  return figure(
    "Today, UTC",
    money(t.spentMicroUSD),
    bound ? `of ${money(bound)}` : "no budget is set",
    h("div", { class: "burn", role: "img", "aria-label": `${money(t.spentMicroUSD)} spent, ${money(t.foreseenMicroUSD)} foreseen by midnight${bound ? `, budget ${money(bound)}` : ""}` }, h("i", { class: `ahead ${above ? "over" : ""}`, style: { width: at(t.foreseenMicroUSD) } }), h("i", { class: `spent ${bound && t.spentMicroUSD > bound ? "over" : ""}`, style: { width: at(t.spentMicroUSD) } }), bound ? h("i", { class: "bound", style: { left: at(bound) } }) : null),
    [h("span", { class: above ? "bad" : "" }, [h("b", {}, money(t.foreseenMicroUSD)), " by midnight at this rate", above ? ": above the budget" : ""]), hourly ? h("span", {}, `at most $${hourly} an hour`) : null],
  );
}

function over(s, r, redraw) {
  const series = s.series;
  const step = series.stepSeconds * 1000;
  const to = Date.parse(series.until);
  // Of a young ledger, not all of the time before it is drawn.
  const from = Math.max(Date.parse(series.since), Math.min(Math.floor(Date.parse(r.began) / step) * step, to - 24 * step));
  const points = series.points.map((p) => ({ t: Date.parse(p.at), p, parts: [{ tone: "running", v: p.taskMicroUSD / 1e6 }, ...causes.map(([k, tone]) => ({ tone, v: (p.idle[k] || 0) / 1e6 }))] }));
  const p = points[s.at]?.p;
  const f = r.fixed.find((x) => x.kind === "same_peak");
  const known = (Math.min(Date.parse(r.chargedTo), to) - Math.max(Date.parse(r.began), from)) / 3600e3;
  const limit = f && f.microUSD && known > 0 ? (f.microUSD / 1e6 / known) * (step / 3600e3) : null;
  const shown = causes.filter(([k]) => series.points.some((x) => x.idle[k]));
  return h(
    "section",
    { key: "over", class: "lanes still", ref: s.size.ref },
    h("div", { class: "lane-head" }, h("h2", {}, step > 3600e3 ? "Day by day, UTC" : "Hour by hour"), h("ul", { class: "keys" }, h("li", { class: "tone-running" }, h("i", { "aria-hidden": "true" }), "tasks"), shown.map(([, tone, name]) => h("li", { class: `tone-${tone}` }, h("i", { "aria-hidden": "true" }), name.toLowerCase())), limit ? h("li", { class: "tone-bad" }, h("i", { class: "dash", "aria-hidden": "true" }), "fixed fleet of the same peak") : null)),
    points.length
      ? bars({ width: s.size.width, height: 220, from, to, step, points, limit, label: "What the fleet has cost over time", text: (v) => money(v * 1e6), chosen: s.at, choose: (i) => i !== s.at && ((s.at = i), redraw()) })
      : empty("Nothing was charged in this time."),
    p
      ? h("div", { class: "readout" }, h("time", {}, `${moment(p.at).slice(0, -3)}`), h("span", {}, "bill ", h("b", {}, money(p.microUSD))), h("span", { class: "tone-running" }, h("i", { "aria-hidden": "true" }), "tasks ", h("b", {}, money(p.taskMicroUSD))), shown.filter(([k]) => p.idle[k]).map(([k, tone, name]) => h("span", { class: `tone-${tone}` }, h("i", { "aria-hidden": "true" }), `${name.toLowerCase()} `, h("b", {}, money(p.idle[k])))), h("span", {}, "agents ", h("b", {}, hours(p.busyHours))), h("span", {}, "nodes ", h("b", {}, hours(p.nodeHours))))
      : h("div", { class: "readout muted" }, `Charged up to ${moment(r.chargedTo)}. Point at a bar for its parts.`),
  );
}

function groups(s, r, set) {
  const days = Number(s.range.slice(0, -1)) / 24;
  const more = (live.spec?.spec.cost?.labels || []).map((l) => [`label:${l}`, l]);
  const options = splits.filter(([v]) => v !== "task" || days <= 30).concat(more);
  const rows = r.by === s.by ? r.groups : null;
  const whole = (rows || []).map((g) => g.microUSD + (g.sharedMicroUSD || 0));
  const most = Math.max(1, ...whole);
  const node = s.by === "node";
  const names = node ? ["Node", "Charged", ""] : [capital(s.by), "Tasks", "Idle share", "Together", "", "Agent-hours", "An hour", "Ended", "Succeeded"];
  const body = (g, i) => node
    ? [h("td", { class: "num" }, money(g.microUSD)), h("td", { class: "wide" }, meter(g.microUSD, most, "plainly"))]
    : [h("td", { class: "num" }, money(g.microUSD)), h("td", { class: "num zero" }, money(g.sharedMicroUSD || 0)), h("td", { class: "num" }, h("b", {}, money(whole[i]))), h("td", { class: "wide" }, meter(whole[i], most, "plainly")), h("td", { class: "num" }, hours(g.busyHours)), h("td", { class: "num" }, g.agentHourMicroUSD === undefined ? "–" : money(g.agentHourMicroUSD)), h("td", { class: "num" }, g.outcome ? words(g.outcome) : count(g.settled)), h("td", { class: "num" }, g.outcome ? "" : count(g.succeeded))];
  const name = (g) => (s.by === "task" ? h("a", { href: `#/task/${encodeURIComponent(g.name)}`, class: "id" }, g.name) : g.name || h("span", { class: "muted" }, `no ${s.by.replace(/^label:/, "")}`));
  return h(
    "section",
    {},
    h("div", { class: "row-head" }, h("h2", {}, "Who it is for"), chips("Split by", options, s.by, (by) => set({ by }))),
    !rows
      ? h("div", { class: "loading" })
      : rows.length
        ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Split of the bill" }, h("table", { class: "grid" }, h("thead", {}, h("tr", {}, names.map((t, i) => h(t ? "th" : "td", t ? { class: i ? "num" : "", scope: "col" } : {}, t)))), h("tbody", {}, rows.map((g, i) => h("tr", { key: g.name }, h("th", { scope: "row" }, name(g)), body(g, i))))))
        : empty("No task was charged in this time."),
    r.more ? h("p", { class: "muted" }, `and ${count(r.more)} more; GET /v1/cost has them all`) : null,
  );
}

const capital = (by) => (by.startsWith("label:") ? by.slice(6) : by.charAt(0).toUpperCase() + by.slice(1));

function idle(r) {
  const rows = causes.map(([k, tone, name, what]) => ({ tone, name, what, i: r.idle.find((x) => x.cause === k) })).filter((x) => x.i && x.i.microUSD !== 0).sort((a, b) => b.i.microUSD - a.i.microUSD);
  const most = Math.max(...rows.map((x) => x.i.microUSD), 1);
  return h(
    "section",
    {},
    h("div", { class: "row-head" }, h("h2", {}, "Idle, by cause"), h("span", { class: "muted" }, `${money(r.microUSD - r.taskMicroUSD)}, ${share(r.idleShare)} of the bill`)),
    rows.length
      ? h("ul", { class: "causes" }, rows.map((x) => h("li", { key: x.name, class: `tone-${x.tone}`, title: x.what }, h("span", {}, x.name), h("span", { class: "cause-bar", "aria-hidden": "true" }, h("i", { style: { width: `${((x.i.microUSD / most) * 100).toFixed(1)}%` } })), h("b", {}, money(x.i.microUSD)), h("span", { class: "muted" }, share(x.i.share)))))
      : empty("Nothing idle was charged."),
  );
}

/** offHours is what nights and weekends cost beside a fixed fleet, and the questions that can be asked. */
function offHours(s, r, set) {
  const o = r.offHours;
  const f = r.fixed.find((x) => x.kind === "asked");
  return h(
    "section",
    {},
    h("h2", {}, "Nights and weekends"),
    o ? facts([["Spent", `${money(o.microUSD)} in ${hours(o.hours)}`], ["A fixed fleet", money(o.fixedMicroUSD)], ["Saved", h("b", {}, money(o.savingMicroUSD))]]) : h("p", { class: "muted" }, "Nothing is known of them in this time."),
    h(
      "form",
      {
        class: "asks",
        onsubmit: (e) => {
          e.preventDefault();
          const at = new FormData(e.currentTarget);
          set({ off: String(at.get("off")).trim(), weekends: at.get("weekends") === "on", fixed: String(at.get("fixed")).trim() });
        },
      },
      h("label", { class: "field" }, h("span", {}, `Off-hours${o ? `, ${o.timezone}` : ""}`), h("input", { type: "text", name: "off", placeholder: "20:00-07:00", autocomplete: "off", ref: (el) => (el.value = s.off) })),
      h("label", { class: "field" }, h("span", {}, "Fixed fleet, nodes"), h("input", { type: "number", name: "fixed", min: "0", max: "1000000", placeholder: "same peak", ref: (el) => (el.value = s.fixed) })),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "weekends", ref: (el) => (el.checked = s.weekends) }), h("span", {}, "Saturdays and Sundays, too")),
      h("button", { class: "button" }, "Compare"),
    ),
    s.wrong ? h("p", { class: "problem", role: "alert" }, s.wrong) : null,
    f ? facts([[`${count(f.nodes)} nodes`, f.short ? `${money(f.microUSD)}; tasks would have waited: there were ${r.peakNodes} at the peak` : `${money(f.microUSD)}; saved ${money(f.savingMicroUSD)}, ${share(f.savingShare)}`]]) : null,
  );
}
