// What other settings would have cost on the fleet's own history, and putting
// them in force.

import { h } from "./dom.js";
import { ask, live, tell } from "./api.js";
import { count, hours, money, share, span } from "./format.js";
import { chips } from "./parts.js";
import { acting, mayAct } from "./role.js";

const ranges = [["168h", "7 d"], ["336h", "14 d"], ["720h", "30 d"]];
const rivals = ["keda", "hpa", "kpa", "reactive", "schedule", "fixed", "clairvoyant"];
// name in the form, path in the spec, label, kind, placeholder
const fields = [
  ["min", ["capacity", "sandboxes", "min"], "Sandboxes, always warm", "number", "0"],
  ["max", ["capacity", "sandboxes", "max"], "Sandboxes, at most", "number", "200"],
  ["start", ["objective", "startP99"], "Start within, p99", "text", "5s"],
  ["quantile", ["scaling", "warmQuantile"], "Warm quantile", "number", "0.99"],
  ["hold", ["scaling", "holdWarm"], "Warm stock outlives its cause by", "text", "2m"],
];
const read = (o, path) => path.reduce((x, k) => x?.[k], o);

/** cronOf is the rule by which a floor of a peak opens; null where the peak says no clock. */
export function cronOf(p) {
  const minutes = (t) => Number(t.slice(0, 2)) * 60 + Number(t.slice(3));
  const [opens, from, until] = [minutes(p.floorFrom), minutes(p.from), minutes(p.until)];
  const early = opens > from; // it opens the day before
  const days = p.weekdays.map((d) => (d + (early ? 6 : 0)) % 7).sort();
  const long = (until - opens + 2 * 1440) % 1440 || 1440;
  return { cron: `${opens % 60} ${Math.floor(opens / 60)} * * ${days.join(",")}`, for: `${Math.floor(long / 60)}h${long % 60 ? `${long % 60}m` : ""}`, min: p.floor };
}

/** put asks for a change; a control plane that has no such route leaves the patch to be copied. */
async function put(path, request) {
  try {
    return await ask(path, request);
  } catch (e) {
    if (e.status !== 404) throw e;
    return { diff: JSON.stringify(request.body.patch, null, 2), byHand: true };
  }
}

/** whatIf is the form, its answer and what can be done with it. */
export function whatIf(redraw) {
  const s = { range: "336h", form: null, floors: [], policies: new Set(), busy: false, answer: null, asked: null, problem: "", dry: null, done: null };
  const controller = new AbortController();

  const value = (name) => (s.form ? String(new FormData(s.form).get(name) ?? "").trim() : "");
  const patch = () => {
    const spec = {};
    for (const [name, path, , kind] of fields) {
      const v = value(name);
      const now = read(live.spec?.spec, path);
      if (v === "" || v === String(now ?? "")) continue;
      let at = spec;
      for (const k of path.slice(0, -1)) at = at[k] ||= {};
      at[path.at(-1)] = kind === "number" ? Number(v) : v;
    }
    if (s.floors.length) (spec.capacity ||= {}).floors = [...(live.spec?.spec.capacity?.floors || []), ...s.floors];
    return Object.keys(spec).length ? { spec } : null;
  };
  const attempt = async (f) => {
    s.busy = true;
    s.problem = "";
    redraw();
    try {
      await f();
    } catch (e) {
      if (e.name !== "AbortError") s.problem = e.message;
    }
    s.busy = false;
    redraw();
  };
  const simulate = () =>
    attempt(async () => {
      const change = patch();
      const body = { since: s.range, policies: [...s.policies] };
      if (change) body.patch = change;
      const answer = await ask("v1/whatif", { method: "POST", body, signal: controller.signal });
      Object.assign(s, { answer, asked: change, dry: null, done: null });
    });
  const apply = (dryRun) =>
    attempt(async () => {
      const got = await put("v1/fleet/patch", { method: "POST", body: { patch: s.asked, dryRun, from: dryRun ? 0 : s.dry.from, note: "tried as a what-if in the dashboard" }, signal: controller.signal });
      if (dryRun) {
        s.dry = got;
        return;
      }
      Object.assign(s, { done: got, dry: null, floors: [] });
      live.spec = await ask("v1/fleet/spec");
      tell("spec");
    });
  const floor = (p, zone, template) => {
    const f = { ...cronOf(p), timezone: zone };
    if (template) f.template = template;
    if (!s.floors.some((x) => JSON.stringify(x) === JSON.stringify(f))) s.floors.push(f);
    redraw();
    setTimeout(() => document.getElementById("whatif")?.scrollIntoView({ block: "start" }), 50);
  };
  return { stop: () => controller.abort(), floor, draw: () => draw(s, { simulate, apply, redraw }) };
}

function draw(s, act) {
  return h(
    "section",
    { id: "whatif", "aria-label": "What if" },
    h("div", { class: "row-head" }, h("h2", {}, "What if"), chips("History", ranges, s.range, (r) => ((s.range = r), act.redraw()))),
    h("p", { class: "muted" }, "The tasks of that time go through the planner again on a virtual clock, with your changes and beside rivals. Nothing is changed by it."),
    form(s, act),
    s.problem ? h("p", { class: "problem", role: "alert" }, s.problem) : null,
    s.answer ? answer(s, act) : null,
  );
}

