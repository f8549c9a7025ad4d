// How numbers and times read.

/** span writes seconds for people: 3.2 ms, 41 s, 3 min 20 s, 5 h 12 min. */
export function span(s) {
  if (s === null || s === undefined || !isFinite(s)) return "–";
  if (s <= 0) return "0 s";
  if (s < 0.0001) return "<0.1 ms";
  if (s < 0.01) return `${trim(s * 1000, 1)} ms`;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${trim(s, 1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return two(s, 60, "min", 1, "s");
  if (s < 86400) return two(s, 3600, "h", 60, "min");
  return two(s, 86400, "d", 3600, "h");
}

function two(s, big, a, small, b) {
  const n = Math.floor(s / big);
  const rest = Math.floor((s - n * big) / small);
  return rest ? `${n} ${a} ${rest} ${b}` : `${n} ${a}`;
}

const trim = (v, digits) => String(+v.toFixed(digits));

/** bytes writes a size in binary units. */
export function bytes(n) {
  if (!n) return "0 B";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return `${n >= 100 || i === 0 ? Math.round(n) : trim(n, 1)} ${units[i]}`;
}

export const count = (n) => Number(n).toLocaleString("en-US");

export const cores = (n) => (n < 0.095 ? trim(n, 2) : trim(n, 1));

export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many || one + "s"}`;

export function usd(n) {
  return `$${n.toFixed(n !== 0 && Math.abs(n) < 0.1 ? 4 : 2)}`;
}

/** has tells a time that is there from Go's zero time. */
export const has = (t) => Boolean(t) && !String(t).startsWith("0001");

export const since = (t, now = Date.now()) => Math.max(0, (now - Date.parse(t)) / 1000);

const pad = (n) => String(n).padStart(2, "0");

export function clock(t) {
  const d = new Date(t);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

export function moment(t) {
  const d = new Date(t);
  const day = d.toDateString() === new Date().toDateString() ? "" : `${d.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} `;
  return day + clock(t);
}

/** words turns a name such as scale_out into words. */
export const words = (s) => String(s).replaceAll("_", " ");

export const capital = (s) => s.charAt(0).toUpperCase() + s.slice(1);

/** money writes an amount of millionths of a dollar: cents, more digits for little, none for much. */
export function money(micro) {
  const v = Math.abs(micro) / 1e6;
  const digits = v === 0 || v >= 1000 ? 0 : v >= 0.1 ? 2 : v >= 0.001 ? 4 : 6;
  return `${micro < 0 ? "−" : ""}$${v.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

/** share writes a part of 1 in percent. */
export const share = (v) => `${(v * 100).toFixed(Math.abs(v) < 0.0995 && v !== 0 ? 1 : 0)} %`;

/** hours writes a number of hours. */
export const hours = (n) => `${n >= 100 ? count(Math.round(n)) : trim(n, n < 10 ? 2 : 1)} h`;
