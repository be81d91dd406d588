// What happens to the page itself.

/**
 * `wake`: it is seen again, or the network is back. `sleep`: it is about to be frozen or put away, and
 * runs no more until `rise`. Outside of a page nothing ever happens. Returns how to stop listening.
 */
export function onPage(wake: () => void, sleep?: () => void, rise = wake): () => void {
  const end = new AbortController();
  const { signal } = end;
  const on = (target: EventTarget | undefined, type: string, handler?: (event: any) => void) =>
    target?.addEventListener?.(type, handler!, { signal });
  const page = globalThis.document;
  on(globalThis, 'online', wake);
  on(page, 'visibilitychange', () => page.hidden || wake());
  on(globalThis, 'pagehide', sleep);
  on(page, 'freeze', sleep);
  on(globalThis, 'pageshow', (event) => event.persisted && rise());
  on(page, 'resume', rise);
  return () => end.abort();
}
