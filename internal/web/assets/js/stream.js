// Streams of the server that begin anew when the connection is lost.

/** clean leaves out what is empty. */
export const clean = (o) => Object.fromEntries(Object.entries(o).filter(([, v]) => v !== "" && v !== null && v !== undefined));

/**
 * reopening hands on the events named kind of a stream that tells everything in
 * its first event, and says with each whether it is the first of a connection.
 * The returned function ends it.
 */
export function reopening(url, kind, take, lost) {
  let source;
  let timer = 0;
  let wait = 500;
  const open = () => {
    let first = true;
    source = new EventSource(url);
    source.onopen = () => (first = true); // also when the browser comes back by itself
    source.addEventListener(kind, (m) => {
      wait = 500;
      take(JSON.parse(m.data), first);
      first = false;
    });
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      lost("The list is not live: the server does not answer. It is tried again.");
      timer = setTimeout(open, wait);
      wait = Math.min(wait * 2, 10000);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
