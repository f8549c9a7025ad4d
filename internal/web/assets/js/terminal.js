// A terminal in the sandbox of a task: xterm.js over the API's exec.

import "../vendor/xterm/xterm.js";
import "../vendor/xterm/addon-fit.js";

const protocol = "muster.exec.v1";
const stdin = 0;
const stdout = 1;
const chunk = 32 << 10; // bytes of one message of input
const most = 8 << 20; // bytes that wait to be shown

// The policy forbids styles in the page. What xterm.js writes into style
// elements and attributes goes the way of scripts instead, as style sheets and
// properties, which the policy allows. Colours that are no class of its own it
// sets as an attribute of spans, which it makes of the document at large.
HTMLSpanElement.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};

/** within is the document as xterm.js is given it: style elements become sheets. */
function within(sheets) {
  const style = () => {
    const sheet = new CSSStyleSheet();
    sheets.push(sheet);
    document.adoptedStyleSheets.push(sheet);
    const el = document.createElement("i");
    el.hidden = true;
    Object.defineProperty(el, "textContent", { set: (text) => sheet.replaceSync(text), get: () => "" });
    return el;
  };
  const create = (tag, ...rest) => (tag === "style" ? style() : document.createElement(tag, ...rest));
  return new Proxy(document, {
    get(of, name) {
      if (name === "createElement") return create;
      const v = Reflect.get(of, name, of);
      return typeof v === "function" ? v.bind(of) : v;
    },
  });
}

const theme = { background: "#0f1114", foreground: "#d9dce2", cursor: "#d9dce2", selectionBackground: "#3469cf80", black: "#5b6270", red: "#ff8078", green: "#5fd38d", yellow: "#f0c060", blue: "#84b0ff", magenta: "#d69bf5", cyan: "#63d0dd", white: "#d9dce2", brightBlack: "#8a919e", brightRed: "#ff9b95", brightGreen: "#84e3aa", brightYellow: "#f7d58a", brightBlue: "#a9c8ff", brightMagenta: "#e3bdf8", brightCyan: "#8fdfe8", brightWhite: "#ffffff" };

/**
 * open begins a shell in el and returns {close}. said hears how it stands:
 * connecting, open, or why it ended.
 */
export function open(el, task, said) {
  const sheets = [];
  const term = new globalThis.Terminal({
    documentOverride: within(sheets),
    fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
    fontSize: 12,
    lineHeight: 1.3,
    cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    scrollback: 5000,
    screenReaderMode: true, // the text is there for those who do not see the picture
    theme,
    linkHandler: { activate: () => {} }, // what a sandbox prints is no link
  });
  const fit = new globalThis.FitAddon.FitAddon();
  term.loadAddon(fit);
  term.open(el);
  fit.fit();
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${new URL(`./v1/tasks/${encodeURIComponent(task)}/exec`, location.href).pathname}`, protocol);
  socket.binaryType = "arraybuffer";
  let ended = false;
  let waiting = 0;
  const end = (why) => {
    if (ended) return;
    ended = true;
    sized.disconnect();
    term.options.disableStdin = true;
    term.options.cursorBlink = false;
    socket.close();
    said(why);
  };
  const tell = (m) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(m));
  const type = (bytes) => {
    for (let at = 0; at < bytes.length && socket.readyState === WebSocket.OPEN; at += chunk) {
      const part = bytes.subarray(at, at + chunk);
      const m = new Uint8Array(part.length + 1);
      m[0] = stdin;
      m.set(part, 1);
      socket.send(m);
    }
  };
  socket.onopen = () => {
    tell({ type: "start", command: ["sh", "-c", "command -v bash >/dev/null && exec bash -l; exec sh -l"], env: { TERM: "xterm-256color" }, tty: true, stdin: true, rows: term.rows, cols: term.cols });
    said("open");
    term.focus();
  };
  socket.onmessage = (m) => {
    if (typeof m.data === "string") return over(JSON.parse(m.data));
    const bytes = new Uint8Array(m.data);
    if (bytes[0] < stdout || ended) return;
    waiting += bytes.length;
    if (waiting > most) return end("It printed faster than could be shown.");
    term.write(bytes.subarray(1), () => (waiting -= bytes.length));
  };
  const over = (m) => {
    if (m.type === "exit") end(m.code ? `The shell ended with ${m.code}.` : "The shell ended.");
    else if (m.type === "error") end([m.message, m.hint].filter(Boolean).join("; "));
  };
  socket.onclose = () => end("The connection ended: the task is over, or the server does not answer.");
  const encoder = new TextEncoder();
  term.onData((text) => type(encoder.encode(text)));
  term.onBinary((text) => type(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  term.onResize(({ rows, cols }) => tell({ type: "resize", rows, cols }));
  // Tab belongs to the shell, so there is another way out.
  term.attachCustomKeyEventHandler((e) => {
    if (!(e.ctrlKey && e.altKey && e.code === "KeyQ")) return true;
    document.querySelector(".terminal-close")?.focus();
    return false;
  });
  const sized = new ResizeObserver(() => el.clientHeight && fit.fit());
  sized.observe(el);
  return {
    close() {
      end("");
      term.dispose();
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => !sheets.includes(s));
    },
  };
}
