// A wire between browser and server that can be cut (new connections are refused then), or kept from passing WebSockets on.

import net from 'node:net';

/** Leads to `port` on loopback; `url` is what the browser is given. */
export async function startWire(port) {
  const ends = new Set();
  let isCut = false;
  let hindrance;
  const wire = net.createServer((near) => {
    near.on('error', () => {});
    if (isCut) {
      near.destroy();
      return;
    }
    near.once('data', (head) => {
      // A browser asks for a WebSocket on a connection of its own.
      if (hindrance && /^upgrade: websocket\r$/im.test(head.toString('latin1'))) {
        ends.add(near);
        near.on('close', () => ends.delete(near));
        if (hindrance === 'refused') near.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
        near.resume();
      } else pass(near, head);
    });
  });
  function pass(near, head) {
    const far = net.connect(port, '127.0.0.1');
    far.write(head);
    far.on('error', () => near.destroy());
    for (const [one, other] of [[near, far], [far, near]]) {
      ends.add(one);
      one.pipe(other);
      one.on('close', () => {
        ends.delete(one);
        other.destroy();
      });
    }
  }
  await new Promise((resolve) => wire.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${wire.address().port}`,
    /** Everything that is open ends without a goodbye, and nothing new gets through. */
    cut() {
      isCut = true;
      for (const end of [...ends]) end.resetAndDestroy?.() ?? end.destroy();
    },
    mend() {
      isCut = false;
    },
    /** What becomes of new WebSockets: 'refused', 'swallowed' (no answer ever), or undefined: they pass. */
    hinder(how) {
      hindrance = how;
    },
    async stop() {
      this.cut();
      await new Promise((resolve) => wire.close(resolve));
    },
  };
}
