// One agent: a task with its log, phases, usage, and what it left; or a sandbox
// that waits for one.

import { h } from "./dom.js";
import { ask, every, watch, live } from "./api.js";
import { bytes, cores, count, has, moment, plural, since, span, usd, words } from "./format.js";
import { empty, facts, meter, short, state } from "./parts.js";
import { confinement } from "./agents.js";
import { spark } from "./chart.js";
import { eventRow } from "./events.js";
import { Log } from "./log.js";
import { acting } from "./role.js";
import { Shell } from "./shell.js";

const active = (t) => !final(t.state) && t.state !== "queued";
const final = (s) => ["succeeded", "failed", "timed_out", "cancelled", "lost"].includes(s);

export function start({ redraw, kind, id }) {
  return kind === "task" ? task(redraw, id) : sandbox(redraw, id);
}

function sandbox(redraw, id) {
  let box;
  let problem = "";
  const stop = every(
    () => 2000,
    async (signal) => {
      const [now] = (await ask(`v1/sandboxes?limit=1&trail=true&q=${encodeURIComponent(id)}`, { signal })).sandboxes;
      problem = now ? "" : "This sandbox does not exist any more.";
      if (now) {
        box = now;
      }
      redraw();
    },
  );
  const page = () => {
    if (!box) return problem ? empty(problem) : h("div", { class: "loading" });
    return [
      h("header", { class: "head" }, h("h1", {}, "Sandbox"), h("code", { class: "id" }, box.id), state(problem ? "gone" : box.state === "ready" ? "warm" : box.state)),
      problem ? h("p", { class: "muted" }, problem) : null,
      h(
        "div",
        { class: "sections" },
        h("section", {}, h("h2", {}, "Placement"), facts([["Pool", box.pool], ["Template", box.template], ["Node", box.node], ["Image", box.image], ["Created", moment(box.createdAt)], ["Ready", has(box.readyAt) ? moment(box.readyAt) : null], ["Task", box.task ? h("a", { href: `#/task/${encodeURIComponent(box.task)}` }, box.task) : "none yet"]])),
        usagePart(box.usage, limitsOf(box.resources), box.trail),
        isolationPart(box.isolation),
      ),
    ];
  };
  return { title: () => "Sandbox", stop, draw: page };
}

const limitsOf = (r) => ({ cpu: r.milliCPU / 1000, memory: r.memoryBytes, pids: r.pids, disk: r.diskBytes });

function task(redraw, id) {
  let t;
  let box;
  let why;
  let usage;
  let problem = "";
  let said = "";
  const path = `v1/tasks/${encodeURIComponent(id)}`;
  const log = new Log(`./${path}/log`, redraw);
  const shell = new Shell(id, redraw);
  const load = async (signal) => {
    try {
      t = await ask(path, { signal });
      why = await ask(`${path}/explain`, { signal }).catch(() => null);
      if (t.sandbox) {
        const of = `limit=1&trail=true&q=${encodeURIComponent(t.sandbox)}`;
        const found = (await ask(`v1/sandboxes?${of}`, { signal })).sandboxes[0] || (box ? null : (await ask(`v1/sandboxes?gone=1h&${of}`, { signal })).sandboxes[0]);
        box = found || box;
      }
      if (t.sandbox && !final(t.state)) {
        usage = await ask(`${path}/usage`, { signal }).catch(() => usage);
      } else usage = t.usage;
    } catch (e) {
      if (e.name === "AbortError") throw e;
      problem = e.message;
    }
    redraw();
  };
  const stopPolling = every(() => (t && final(t.state) ? 30000 : 2000), load);
  const stopWatching = watch((what) => what === "events" && live.events.at(-1).task === id && load());
  const act = async (what) => {
    said = "";
    try {
      const r = await ask(`${path}/${what}`, { method: "POST" });
      if (what === "retry") location.hash = `#/task/${encodeURIComponent(r.id)}`;
      else t = r;
    } catch (e) {
      said = e.message;
    }
    redraw();
  };
  const page = () => {
    if (!t) return problem ? empty(problem) : h("div", { class: "loading" });
    return [
      head(t, act, shell),
      said ? h("p", { class: "problem", role: "alert" }, said) : null,
      h("p", { class: "sentence" }, [why?.summary, final(t.state) && t.message && !why?.summary?.includes(t.message) ? t.message : ""].filter(Boolean).join(". ")),
      shell.draw(active(t)),
      waterfall(t),
      h(
        "div",
        { class: "split agent-split" },
        h("section", { class: "log-part" }, log.draw(t)),
        h(
          "div",
          { class: "sections" },
          usage ? usagePart(usage, box ? limitsOf(box.resources) : null, final(t.state) ? null : box?.trail) : null,
          specPart(t),
          left(t, path),
          box ? isolationPart(box.isolation) : null,
          why?.steps?.length ? h("section", {}, h("h2", {}, "What happened"), h("ol", { class: "events" }, why.steps.map((e) => eventRow(e)))) : null,
        ),
      ),
    ];
  };
  return {
    title: () => t?.name || "Task",
    stop: () => {
      stopPolling();
      stopWatching();
      log.stop();
      shell.stop();
    },
    draw: page,
  };
}

