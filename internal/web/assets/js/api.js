// The API as the pages see it: requests, the stream of events, and what is
// asked for again and again. Addresses are relative, so that the pages work
// below any prefix.

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const live = {
  fleet: null,
  spec: null,
  version: "",
  role: "", // reader, operator, admin
  events: [], // newest last
  link: "connecting", // live, lost
  error: "",
  choice: null, // the fleets at this address, where there are several
};

const listeners = new Set();

/** watch calls f after every change; the returned function ends that. */
export function watch(f) {
  listeners.add(f);
  return () => listeners.delete(f);
}

export function tell(what) {
  for (const f of listeners) f(what);
}

let signedOut = () => {};
export const onSignedOut = (f) => (signedOut = f);

export async function ask(path, { method = "GET", body, signal } = {}) {
  let r;
  try {
    r = await fetch("./" + path, {
      method,
      signal,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Problem(0, "The server does not answer.");
  }
  if (r.status === 401 && path !== "session") signedOut();
  if (!r.ok) throw new Problem(r.status, await reason(r));
  return r.status === 204 ? null : r.json();
}

async function reason(r) {
  try {
    const p = await r.json();
    const fields = (p.errors || []).map((f) => `${f.location}: ${f.message}`);
    return [p.detail || p.title, ...fields].join("\n");
  } catch {
    return `${r.status} ${r.statusText}`;
  }
}

/** every runs f now and then again after pause() milliseconds, while the page is seen. */
export function every(pause, f) {
  let ended = false;
  let timer = 0;
  const controller = new AbortController();
  let busy = false;
  const run = async () => {
    if (busy || ended) return;
    clearTimeout(timer);
    busy = true;
    if (!document.hidden) {
      try {
        await f(controller.signal);
      } catch (e) {
        if (e.name !== "AbortError" && !(e instanceof Problem)) console.error(e);
      }
    }
    busy = false;
    if (!ended) timer = setTimeout(run, pause());
  };
  const seen = () => document.hidden || run();
  document.addEventListener("visibilitychange", seen);
  run();
  return () => {
    ended = true;
    clearTimeout(timer);
    controller.abort();
    document.removeEventListener("visibilitychange", seen);
  };
}

const mostEvents = 2000;

/** follow keeps live.events up to date; a lost connection goes on behind the last event. */
function follow() {
  let source;
  let timer = 0;
  let wait = 500;
  const open = () => {
    const last = live.events.at(-1)?.seq;
    source = new EventSource("./v1/events?follow=true" + (last ? `&after=${last}` : ""));
    source.onopen = () => {
      wait = 500;
      live.link = "live";
      tell("link");
    };
    source.addEventListener("event", (m) => {
      const e = JSON.parse(m.data);
      if (e.seq <= (live.events.at(-1)?.seq || 0)) return;
      live.events.push(e);
      if (live.events.length > mostEvents) live.events.splice(0, live.events.length - mostEvents);
      tell("events");
    });
    source.onerror = () => {
      live.link = "lost";
      tell("link");
      if (source.readyState === EventSource.CLOSED) {
        timer = setTimeout(open, wait);
        wait = Math.min(wait * 2, 10000);
      }
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}

/** begin keeps the fleet and its events up to date until the returned function is called. */
export function begin() {
  const ends = [
    every(
      () => 1000,
      async (signal) => {
        try {
          live.fleet = await ask("v1/fleet", { signal });
          live.error = "";
        } catch (e) {
          if (e.name === "AbortError") throw e;
          live.error = e.message;
          if (e.status === 404) live.choice = (await ask("fleets", { signal }).catch(() => null))?.fleets || null;
        }
        tell("fleet");
      },
    ),
    follow(),
  ];
  ask("v1/fleet/spec").then((s) => ((live.spec = s), tell("spec")), () => {});
  ask("v1/version").then((v) => ((live.version = v.version), tell("spec")), () => {});
  return () => ends.forEach((f) => f());
}

/** scaling are the events that moved the fleet, or say why it did not move. */
export const scaling = (e) => e.layer !== "tasks" && !["sandbox_ready", "sandboxes_taken_over"].includes(e.kind);

const scalingKinds = [
  "scale_out", "scale_in", "undrain", "recovered", "signals_missing", "breaker_open", "breaker_probe", "cap_binds", "budget_binds",
  "no_template", "gave_up", "burst", "node_scale", "node_cordon", "node_uncordon", "node_release", "sandbox_failed", "sandbox_lost",
];

/** scalingSince reads them from the journal, page by page. */
export async function scalingSince(since, signal) {
  const kinds = scalingKinds.map((k) => `kind=${k}`).join("&");
  const page = 5000;
  const out = [];
  for (let after = 0, n = page; n === page && out.length < 4 * page; ) {
    const got = (await ask(`v1/events?${kinds}&since=${since.toISOString()}&limit=${page}&after=${after}`, { signal })).events;
    out.push(...got);
    n = got.length;
    after = got.at(-1)?.seq || 0;
  }
  return out;
}
