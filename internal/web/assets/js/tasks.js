// Tasks: find, submit, look at.

import { h } from "./dom.js";
import { ask, every, live, watch } from "./api.js";
import { count, has, moment, since, span, words } from "./format.js";
import { chips, empty, icon, short, state, title } from "./parts.js";
import { Table } from "./list.js";
import { acting } from "./role.js";

const groups = {
  all: ["All", ""],
  waiting: ["Waiting", "queued"],
  active: ["Active", "claimed,starting,running,collecting"],
  succeeded: ["Succeeded", "succeeded"],
  failed: ["Failed", "failed,timed_out,lost"],
  cancelled: ["Cancelled", "cancelled"],
};

const mostRows = 10000; // in the page

const waited = (t) => (t.state === "queued" ? since(t.dueAt) : has(t.startedAt) ? (Date.parse(t.startedAt) - Date.parse(t.dueAt)) / 1000 : null);
const ran = (t) => (has(t.startedAt) ? ((has(t.endedAt) ? Date.parse(t.endedAt) : Date.now()) - Date.parse(t.startedAt)) / 1000 : null);

const columns = [
  { key: "state", name: "State", cell: (t) => state(t.state), sort: (t) => t.state },
  { key: "task", name: "Task", cell: (t) => [h("b", {}, t.name || t.spec.command.join(" ")), h("span", { class: "id" }, short(t.id))], sort: (t) => t.name || "" },
  { key: "team", name: "Team", cell: (t) => t.tenant, sort: (t) => t.tenant },
  { key: "outcome", name: "Outcome", cell: (t) => (t.reason ? h("span", {}, words(t.reason), t.exitCode ? ` ${t.exitCode}` : "") : h("span", { class: "muted" }, t.launch ? `${t.launch} start` : "–")), sort: (t) => t.reason || "" },
  { key: "waited", name: "Waited", num: true, cell: (t) => (waited(t) === null ? "–" : span(waited(t))), sort: (t) => waited(t) ?? -1 },
  { key: "ran", name: "Ran", num: true, cell: (t) => (ran(t) === null ? "–" : span(ran(t))), sort: (t) => ran(t) ?? -1 },
  { key: "submitted", name: "Submitted", num: true, cell: (t) => moment(t.submittedAt), sort: (t) => t.id },
];

export function start({ redraw }) {
  let rows = null;
  let before = "";
  let loading = false;
  let chosen = "all";
  let text = "";
  let label = "";
  let problem = "";
  const form = new Form(redraw);

  const query = (more) => {
    const q = new URLSearchParams({ limit: "200" });
    if (groups[chosen][1]) q.set("state", groups[chosen][1]);
    if (/^[^=,]+=[^,]*$/.test(label)) q.set("label", label);
    if (text.trim()) q.set("q", text.trim());
    if (more) q.set("before", more);
    return `v1/tasks?${q}`;
  };
  let asked = "";
  const load = async (signal) => {
    const q = query("");
    try {
      const a = await ask(q, { signal });
      problem = "";
      // Pages that were loaded further down stay; what is in the first is new.
      const fresh = new Set(a.tasks.map((t) => t.id));
      const last = a.tasks.at(-1)?.id || "";
      const older = q === asked && rows && a.before ? rows.filter((t) => !fresh.has(t.id) && t.id < last) : [];
      if (!older.length) before = a.before || "";
      rows = a.tasks.concat(older);
      asked = q;
    } catch (e) {
      if (e.name === "AbortError") throw e;
      problem = e.message;
    }
    redraw();
  };
  const more = async () => {
    if (loading || !before || !rows || rows.length >= mostRows) return;
    loading = true;
    const q = asked;
    try {
      const a = await ask(query(before));
      if (q === asked) {
        const there = new Set(rows.map((t) => t.id));
        rows = rows.concat(a.tasks.filter((t) => !there.has(t.id)));
        before = a.before || "";
      }
    } catch (e) {
      problem = e.message;
    }
    loading = false;
    redraw();
  };
  let timer = 0;
  const soon = (wait) => {
    clearTimeout(timer);
    timer = setTimeout(() => load(), wait);
  };
  const stopPolling = every(() => 5000, load);
  const stopWatching = watch((what) => what === "events" && live.events.at(-1)?.layer === "tasks" && !timer && (timer = setTimeout(() => ((timer = 0), load()), 1000)));
  const table = new Table({ columns, redraw, label: "Tasks", sort: "submitted", down: true, open: (t) => `#/task/${encodeURIComponent(t.id)}`, near: (first, last) => last >= (rows?.length || 0) && more() });

  // The server knows one order, the newest first; any other is one of what is loaded.
  const partial = () => {
    if (!before || !rows?.length || (table.sort === "submitted" && table.down)) return null;
    const full = rows.length >= mostRows;
    return h("span", { class: "muted sorted-of", role: "status" }, `Sorted among the newest ${count(rows.length)}; there are more. `, full ? "Narrow the search for the others." : h("button", { class: "button", disabled: loading, onclick: more }, "Load more"));
  };

  const draw = () => {
    const found = rows || [];
    if (rows && !rows.length && before) more(); // the search goes on further back
    const f = live.fleet;
    const n = { waiting: f?.backlog, active: f?.inFlight };
    return [
      title(
        "Tasks",
        f ? h("span", { class: "head-count" }, `${count(f.backlog)} waiting, ${count(f.inFlight)} active`) : null,
        h("div", { class: "actions" }, h("button", acting("submit tasks", { class: "primary", onclick: () => form.open() }), icon("plus"), "Submit")),
      ),
      h(
        "div",
        { class: "tools" },
        h("input", { type: "search", placeholder: "Search name, command, repository", "aria-label": "Search tasks", value: text, maxlength: 200, oninput: (e) => ((text = e.target.value), soon(200)) }),
        h("input", { class: "label-filter", type: "text", placeholder: "Label, as team=payments", "aria-label": "Filter by label", value: label, oninput: (e) => ((label = e.target.value.trim()), soon(300)) }),
        chips("State", Object.entries(groups).map(([id, [name]]) => [id, name, n[id]]), chosen, (c) => {
          chosen = c;
          rows = null;
          load();
        }),
        partial(),
      ),
      problem ? h("p", { class: "problem", role: "alert" }, problem) : null,
      !rows ? h("div", { class: "loading" }) : found.length ? table.draw(found) : empty(text || label ? "No task fits the search." : "No task here.", chosen === "all" && !label && !rows.length ? "Submit one here, or with `muster submit`." : null),
      form.draw(),
    ];
  };
  return {
    title: () => "Tasks",
    stop: () => {
      clearTimeout(timer);
      stopPolling();
      stopWatching();
    },
    draw,
  };
}

