// A small virtual DOM. Text only ever becomes text nodes and attributes:
// nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** h makes a node. Children may be nested lists; null and false are left out. */
export function h(tag, props, ...kids) {
  return { tag, props: props || {}, kids: flat(kids, []) };
}

/**
 * memo makes a node of make() only where one of deps is another than the last
 * time for this key; else what is there stays as it is.
 */
export const memo = (key, deps, make) => ({ tag: "memo", props: { key }, kids: [], deps, make });

const made = (v) => {
  if (!v.make) return v;
  const node = v.make();
  node.props.key = v.props.key;
  node.deps = v.deps;
  return node;
};

// What turns the order of text around, and other control characters, would let
// a name show as another one: they are made visible.
const odd = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const shown = (s) => s.replace(odd, "\ufffd");

function flat(list, out) {
  for (const k of list) {
    if (Array.isArray(k)) flat(k, out);
    else if (k !== null && k !== undefined && k !== false && k !== true) out.push(typeof k === "object" ? k : shown(String(k)));
  }
  return out;
}

/** draw makes the children of el those given. */
export function draw(el, ...kids) {
  patchKids(el, flat(kids, []), el.namespaceURI === SVG);
}

function create(v, svg) {
  if (typeof v === "string") return document.createTextNode(v);
  svg = svg || v.tag === "svg";
  const el = svg ? document.createElementNS(SVG, v.tag) : document.createElement(v.tag);
  patchProps(el, {}, v.props);
  patchKids(el, v.kids, svg);
  if (v.props.ref) v.props.ref(el);
  return el;
}

function patchProps(el, was, now) {
  for (const name in was) if (!(name in now)) set(el, name, null, was[name]);
  for (const name in now) if (was[name] !== now[name] || name === "value" || name === "checked") set(el, name, now[name], was[name]);
}

function set(el, name, value, was) {
  if (name === "key" || name === "ref" || name === "raw") return;
  if (name.startsWith("on")) {
    el[name] = value || null;
  } else if (name === "style") {
    for (const k in was || {}) if (!value || !(k in value)) el.style.removeProperty(k);
    for (const k in value || {}) el.style.setProperty(k, value[k]);
  } else if (name === "value" || name === "checked") {
    const v = value === null ? "" : value;
    if (el[name] !== v) el[name] = v;
  } else if (value === null || value === undefined || value === false) {
    el.removeAttribute(name);
  } else {
    el.setAttribute(name, value === true ? "" : name === "title" || name === "aria-label" ? shown(String(value)) : value);
  }
}

const tagOf = (v) => (typeof v === "string" ? "" : v.tag);

function patchKids(el, kids, svg) {
  const old = el.drawn || [];
  const keyed = new Map();
  const plain = [];
  for (const o of old) {
    if (o.v.props && o.v.props.key !== undefined) keyed.set(o.v.props.key, o);
    else plain.push(o);
  }
  let next = 0;
  const out = [];
  const kept = new Set();
  for (let v of kids) {
    let o;
    if (v.props && v.props.key !== undefined) {
      o = keyed.get(v.props.key);
      if (v.make && o && o.v.deps && v.deps.every((d, i) => d === o.v.deps[i])) {
        kept.add(o);
        out.push(o);
        continue;
      }
      v = made(v);
      if (o && o.v.tag !== v.tag) o = undefined;
    } else if (next < plain.length && tagOf(plain[next].v) === tagOf(v)) {
      o = plain[next++];
    } else if (next < plain.length) {
      next++;
    }
    if (o) {
      kept.add(o);
      if (typeof v === "string") {
        if (o.v !== v) o.n.data = v;
      } else {
        patchProps(o.n, o.v.props, v.props);
        if (!v.props.raw) patchKids(o.n, v.kids, svg || v.tag === "svg");
      }
      out.push({ v, n: o.n });
    } else {
      out.push({ v, n: create(v, svg) });
    }
  }
  for (const o of old) if (!kept.has(o)) o.n.remove();
  let at = el.firstChild;
  for (const o of out) {
    if (o.n === at) at = at.nextSibling;
    else el.insertBefore(o.n, at);
  }
  el.drawn = out;
}
