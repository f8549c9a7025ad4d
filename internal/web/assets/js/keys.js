// Keys: g and a letter go to a view, / to the search, ? lists them.

import { draw, h } from "./dom.js";
import { icon } from "./parts.js";

const views = { f: ["fleet", "Fleet"], a: ["agents", "Agents"], t: ["tasks", "Tasks"], l: ["timeline", "Timeline"], c: ["cost", "Cost"], p: ["patterns", "Patterns"], n: ["nodes", "Nodes and pools"] };

const there = (at) => document.querySelector(`.views a[href="#/${at}"]`) !== null;

const rows = () => [
  ...Object.entries(views).filter(([, [at]]) => there(at)).map(([k, [, name]]) => [["g", k], name]),
  [["/"], "Search"],
  [["↑", "↓"], "Move in a table; Page up, Page down, Home and End, too"],
  [["Enter"], "Open the row, or press what has the focus"],
  [["Ctrl", "Alt", "Q"], "Leave the terminal"],
  [["Esc"], "Close what is open"],
  [["?"], "This list"],
];

let box = null;

function show() {
  if (!box) {
    box = document.createElement("dialog");
    box.className = "dialog keys-dialog";
    box.setAttribute("aria-label", "Keys");
    document.body.append(box);
  }
  draw(
    box,
    h("header", { class: "dialog-head" }, h("h2", {}, "Keys"), h("button", { class: "plain", "aria-label": "Close", onclick: () => box.close() }, icon("close"))),
    h("dl", { class: "keys-list" }, rows().map(([list, text]) => [h("dt", {}, list.map((k) => h("kbd", {}, k))), h("dd", {}, text)])),
  );
  if (!box.open) box.showModal();
}

export const keysButton = () => h("button", { class: "plain keys-button", onclick: show, title: "Keys (?)" }, icon("keys"), h("span", {}, "Keys"));

/** keys listens; go goes to a view. */
export function keys(go) {
  let before = "";
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(input|textarea|select)$/i.test(e.target.tagName)) return;
    const to = views[e.key];
    const signedIn = document.querySelector(".frame") !== null;
    if (before === "g" && to && there(to[0])) go(to[0]);
    else if (e.key === "?" && signedIn) show();
    else if (e.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) {
        e.preventDefault();
        search.focus();
      }
    }
    before = e.key;
  });
}