/** Form submits a task. */
class Form {
  constructor(redraw) {
    this.redraw = redraw;
    this.problem = "";
    this.busy = false;
  }

  open() {
    this.problem = "";
    this.box.showModal();
  }

  async submit(e) {
    e.preventDefault();
    const v = Object.fromEntries(new FormData(e.target));
    const task = { command: ["sh", "-c", v.command] };
    if (v.name) task.name = v.name;
    if (v.template) task.template = v.template;
    if (v.prompt) task.prompt = v.prompt;
    if (v.repo) task.repo = { url: v.repo, ...(v.ref ? { ref: v.ref } : {}) };
    const labels = {};
    for (const l of v.labels.split(/[\s,]+/).filter(Boolean)) {
      const at = l.indexOf("=");
      labels[at < 0 ? l : l.slice(0, at)] = at < 0 ? "" : l.slice(at + 1);
    }
    if (Object.keys(labels).length) task.labels = labels;
    if (v.priority) task.priority = Number(v.priority);
    this.busy = true;
    this.redraw();
    try {
      const a = await ask("v1/tasks", { method: "POST", body: { tasks: [task] } });
      this.box.close();
      location.hash = `#/task/${encodeURIComponent(a.tasks[0].id)}`;
    } catch (err) {
      this.problem = err.message.replaceAll("tasks[0].", "");
    }
    this.busy = false;
    this.redraw();
  }

  draw() {
    const field = (name, text, input) => h("label", { class: `field f-${name}` }, h("span", {}, text), input);
    const templates = live.spec?.spec.templates || [];
    return h(
      "dialog",
      { key: "form", class: "dialog", "aria-label": "Submit a task", ref: (el) => (this.box = el) },
      h(
        "form",
        { onsubmit: (e) => this.submit(e) },
        h("header", { class: "dialog-head" }, h("h2", {}, "Submit a task"), h("button", { type: "button", class: "plain", "aria-label": "Close", onclick: () => this.box.close() }, icon("close"))),
        field("name", "Name", h("input", { name: "name", type: "text", autocomplete: "off" })),
        field("template", "Template", h("select", { name: "template" }, h("option", { value: "" }, "chosen by repository"), templates.map((t) => h("option", { value: t.name }, t.name)))),
        field("repo", "Repository", h("input", { name: "repo", type: "text", placeholder: "https://…", autocomplete: "off" })),
        field("ref", "Ref", h("input", { name: "ref", type: "text", placeholder: "main", autocomplete: "off" })),
        field("command", "Command, for sh", h("textarea", { name: "command", rows: 3, required: true, spellcheck: "false" })),
        field("prompt", "Prompt", h("textarea", { name: "prompt", rows: 3 })),
        field("labels", "Labels", h("input", { name: "labels", type: "text", placeholder: "team=payments", autocomplete: "off" })),
        field("priority", "Priority", h("input", { name: "priority", type: "number", step: 1, placeholder: "0" })),
        this.problem ? h("p", { class: "problem", role: "alert" }, this.problem) : null,
        h("footer", {}, h("button", { type: "button", class: "button", onclick: () => this.box.close() }, "Close"), h("button", { class: "primary", disabled: this.busy }, "Submit")),
      ),
    );
  }
}