function head(t, act, shell) {
  return h(
    "header",
    { class: "head" },
    h("h1", {}, t.name || t.spec.command.join(" ").slice(0, 80) || "Task"),
    state(t.state, final(t.state) && t.reason ? `${words(t.state)} · ${words(t.reason)}` : t.cancelling ? "cancelling" : undefined),
    h("code", { class: "id" }, t.id),
    h(
      "div",
      { class: "actions" },
      t.patchBytes ? h("a", { class: "button", href: `./v1/tasks/${encodeURIComponent(t.id)}/patch`, download: `${t.id}.patch` }, `Patch, ${bytes(t.patchBytes)}`) : null,
      shell.button(active(t)),
      final(t.state) ? h("button", acting("run a task again", { class: "button", onclick: () => act("retry") }), "Run again") : h("button", acting("cancel a task", { class: "button danger", disabled: t.cancelling, onclick: () => confirm(`Cancel ${t.name || t.id}? Its sandbox is destroyed.`) && act("cancel") }), "Cancel"),
    ),
  );
}

const phases = [["queue", "Queue"], ["claim", "Claim"], ["start", "Start"], ["setup", "Set-up"], ["run", "Run"], ["collect", "Collect"]];

/** waterfall draws the phases one behind the other. */
function waterfall(t) {
  const times = phases.map(([k, name]) => [k, name, t.phases[`${k}Seconds`] || 0]);
  if (!final(t.state)) {
    const now = { queued: "queue", claimed: "start", starting: "setup", running: "run", collecting: "collect" }[t.state];
    const done = times.reduce((n, p) => n + p[2], 0);
    const from = t.state === "queued" ? t.dueAt : has(t.runningAt) && t.state === "running" ? t.runningAt : null;
    const p = times.find((p) => p[0] === now);
    if (p) p[2] = from ? since(from) : Math.max(p[2], since(t.dueAt) - done);
  }
  const all = times.reduce((n, p) => n + p[2], 0) || 1;
  let at = 0;
  return h(
    "section",
    { class: "waterfall", "aria-label": "Phases" },
    times.map(([k, name, s]) => {
      const left = (at / all) * 100;
      at += s;
      return h("div", { class: "phase" }, h("span", {}, name), h("span", { class: "track" }, s > 0 ? h("i", { class: `phase-${k}`, style: { left: `min(${left.toFixed(2)}%, calc(100% - 2px))`, width: `max(2px, ${((s / all) * 100).toFixed(2)}%)` } }) : null), h("b", { class: s ? "" : "zero" }, s ? span(s) : "–"));
    }),
  );
}

