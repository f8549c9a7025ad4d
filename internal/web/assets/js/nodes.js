// Dedicated compute: each node with what sits on it, and how long it takes
// until there is more of it.

import { h } from "./dom.js";
import { ask, every, live } from "./api.js";
import { bytes, capital, clock, cores, count, has, plural, since, span } from "./format.js";
import { chips, empty, meter, short, state, title } from "./parts.js";
import { sized } from "./bars.js";
import { breakers, reactions, stages } from "./leads.js";

const order = { booting: 0, draining: 1, cordoned: 2, ready: 3, gone: 4 };
const parts = [["running", "running"], ["ready", "warm"], ["starting", "starting"], ["draining", "draining"]];
const page = 60; // nodes that are drawn at once

export function start({ redraw }) {
  const s = { lead: null, problem: "", only: "", chosen: "", boxes: null, more: page, template: "", size: sized(redraw) };
  const load = async (signal) => {
    try {
      s.lead = await ask("v1/lead-times", { signal });
      s.problem = "";
    } catch (e) {
      if (e.name === "AbortError") throw e;
      s.problem = e.message;
    }
    if (s.chosen) await boxesOf(s, signal);
    redraw();
  };
  const stop = every(() => 4000, load);
  const choose = async (id) => {
    s.chosen = s.chosen === id ? "" : id;
    s.boxes = null;
    redraw();
    if (s.chosen) await boxesOf(s).catch(() => {});
    redraw();
  };
  return { title: () => "Nodes", stop, draw: () => view(s, choose, redraw) };
}

async function boxesOf(s, signal) {
  const id = s.chosen;
  const got = await ask(`v1/sandboxes?node=${encodeURIComponent(id)}&sort=state&limit=200`, { signal });
  if (id === s.chosen) s.boxes = got.sandboxes;
}

function view(s, choose, redraw) {
  const f = live.fleet;
  if (!f) return h("div", { class: "loading" });
  const there = f.nodes.filter((n) => n.state !== "gone");
  const states = [...new Set(there.map((n) => n.state))].sort((a, b) => order[a] - order[b]);
  const shown = there.filter((n) => !s.only || n.state === s.only).sort((a, b) => order[a.state] - order[b.state] || (a.id < b.id ? -1 : 1));
  return [
    title("Nodes", h("span", { class: "head-count" }, count(there.length)), there.length > 1 ? h("div", { class: "actions" }, chips("State", [["", "All", there.length], ...states.map((x) => [x, capital(x), there.filter((n) => n.state === x).length])], s.only, (v) => ((s.only = v), (s.more = page), redraw()))) : null),
    s.problem ? h("p", { class: "problem", role: "alert" }, s.problem) : null,
    f.nodesError ? h("p", { class: "problem", role: "alert" }, f.nodesError) : null,
    dedication(f),
    h(
      "div",
      { class: s.chosen ? "split" : "" },
      h(
        "section",
        { "aria-label": "Nodes and their sandboxes" },
        h("div", { class: "row-head" }, h("h2", {}, "Packing"), h("ul", { class: "keys" }, parts.map(([k, tone]) => h("li", { class: `tone-${tone}` }, h("i", { "aria-hidden": "true" }), k === "ready" ? "warm" : k)), h("li", { class: "tone-slot" }, h("i", { class: "free", "aria-hidden": "true" }), "free slot"))),
        shown.length ? h("ul", { class: "machines" }, shown.slice(0, s.more).map((n) => machine(n, s.chosen === n.id, choose))) : empty(there.length ? "No node is in this state." : "There is no node.", there.length ? "" : f.sentence),
        shown.length > s.more ? h("button", { class: "button", onclick: () => ((s.more += page * 2), redraw()) }, `Show more of ${count(shown.length)}`) : null,
      ),
      s.chosen ? aside(s, there.find((n) => n.id === s.chosen), choose) : null,
    ),
    breakers(f),
    reactions(s, redraw),
    stages(s, redraw),
  ];
}

