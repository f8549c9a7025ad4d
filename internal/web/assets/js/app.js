// The frame: who is signed in, which view is shown, and redrawing.

import { h, draw } from "./dom.js";
import { ask, begin, live, onSignedOut, watch } from "./api.js";
import { signIn } from "./signin.js";
import * as fleet from "./fleet.js";
import * as agents from "./agents.js";
import * as agent from "./agent.js";
import * as tasks from "./tasks.js";
import * as timeline from "./timeline.js";
import * as cost from "./cost.js";
import * as nodes from "./nodes.js";
import * as patterns from "./patterns.js";
import { icon } from "./parts.js";
import { keys, keysButton } from "./keys.js";
import { mayAct, why } from "./role.js";

const root = document.getElementById("app");

const views = [
  { at: "fleet", name: "Fleet", icon: "fleet", view: fleet },
  { at: "agents", name: "Agents", icon: "agents", view: agents },
  { at: "tasks", name: "Tasks", icon: "tasks", view: tasks },
  { at: "timeline", name: "Timeline", icon: "timeline", view: timeline },
  { at: "nodes", name: "Nodes", icon: "nodes", view: nodes },
  { at: "cost", name: "Cost", icon: "cost", view: cost },
  { at: "patterns", name: "Patterns", icon: "patterns", view: patterns },
];
const details = { task: { view: agent, under: "tasks" }, sandbox: { view: agent, under: "agents" } };

let shown = null; // {at, name, under, draw, stop}
let end = null; // of what begin began
let pending = false;

/** redraw draws once before the next frame, however often it is called. */
export function redraw() {
  if (pending) return;
  pending = true;
  const run = () => {
    if (!pending) return;
    pending = false;
    paint();
  };
  if (document.hidden) setTimeout(run, 0);
  else requestAnimationFrame(run);
}

function paint() {
  if (!shown) return;
  const f = live.fleet;
  document.title = `${shown.title()} · ${f ? f.name : "Muster"}`;
  draw(
    root,
    h("a", { class: "skip", href: "#main", onclick: skip }, "Skip to content"),
    h(
      "div",
      { class: "frame" },
      h(
        "nav",
        { class: "side", "aria-label": "Views" },
        h("div", { class: "brand" }, h("span", { class: "logo", "aria-hidden": "true" }, h("i"), h("i"), h("i")), h("span", { class: "brand-name" }, f ? f.name : "Muster")),
        h(
          "ul",
          { class: "views" },
          views.map((v) =>
            h("li", {}, h("a", { href: `#/${v.at}`, class: "view", "aria-current": shown.under === v.at ? "page" : null }, icon(v.icon), h("span", {}, v.name))),
          ),
        ),
        h("div", { class: "side-end" }, linkState(), mayAct() ? null : h("div", { class: "role", title: why("change anything") }, "Reader: looks only"), keysButton(), themeButton(), h("button", { class: "plain", onclick: signOut, title: "Sign out" }, icon("out"), h("span", {}, "Sign out")), h("div", { class: "version" }, live.version)),
      ),
      h("main", { id: "main", class: "main", tabindex: "-1" }, live.choice && !live.fleet ? choice() : [banner(), h("div", { key: shown.key, class: `page page-${shown.name}` }, shown.draw())]),
    ),
  );
}

function skip(e) {
  e.preventDefault();
  document.getElementById("main").focus();
}

function banner() {
  if (live.error && live.fleet) return h("div", { class: "alert", role: "alert" }, `${live.error} What is shown is of ${new Date(live.fleet.at).toLocaleTimeString("en-GB")}.`);
  if (live.error) return h("div", { class: "alert", role: "alert" }, live.error);
  return null;
}

/** choice lists the fleets, where the address has several. */
function choice() {
  return h(
    "div",
    { key: "choice", class: "page" },
    h("header", { class: "head" }, h("h1", {}, "Fleets")),
    live.choice.length
      ? h("ul", { class: "files" }, live.choice.map((f) => h("li", {}, h("a", { href: `.${f.path}/` }, `${f.namespace}/${f.name}`))))
      : h("p", { class: "muted" }, "There is no fleet yet."),
  );
}

function linkState() {
  const text = { live: "Live", lost: "Reconnecting", connecting: "Connecting" }[live.link];
  return h("div", { class: `link link-${live.link}`, role: "status" }, h("i", { "aria-hidden": "true" }), h("span", {}, text));
}

// The theme: the system's, or the one chosen here.
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";

function themeButton() {
  const to = isDark() ? "light" : "dark";
  return h("button", { class: "plain", onclick: () => setTheme(to), title: `Switch to ${to}` }, icon(to === "dark" ? "moon" : "sun"), h("span", {}, to === "dark" ? "Dark" : "Light"));
}

function setTheme(t) {
  document.documentElement.dataset.theme = t;
  localStorage.setItem("muster.theme", t);
  redraw();
}

async function signOut() {
  await ask("session", { method: "DELETE" }).catch(() => {});
  leave();
}

/** leave forgets everything and asks to sign in. */
function leave() {
  if (shown) shown.stop();
  if (end) end();
  shown = end = null;
  Object.assign(live, { fleet: null, spec: null, version: "", role: "", events: [], link: "connecting", error: "", choice: null });
  document.title = "Sign in · Muster";
  signIn(root, async () => enter(await ask("session").catch(() => ({}))));
}

function enter({ role }) {
  live.role = role || "reader";
  draw(root);
  end = begin();
  go();
}

function go() {
  if (!end) return;
  const [, at = "", id = ""] = location.hash.split("?")[0].split("/");
  const main = views.find((v) => v.at === at);
  const detail = details[at];
  if (!main && !(detail && id)) {
    location.replace("#/fleet");
    return;
  }
  if (shown) shown.stop();
  const { view, under } = main ? { view: main.view, under: main.at } : detail;
  const key = main ? at : `${at}/${id}`;
  shown = { name: main ? at : "agent", under, key, stop() {}, draw: () => null, title: () => "" };
  Object.assign(shown, view.start({ redraw, kind: at, id: decodeURIComponent(id) }));
  scrollTo(0, 0);
  redraw();
}

async function boot() {
  const kept = localStorage.getItem("muster.theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
  dark.addEventListener("change", redraw);
  addEventListener("hashchange", go);
  watch(redraw);
  onSignedOut(leave);
  const code = /^#signin=([A-Z0-9]+)$/.exec(location.hash);
  if (code) {
    history.replaceState(null, "", "#/fleet"); // the code is not kept in the history
    await ask("session", { method: "POST", body: { code: code[1] } }).catch(() => {});
  }
  const s = await ask("session").catch(() => ({ signedIn: false }));
  if (s.signedIn) enter(s);
  else leave();
}

keys((at) => end && (location.hash = `#/${at}`));
boot();