/** usagePart is what is used against the limits, and how that went of late. */
function usagePart(u, limits, trail) {
  const against = (n, limit, f) => (limit ? `${f(n)} of ${f(limit)}` : f(n));
  const row = (name, now, limit, f, line) =>
    h(
      "div",
      { class: "use" },
      h("span", {}, name),
      limit ? meter(now, limit, "wide") : h("span", {}),
      line?.length > 1 ? spark(line, limit, { width: 72, height: 16 }) : h("span", {}),
      h("span", { class: "use-text" }, against(now, limit, f)),
    );
  const rate = trail?.ioBytes.slice(1); // the first has none before it
  return h(
    "section",
    {},
    h("h2", {}, "Usage"),
    trail ? row("CPU now", u.cpuNow || 0, limits?.cpu, cores, trail.cpu) : null,
    row("Memory", u.memoryBytes || u.memoryPeakBytes, limits?.memory, bytes, trail?.memory),
    row("Processes", u.pids || u.pidsPeak, limits?.pids, count, trail?.pids),
    row("Disk", u.diskBytes, limits?.disk, bytes),
    rate?.length > 1 ? row("Disk traffic", rate.at(-1), 0, (n) => `${bytes(n)}/s`, rate) : null,
    facts([
      ["CPU time", `${span(u.cpuSeconds)}${u.cpuThrottledSeconds ? `, throttled ${span(u.cpuThrottledSeconds)}` : ""}`],
      ["Memory peak", bytes(u.memoryPeakBytes)],
      ["Read, written", `${bytes(u.ioReadBytes)}, ${bytes(u.ioWriteBytes)}`],
      ["Sent, received", `${bytes(u.netSentBytes)}, ${bytes(u.netReceivedBytes)}`],
      u.oomKills ? ["Killed for memory", plural(u.oomKills, "process", "processes")] : null,
    ]),
  );
}

/** costOf is a task's share of the nodes so far, and what that is for an hour. */
function costOf(c) {
  if (!c) return null;
  const paid = c.computeMicroUSD / 1e6;
  const hours = c.busySeconds / 3600;
  return `${usd(paid)}${hours > 0 && paid > 0 ? ` for ${span(c.busySeconds)} in a sandbox, ${usd(paid / hours)} an hour` : ""}`;
}

function specPart(t) {
  const s = t.spec;
  return h(
    "section",
    {},
    h("h2", {}, "Task"),
    facts([
      ["Team", t.tenant],
      ["Labels", t.labels && Object.entries(t.labels).map(([k, v]) => h("span", { class: "tag" }, `${k}=${v}`))],
      ["Pool", t.pool],
      ["Cost", costOf(t.cost)],
      ["Launch", t.launch ? `${t.launch}, attempt ${t.attempt}` : null],
      ["Node", t.node],
      ["Sandbox", t.sandbox ? short(t.sandbox) : null],
      ["Repository", s.repo ? `${s.repo.url}${s.repo.ref ? ` at ${s.repo.ref}` : ""}` : null],
      ["Submitted", moment(t.submittedAt)],
      ["Ended", has(t.endedAt) ? moment(t.endedAt) : null],
      ["Exit", t.exitCode !== undefined ? String(t.exitCode) : t.signal],
      ["Network", s.network ? [s.network.mode, ...(s.network.allow || [])].join(" · ") : null],
      ["Time limit", s.timeouts ? `run ${s.timeouts.run}, queue ${s.timeouts.queue}` : null],
      ["Secrets", (s.secrets || []).join(", ")],
    ]),
    s.prompt ? h("pre", { class: "code" }, s.prompt) : null,
    h("pre", { class: "code", tabindex: "0", "aria-label": "Command" }, s.command.join(" ")),
  );
}

function left(t, path) {
  if (!t.artifacts?.length && !t.patchNote) return null;
  return h(
    "section",
    {},
    h("h2", {}, "Left behind"),
    t.patchNote ? h("p", { class: "muted" }, t.patchNote) : null,
    h("ul", { class: "files" }, (t.artifacts || []).map((a) => h("li", {}, h("a", { href: `./${path}/artifacts/${a.path.split("/").map(encodeURIComponent).join("/")}`, download: true }, a.path), h("span", { class: "muted" }, bytes(a.bytes))))),
  );
}

function isolationPart(i) {
  const yes = (v) => (v ? "yes" : "no");
  return h(
    "section",
    {},
    h("h2", {}, "Isolation"),
    facts([
      ["In short", confinement(i).join(" · ")],
      ["User", `${i.uid} inside${i.hostUID ? `, ${i.hostUID} on the node` : ""}`],
      ["Capabilities", i.capabilities?.length ? i.capabilities.join(", ") : "none"],
      ["No new privileges", yes(i.noNewPrivs)],
      ["Seccomp", yes(i.seccomp)],
      ["Read-only root", yes(i.readOnlyRoot)],
      ["Control groups", i.cgroups],
      ["Disk limit by", i.volume],
    ]),
    i.lost?.length ? h("ul", { class: "lost" }, i.lost.map((l) => h("li", {}, l))) : null,
  );
}