/** dedication says whether agents share no machine with anything else. */
function dedication(f) {
  const d = f.dedication;
  if (!d) return null;
  if (d.error) return h("div", { class: "note", role: "note" }, h("b", {}, "Whether agents are alone on their nodes is not known. "), d.error);
  if (!d.trespasses.length) return h("p", { class: "sentence" }, h("b", {}, "Dedicated: "), `agents share no node with anything else, and none runs elsewhere, as looked at ${clock(d.at)}.`);
  return h("div", { class: "note wrong", role: "alert" }, h("b", {}, `${plural(d.trespasses.length, "breach", "breaches")} of dedication. `), h("ul", {}, d.trespasses.slice(0, 12).map((t) => h("li", {}, `${t.workload} on node ${t.node}`, t.kind ? ` (${t.kind})` : ""))));
}

function machine(n, chosen, choose) {
  const p = n.packed || {};
  const slots = n.slots < 1000 ? n.slots : 0; // a host takes more than its processors and memory can bear
  const label = `${parts.filter(([k]) => p[k]).map(([k]) => `${p[k]} ${k === "ready" ? "warm" : k}`).join(", ") || "empty"}${slots ? `, of ${slots} slots` : ""}`;
  const kind = [n.kind?.instanceType, n.kind?.capacity, n.kind?.group].filter(Boolean).join(" · ");
  return h(
    "li",
    { key: n.id },
    h(
      "button",
      { class: `machine machine-${n.state}`, "aria-pressed": chosen ? "true" : "false", onclick: () => choose(n.id) },
      h("span", { class: "node-head" }, h("span", { class: "node-name" }, n.id), n.state === "ready" ? h("span", { class: "muted" }, slots ? `${n.used} of ${slots}` : plural(n.used, "sandbox", "sandboxes")) : state(n.state)),
      packing(p, slots, n.used, label),
      h("span", { class: "node-line" }, h("span", {}, "CPU"), meter(n.usedMilliCPU, n.milliCPU), h("span", { class: "muted" }, `${cores(n.usedMilliCPU / 1000)} of ${cores(n.milliCPU / 1000)}`)),
      h("span", { class: "node-line" }, h("span", {}, "Memory"), meter(n.usedMemory, n.memoryBytes), h("span", { class: "muted" }, `${bytes(n.usedMemory)} of ${bytes(n.memoryBytes)}`)),
      h("span", { class: "machine-foot" }, n.message || [kind, n.state === "booting" ? `asked for ${span(since(n.requestedAt))} ago` : has(n.readyAt) ? `up ${span(since(n.readyAt))}` : ""].filter(Boolean).join(" · ")),
    ),
  );
}

/** packing is one square for each slot, or a bar where there are too many. */
function packing(p, slots, used, label) {
  const all = Math.max(slots, used);
  if (all > 96) {
    return h("span", { class: "bar", role: "img", "aria-label": label }, parts.filter(([k]) => p[k]).map(([k, tone]) => h("i", { class: `tone-${tone}`, style: { "flex-grow": p[k] } })), all > used ? h("i", { class: "tone-slot", style: { "flex-grow": all - used } }) : null);
  }
  const out = [];
  for (const [k, tone] of parts) for (let i = 0; i < (p[k] || 0); i++) out.push(h("i", { class: `tone-${tone}` }));
  for (let i = out.length; i < slots; i++) out.push(h("i", { class: "tone-slot" }));
  return h("span", { class: "cells", role: "img", "aria-label": label }, out);
}

/** aside is what sits on the node that was chosen. */
function aside(s, n, choose) {
  const rows = s.boxes;
  return h(
    "section",
    { class: "on-node", "aria-label": `Sandboxes on ${s.chosen}` },
    h("div", { class: "row-head" }, h("h2", {}, `On ${s.chosen}`), h("button", { class: "button", onclick: () => choose(s.chosen) }, "Close")),
    !n ? h("p", { class: "muted" }, "It is gone.") : null,
    !rows
      ? h("div", { class: "loading" })
      : rows.length
        ? h("ul", { class: "sitting" }, rows.map((b) => h("li", { key: b.id }, h("a", { href: b.task ? `#/task/${encodeURIComponent(b.task)}` : `#/sandbox/${encodeURIComponent(b.id)}` }, h("span", { class: "id" }, short(b.id)), h("span", {}, b.pool), state(b.state, { ready: "warm", claimed: "running" }[b.state]), h("span", { class: "muted" }, span(since(has(b.claimedAt) ? b.claimedAt : b.createdAt)))))))
        : empty("No sandbox sits on it."),
  );
}
