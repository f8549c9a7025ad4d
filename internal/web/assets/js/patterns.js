// The week: when tasks come and wait, the peaks by name, and what other
// settings would have done.

import { h } from "./dom.js";
import { ask, every, live } from "./api.js";
import { count, money, span } from "./format.js";
import { chips, empty, title } from "./parts.js";
import { sized } from "./bars.js";
import { clockOf, dayNames, heat, slotNow, slotsOf } from "./heat.js";
import { whatIf } from "./whatif.js";

const kinds = [
  ["arrivals", "Arrivals", "running", (v) => `${count(Math.round(v * 10) / 10)} tasks an hour`],
  ["demand", "Demand", "warm", (v) => `up to ${count(Math.round(v))} at once`],
  ["waits", "Waits", "bad", (v) => `p95 ${span(v)}`],
];

export function start({ redraw }) {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const s = { f: null, problem: "", kind: "arrivals", zone: own, zones: [...new Set([own, ...(live.spec?.spec.capacity?.floors || []).map((x) => x.timezone || "UTC"), "UTC"])].slice(0, 4), template: "", at: -1, peak: -1, size: sized(redraw) };
  const ifs = whatIf(redraw);
  const load = async (signal) => {
    const { zone, template } = s;
    try {
      const f = await ask(`v1/forecast?timezone=${encodeURIComponent(zone)}${template ? `&template=${encodeURIComponent(template)}` : ""}`, { signal });
      if (zone === s.zone && template === s.template) Object.assign(s, { f: { ...f, peaks: f.peaks || [] }, problem: "" });
    } catch (e) {
      if (e.name === "AbortError") throw e;
      s.problem = e.message;
    }
    redraw();
  };
  const set = (change) => {
    Object.assign(s, change);
    redraw();
    load();
  };
  const stop = every(() => 60000, load);
  return { title: () => "Patterns", stop: () => (stop(), ifs.stop()), draw: () => view(s, set, ifs, redraw) };
}

function view(s, set, ifs, redraw) {
  const f = s.f;
  const templates = (live.spec?.spec.templates || []).map((t) => t.name);
  const head = title("Patterns", templates.length > 1 ? chips("Template", [["", "All"], ...templates.slice(0, 6).map((t) => [t, t])], s.template, (template) => set({ template, peak: -1 })) : null, s.zones.length > 1 ? chips("Time zone", s.zones.map((z) => [z, z]), s.zone, (zone) => set({ zone, peak: -1 })) : h("span", { class: "muted" }, s.zone));
  const problem = s.problem ? h("p", { class: "problem", role: "alert" }, s.problem) : null;
  if (!f) return [head, problem || h("div", { class: "loading" })];
  return [head, problem, h("p", { class: "sentence" }, `${f.basis.sentence}${/[.!]$/.test(f.basis.sentence) ? "" : "."}`), week(s, f, redraw), peaks(s, f, ifs, redraw), ifs.draw()];
}

function week(s, f, redraw) {
  const w = f.week;
  if (!w.arrivals.length) return empty("No half hour of the week was looked at yet.", "The first appears when the fleet has run for half an hour; a weekly pattern takes eight days.");
  const [, name, tone, says] = kinds.find(([k]) => k === s.kind);
  const seen = s.kind === "waits" ? w.waitsSeen : w.weeksSeen;
  const values = w[s.kind].map((v, i) => (seen[i] > 0 ? v : null));
  const some = values.some((v) => v !== null);
  const i = s.at;
  const marked = s.peak >= 0 && f.peaks[s.peak] ? slotsOf(f.peaks[s.peak]) : null;
  return h(
    "section",
    { key: "week", ref: s.size.ref, "aria-label": "The week" },
    h("div", { class: "row-head" }, h("h2", {}, "The week, half hour by half hour"), chips("Show", kinds.map(([k, text]) => [k, text]), s.kind, (k) => ((s.kind = k), redraw()))),
    heat({ values, tone, width: s.size.width, at: i, now: slotNow(s.zone), marked, label: `${name} by half hour of the week; arrow keys read values`, point: (at) => at !== s.at && ((s.at = at), redraw()) }),
    i >= 0
      ? h("div", { class: "readout", "aria-live": "polite" }, h("b", {}, `${dayNames[Math.floor(i / 48)]} ${clockOf(i)}`), w.weeksSeen[i] ? [h("span", { class: "tone-running" }, h("i", { "aria-hidden": "true" }), kinds[0][3](w.arrivals[i])), h("span", { class: "tone-warm" }, h("i", { "aria-hidden": "true" }), kinds[1][3](w.demand[i])), h("span", { class: "tone-bad" }, h("i", { "aria-hidden": "true" }), w.waitsSeen[i] > 0 ? `waits p95 ${span(w.waits[i])}` : "no wait measured"), h("span", {}, `seen in ${count(w.weeksSeen[i])} ${w.weeksSeen[i] === 1 ? "week" : "weeks"}`)] : h("span", {}, "never looked at"))
      : h("div", { class: "readout muted" }, some ? `The fullest colour is ${says(Math.max(...values.filter((v) => v !== null)))}; the frame is now. Point at a half hour for its values.` : "Nothing was measured yet."),
  );
}

function peaks(s, f, ifs, redraw) {
  return h(
    "section",
    {},
    h("h2", {}, "Peaks"),
    f.peaks.length
      ? h(
          "ol",
          { class: "peaks" },
          f.peaks.map((p, i) =>
            h(
              "li",
              { key: `${p.days} ${p.from}`, onpointerenter: () => ((s.peak = i), redraw()), onpointerleave: () => ((s.peak = -1), redraw()) },
              h("div", { class: "peak-name" }, h("b", {}, `${p.days} ${p.from}–${p.until}`), h("span", { class: "muted" }, `${p.timesMean.toFixed(1)} × the mean, ${p.weeks} of ${p.weeksSeen} weeks`)),
              h("p", { class: "sentence" }, p.sentence),
              h("div", { class: "peak-end" }, p.costMicroUSD === undefined || p.floor <= p.have ? null : h("span", {}, h("b", {}, money(p.costMicroUSD)), " a week"), p.floor > p.have ? h("button", { class: "button", onclick: () => ifs.floor(p, s.zone, s.template) }, "Try this floor") : h("span", { class: "muted" }, "met by what is kept warm")),
            ),
          ),
        )
      : h("p", { class: "muted" }, "No time of the week stands out, week after week. A peak takes at least two weeks to be told from chance."),
  );
}
