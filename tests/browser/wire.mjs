// A wire between browser and server that can be cut: new connections are refused then, or hang.

import net from 'node:net';

/** Leads to `port` on loopback; `url` is what the browser is given. */
export async function startWire(port) {
  const ends = new Set();
  let isCut = false;
  const wire = net.createServer((near) => {
    near.on('error', () => {});
    if (isCut) {
      near.destroy();
      return;
    }
    const far = net.connect(port, '127.0.0.1');
    far.on('error', () => near.destroy());
    for (const [one, other] of [[near, far], [far, near]]) {
      ends.add(one);
      one.pipe(other);
      one.on('close', () => {
        ends.delete(one);
        other.destroy();
      });
    }
  });
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
    async stop() {
      this.cut();
      await new Promise((resolve) => wire.close(resolve));
    },
  };
}
