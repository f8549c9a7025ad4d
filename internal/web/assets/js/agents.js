// Every sandbox: what it works on, how it is confined, what it uses.

import { h } from "./dom.js";
import { ask, every } from "./api.js";
import { bytes, cores, count, has, since, span } from "./format.js";
import { chips, empty, meter, short, state, title } from "./parts.js";
import { Table } from "./list.js";
import { spark } from "./chart.js";

const history = new Map(); // sandbox -> processors in use, newest last
const kept = 30;

function remember(boxes) {
  const seen = new Set();
  for (const b of boxes) {
    seen.add(b.id);
    const list = history.get(b.id) || [];
    list.push(b.usage.cpuNow || 0);
    if (list.length > kept) list.shift();
    history.set(b.id, list);
  }
  for (const id of history.keys()) if (!seen.has(id)) history.delete(id);
}

const asState = (r) => (r.state === "claimed" && r.work ? r.work.state : r.state === "ready" ? "warm" : r.state);
const ranks = { running: 0, claimed: 0, collecting: 0, starting: 1, warm: 2, draining: 3, failed: 4 };
const began = (r) => (has(r.claimedAt) ? r.claimedAt : r.createdAt);
const cpuLimit = (r) => r.resources.milliCPU / 1000;

/** confinement is how a sandbox is isolated, in a few words. */
export function confinement(i) {
  return [i.runtime, i.network === "none" ? "no network" : i.network === "proxy" ? "allow-list" : `network ${i.network}`, i.userNamespace ? "user ns" : null].filter(Boolean);
}

const groups = [
  ["all", "All", () => true],
  ["working", "Working", (r) => r.state === "claimed"],
  ["warm", "Warm", (r) => r.state === "ready"],
  ["starting", "Starting", (r) => r.state === "starting"],
  ["other", "Other", (r) => !["claimed", "ready", "starting"].includes(r.state)],
];

const columns = [
  { key: "state", name: "State", cell: (r) => state(asState(r)), sort: (r) => ranks[asState(r)] ?? 5 },
  { key: "task", name: "Task", cell: (r) => (r.task ? h("b", { title: r.task }, r.work?.name || r.work?.spec?.command?.join(" ") || short(r.task)) : h("span", { class: "muted" }, r.message || `waits in pool ${r.pool}`)), sort: (r) => r.work?.name || "" },
  { key: "team", name: "Team", cell: (r) => r.work?.tenant || h("span", { class: "muted" }, "–"), sort: (r) => r.work?.tenant || "" },
  { key: "age", name: "Age", num: true, cell: (r) => span(since(began(r))), sort: (r) => -Date.parse(began(r)) },
  { key: "node", name: "Node", cell: (r) => r.node, sort: (r) => r.node },
  { key: "isolation", name: "Isolation", cell: (r) => (r.isolation.runtime ? h("span", { title: (r.isolation.lost || []).join("\n") }, confinement(r.isolation).join(" · ")) : "–"), sort: (r) => r.isolation.runtime },
  { key: "spark", name: "", cell: (r) => spark(history.get(r.id) || [], cpuLimit(r)) },
  { key: "cpu", name: "CPU", num: true, cell: (r) => [h("span", {}, h("b", {}, cores(r.usage.cpuNow || 0)), h("span", { class: "of" }, ` / ${cores(cpuLimit(r))}`)), meter(r.usage.cpuNow || 0, cpuLimit(r))], sort: (r) => r.usage.cpuNow || 0 },
  { key: "memory", name: "Memory", num: true, cell: (r) => [h("span", {}, h("b", {}, bytes(r.usage.memoryBytes)), h("span", { class: "of" }, ` / ${bytes(r.resources.memoryBytes)}`)), meter(r.usage.memoryBytes, r.resources.memoryBytes)], sort: (r) => r.usage.memoryBytes },
  { key: "pids", name: "Pids", num: true, cell: (r) => [h("span", {}, h("b", {}, count(r.usage.pids)), h("span", { class: "of" }, ` / ${count(r.resources.pids)}`))], sort: (r) => r.usage.pids },
];

export function start({ redraw }) {
  let rows = null;
  let chosen = "all";
  let text = "";
  const stop = every(
    () => Math.max(2000, (rows?.length || 0) * 2), // ten thousand: every 20 seconds
    async (signal) => {
      const [boxes, tasks] = await Promise.all([
        ask("v1/sandboxes", { signal }),
        ask("v1/tasks?state=claimed,starting,running,collecting&limit=10000", { signal }),
      ]);
      const work = new Map(tasks.tasks.map((t) => [t.id, t]));
      rows = boxes.sandboxes.map((b) => ({ ...b, work: work.get(b.task) }));
      remember(rows);
      redraw();
    },
  );
  const table = new Table({ columns, redraw, label: "Agents", sort: "state", down: false, open: (r) => (r.task ? `#/task/${encodeURIComponent(r.task)}` : `#/sandbox/${encodeURIComponent(r.id)}`) });

  let made = null; // what was found last, and of what

  const find = () => {
    if (made && made.rows === rows && made.text === text && made.chosen === chosen) return made;
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (r) => {
      const all = [r.id, r.pool, r.node, r.task, r.work?.name, r.work?.tenant, asState(r), ...confinement(r.isolation), ...Object.entries(r.work?.labels || {}).map((l) => l.join("="))].join(" ").toLowerCase();
      return words.every((w) => all.includes(w));
    };
    const inGroup = groups.find((g) => g[0] === chosen)[2];
    made = {
      rows,
      text,
      chosen,
      found: rows.filter((r) => inGroup(r) && (!words.length || fits(r))),
      counts: groups.map(([id, name, f]) => [id, name, rows.filter(f).length]),
    };
    return made;
  };

  const draw = () => {
    if (!rows) return [title("Agents"), h("div", { class: "loading" })];
    const { found, counts } = find();
    return [
      title("Agents", h("span", { class: "head-count" }, count(rows.length))),
      h(
        "div",
        { class: "tools" },
        h("input", { type: "search", placeholder: "Filter by task, team, node, runtime", "aria-label": "Filter agents", value: text, oninput: (e) => ((text = e.target.value), redraw()) }),
        chips("State", counts, chosen, (c) => ((chosen = c), redraw())),
      ),
      found.length ? table.draw(found, (r) => r.id) : empty(rows.length ? "No agent fits the filter." : "No sandbox exists.", rows.length ? null : "The fleet has nothing to do and keeps none warm."),
    ];
  };
  return { title: () => "Agents", stop, draw };
}
