// Signing in: the token once, then a cookie that no script can read.

import { h, draw } from "./dom.js";
import { ask } from "./api.js";

export function signIn(root, entered) {
  let problem = "";
  let busy = false;
  const submit = async (e) => {
    e.preventDefault();
    const token = e.target.elements.token.value.trim();
    if (!token) return;
    busy = true;
    paint();
    try {
      await ask("session", { method: "POST", body: { token } });
      entered();
      return;
    } catch (err) {
      problem = err.message;
    }
    busy = false;
    paint();
    root.querySelector("input").select();
  };
  const paint = () =>
    draw(
      root,
      h(
        "main",
        { class: "signin" },
        h(
          "form",
          { onsubmit: submit },
          h("span", { class: "logo", "aria-hidden": "true" }, h("i"), h("i"), h("i")),
          h("h1", {}, "Sign in to Muster"),
          h("label", { for: "token" }, "Token"),
          h("input", { id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "hint problem" }),
          h("p", { id: "problem", class: "problem", role: "alert" }, problem),
          h("button", { class: "primary", disabled: busy }, busy ? "Signing in" : "Sign in"),
          h("p", { id: "hint", class: "hint" }, "On the machine of the fleet, ", h("code", {}, "muster token"), " prints it. This browser stays signed in for 12 hours."),
        ),
      ),
    );
  paint();
  root.querySelector("input").focus();
}
