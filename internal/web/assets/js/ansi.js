// Logs of agents as text with colours. Escape sequences become classes of
// spans, everything else of theirs is dropped: nothing an agent prints can be
// more than text.

const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

export class Ansi {
  constructor() {
    this.reset();
    this.rest = "";
  }

  reset() {
    this.fg = "";
    this.bold = this.dim = this.under = this.italic = false;
  }

  class() {
    return [this.fg && `a-${this.fg}`, this.bold && "a-bold", this.dim && "a-dim", this.under && "a-under", this.italic && "a-italic"]
      .filter(Boolean)
      .join(" ");
  }

  sgr(params) {
    const p = params === "" ? [0] : params.split(/[;:]/).map(Number);
    for (let i = 0; i < p.length; i++) {
      const c = p[i];
      if (c === 0) this.reset();
      else if (c === 1) this.bold = true;
      else if (c === 2) this.dim = true;
      else if (c === 3) this.italic = true;
      else if (c === 4) this.under = true;
      else if (c === 22) this.bold = this.dim = false;
      else if (c === 23) this.italic = false;
      else if (c === 24) this.under = false;
      else if (c >= 30 && c <= 37) this.fg = NAMES[c - 30];
      else if (c >= 90 && c <= 97) this.fg = NAMES[c - 90];
      else if (c === 39) this.fg = "";
      else if (c === 38 || c === 48) {
        const n = p[i + 1] === 5 ? 2 : p[i + 1] === 2 ? 4 : 0;
        if (c === 38 && n === 2 && p[i + 2] >= 0 && p[i + 2] < 16) this.fg = NAMES[p[i + 2] % 8];
        i += n;
      }
    }
  }

  /** feed returns pieces [class, text] of what was written. */
  feed(text) {
    const out = [];
    text = this.rest + text;
    this.rest = "";
    // The end may be half a sequence.
    const cut = text.lastIndexOf("\x1b");
    if (cut >= 0 && text.length - cut < 64 && /^\x1b(\[[0-?]*[ -/]*|[\]PX^_][^\x07\n]*)?$/.test(text.slice(cut))) {
      this.rest = text.slice(cut);
      text = text.slice(0, cut);
    }
    let at = 0;
    // A string for the terminal ends with its line at the latest: one without an
    // end must not hide what comes behind it.
    const sequence = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[^[\]PX^_\n])/g;
    for (let m; (m = sequence.exec(text)); ) {
      this.push(out, text.slice(at, m.index));
      if (m[2] === "m") this.sgr(m[1]);
      at = m.index + m[0].length;
    }
    this.push(out, text.slice(at));
    return out;
  }

  /** end returns what was held back for the rest of a sequence that never came. */
  end() {
    const out = [];
    this.push(out, this.rest);
    this.rest = "";
    return out;
  }

  push(out, s) {
    // Other control characters, and those that reorder text, are made visible.
    s = s.replace(/\r\n/g, "\n").replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
    if (s) out.push([this.class(), s]);
  }
}
