// Every sandbox: what it works on, how it is confined, what it uses.

import { h } from "./dom.js";
import { Boxes } from "./boxes.js";
import { bytes, cores, count, has, plural, since, span } from "./format.js";
import { chips, empty, short, state, title } from "./parts.js";
import { Table } from "./list.js";
import { spark } from "./chart.js";

const asState = (r) => (r.state === "claimed" && r.work ? r.work.state : r.state === "ready" ? "warm" : r.state);
const began = (r) => (has(r.claimedAt) ? r.claimedAt : r.createdAt);
const cpuLimit = (r) => r.resources.milliCPU / 1000;

/** confinement is how a sandbox is isolated, in a few words. */
export function confinement(i) {
  return [i.runtime, i.network === "none" ? "no network" : i.network === "proxy" ? "allow-list" : i.network ? `network ${i.network}` : null, i.userNamespace ? "user ns" : null].filter(Boolean);
}

// The groups of the filter, as states of the API.
const groups = [
  ["all", "All", ""],
  ["working", "Working", "claimed"],
  ["warm", "Warm", "ready"],
  ["starting", "Starting", "starting"],
  ["other", "Other", "draining,failed"],
];

const level = (used, limit) => (limit > 0 && used > 0.9 * limit ? "high" : limit > 0 && used > 0.75 * limit ? "mid" : "");

/** use is a figure against its limit, over a line of what it was of late. */
const use = (now, limit, text, line, width) => [
  h("span", {}, h("b", {}, text(now)), h("span", { class: "of" }, ` / ${text(limit)}`)),
  line ? spark(line, limit, { width, height: 13, level: level(now, limit) }) : null,
];

const columns = [
  { key: "state", name: "State", sort: true, cell: (r) => state(asState(r)) },
  { key: "task", name: "Task", sort: true, cell: (r) => (r.task ? h("b", { title: r.task }, r.work?.name || r.work?.command || short(r.task)) : h("span", { class: "muted" }, r.message || `waits in pool ${r.pool}`)) },
  { key: "team", name: "Team", sort: true, cell: (r) => r.work?.tenant || h("span", { class: "muted" }, "–") },
  { key: "age", name: "Age", num: true, sort: true, cell: (r) => span(since(began(r))) },
  { key: "node", name: "Node", sort: true, cell: (r) => r.node },
  { key: "isolation", name: "Isolation", sort: true, cell: (r) => (r.isolation.runtime ? h("span", { title: (r.isolation.lost || []).join("\n") }, confinement(r.isolation).join(" · ")) : "–") },
  { key: "cpu", name: "CPU", num: true, sort: true, cell: (r) => use(r.usage.cpuNow || 0, cpuLimit(r), cores, r.trail?.cpu || [], 84) },
  { key: "memory", name: "Memory", num: true, sort: true, cell: (r) => use(r.usage.memoryBytes, r.resources.memoryBytes, bytes, r.trail?.memory || [], 132) },
  { key: "pids", name: "Pids", num: true, sort: true, cell: (r) => use(r.usage.pids, r.resources.pids, count) },
  { key: "io", name: "Disk I/O", num: true, cell: (r) => (r.trail?.ioBytes.at(-1) ? `${bytes(r.trail.ioBytes.at(-1))}/s` : h("span", { class: "muted" }, "–")) },
];

export function start({ redraw }) {
  let chosen = "all";
  let text = "";
  let timer = 0;
  let sort = "state";
  let down = false;
  const boxes = new Boxes(redraw);
  const filter = () => boxes.show({ sort, order: down ? "desc" : "asc", state: groups.find((g) => g[0] === chosen)[2], q: text.trim() });
  filter();
  const table = new Table({
    columns,
    redraw,
    label: "Agents",
    sort,
    down,
    open: (r) => (r.task ? `#/task/${encodeURIComponent(r.task)}` : `#/sandbox/${encodeURIComponent(r.id)}`),
    near: (first, last) => boxes.need(first, last),
    chosen: (by, desc) => {
      sort = by;
      down = by === "age" ? !desc : desc; // the server has the youngest first
      toTop();
    },
  });
  const toTop = () => {
    filter();
    if (table.box) table.box.scrollTop = 0;
  };
  const source = { get length() { return boxes.total; }, at: (i) => boxes.at(i) };
  const search = (e) => {
    text = e.target.value;
    clearTimeout(timer);
    timer = setTimeout(toTop, 150);
    redraw();
  };
  const draw = () => {
    const c = boxes.counts;
    if (!c) return [title("Agents"), boxes.problem ? h("p", { class: "problem", role: "alert" }, boxes.problem) : h("div", { class: "loading" })];
    return [
      title("Agents", h("span", { class: "head-count", role: "status" }, boxes.total === c.all ? count(c.all) : `${count(boxes.total)} of ${plural(c.all, "sandbox", "sandboxes")}`)),
      h(
        "div",
        { class: "tools" },
        h("input", { type: "search", placeholder: "Filter by task, team, node, label", "aria-label": "Filter agents", value: text, maxlength: 200, oninput: search }),
        chips("State", groups.map(([id, name]) => [id, name, c[id]]), chosen, (g) => ((chosen = g), toTop(), redraw())),
        boxes.problem ? h("p", { class: "problem", role: "alert" }, boxes.problem) : null,
      ),
      boxes.total ? table.draw(source) : empty(c.all || text ? "No agent fits the filter." : "No sandbox exists.", c.all || text ? null : "The fleet has nothing to do and keeps none warm."),
    ];
  };
  return {
    title: () => "Agents",
    stop: () => {
      clearTimeout(timer);
      boxes.stop();
    },
    draw,
  };
}