function form(s, act) {
  return h(
    "form",
    {
      class: "ifs",
      ref: (el) => (s.form = el),
      onsubmit: (e) => {
        e.preventDefault();
        if (!s.busy) act.simulate();
      },
    },
    fields.map(([name, path, label, kind, otherwise]) => {
      const now = read(live.spec?.spec, path);
      return h("label", { class: "field", key: name }, h("span", {}, label), h("input", { name, type: kind, min: kind === "number" ? "0" : null, step: name === "quantile" ? "any" : null, autocomplete: "off", placeholder: now === undefined ? otherwise : `${now} now` }));
    }),
    h("fieldset", { class: "rivals" }, h("legend", {}, "Beside"), rivals.map((r) => h("label", { class: "check", key: r }, h("input", { type: "checkbox", checked: s.policies.has(r), onchange: (e) => ((e.target.checked ? s.policies.add(r) : s.policies.delete(r)), act.redraw()) }), h("span", {}, r)))),
    s.floors.length ? h("ul", { class: "floors" }, s.floors.map((f, i) => h("li", { key: f.cron }, h("b", {}, `floor of ${count(f.min)}`), h("code", {}, `${f.cron} for ${f.for}`), h("span", { class: "muted" }, f.timezone), h("button", { type: "button", class: "button", onclick: () => (s.floors.splice(i, 1), act.redraw()) }, "Leave out")))) : null,
    h("div", { class: "ifs-end" }, h("button", { class: "primary", disabled: s.busy }, s.busy ? "Simulating…" : "Simulate")),
  );
}

function answer(s, act) {
  const a = s.answer;
  const priced = a.basis.nodeHourMicroUSD > 0;
  const rows = [["As it is", a.present], a.changed ? ["Changed", a.changed] : null, ...a.policies.map((p) => [p.policy, p])].filter(Boolean);
  const most = Math.max(...rows.map(([, o]) => (priced ? o.monthMicroUSD : o.nodeHours)), 1);
  const m = a.basis.measured;
  return h(
    "div",
    { class: "sections answer" },
    h("p", { class: "sentence" }, h("b", {}, a.sentence)),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "What would have been" },
      h(
        "table",
        { class: "grid" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Fleet"), h("th", { class: "num", scope: "col" }, "30 days"), h("td", {}), ["Node-hours", "Most nodes", "Wait p50", "p95", "p99", "Within the objective"].map((t) => h("th", { class: "num", scope: "col" }, t)))),
        h(
          "tbody",
          {},
          rows.map(([name, o], i) => h("tr", { key: `${i} ${name}`, class: name === "Changed" ? "changed" : "" }, h("th", { scope: "row" }, name), h("td", { class: "num" }, priced ? money(o.monthMicroUSD) : "–"), h("td", { class: "wide" }, h("span", { class: "meter plainly", "aria-hidden": "true" }, h("i", { style: { width: `${(((priced ? o.monthMicroUSD : o.nodeHours) / most) * 100).toFixed(1)}%` } }))), h("td", { class: "num" }, hours(o.nodeHours)), h("td", { class: "num" }, count(o.peakNodes)), [o.waitP50Seconds, o.waitP95Seconds, o.waitP99Seconds].map((v) => h("td", { class: "num" }, span(v))), h("td", { class: `num ${o.meets ? "" : "bad"}` }, share(o.within)))),
          h("tr", { class: "really" }, h("th", { scope: "row" }, "Really"), h("td", { class: "num zero" }, "–"), h("td", {}), h("td", { class: "num zero" }, "–"), h("td", { class: "num zero" }, "–"), [m.waitP50Seconds, m.waitP95Seconds, m.waitP99Seconds].map((v) => h("td", { class: "num" }, span(v))), h("td", { class: "num" }, share(m.within))),
        ),
      ),
    ),
    h("p", { class: "muted" }, a.basis.sentence),
    s.asked ? change(s, act) : null,
  );
}

/** change is the patch as a difference of the fleet's specification, to be put in force. */
function change(s, act) {
  const a = s.answer;
  return h(
    "div",
    { class: "change" },
    a.changes.length ? h("ul", { class: "files" }, a.changes.map((c) => h("li", {}, h("code", {}, c)))) : null,
    s.done
      ? h("p", { role: "status" }, h("b", {}, s.done.revision ? `In force as revision ${s.done.revision}.` : "It is written; the cluster puts it in force."), s.done.awaits?.length ? ` A new start takes over ${s.done.awaits.join(", ")}.` : "", " `muster fleet rollback` undoes it.")
      : s.dry
        ? [
            h("pre", { class: "diff", tabindex: "0", "aria-label": "Difference of the specification" }, s.dry.diff.split("\n").map((line) => h("span", { class: /^\+(?!\+\+)/.test(line) ? "plus" : /^-(?!--)/.test(line) ? "minus" : "" }, `${line}\n`))),
            (s.dry.warnings || []).map((w) => h("p", { class: "note" }, w)),
            s.dry.awaits?.length ? h("p", { class: "note" }, `Only a new start takes over ${s.dry.awaits.join(", ")}.`) : null,
            s.dry.byHand ? h("p", { class: "muted" }, "This control plane takes no changes here: put this into the Fleet by hand.") : h("div", { class: "ifs-end" }, h("button", acting("change the fleet", { class: "primary", disabled: s.busy, onclick: () => act.apply(false) }), "Put it in force"), h("button", { class: "button", onclick: () => ((s.dry = null), act.redraw()) }, "Not now")),
          ]
        : mayAct()
          ? h("div", { class: "ifs-end" }, h("button", { class: "button", disabled: s.busy, onclick: () => act.apply(true) }, "Show as a change of the fleet"))
          : h("p", { class: "muted" }, "What is asked here changes nothing; an operator can put it in force."),
  );
}
