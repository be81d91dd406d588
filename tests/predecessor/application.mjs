// The application and its reverse proxy on one host: pages from here, /ws from the socket server.

import { readFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';

const PAGE = `<!doctype html><title>app</title><link rel="icon" href="data:,">
<script src="/old-client.js"></script>`;

/** Starts it in front of the server at `upstream` (a URL); `{ url, stop }`. */
export async function startApplication(upstream) {
  const script = await readFile(new URL('old-client.js', import.meta.url));
  const files = {
    '/application': ['text/html; charset=utf-8', PAGE],
    '/old-client.js': ['text/javascript; charset=utf-8', script],
  };
  const sockets = new Set();
  const front = createServer((asked, answer) => {
    const [type, body] = files[asked.url] ?? ['text/plain', 'no such page'];
    answer.writeHead(files[asked.url] ? 200 : 404, { 'Content-Type': type }).end(body);
  });
  front.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  // As nginx with `proxy_set_header Host $host` and the two upgrade headers does it.
  front.on('upgrade', (asked, client, early) => {
    const headers = { ...asked.headers, 'x-forwarded-for': client.remoteAddress };
    const forwarded = request(upstream + asked.url, { headers, setHost: false });
    forwarded.on('upgrade', (answer, server, first) => {
      const lines = [`HTTP/1.1 101 ${answer.statusMessage}`];
      for (let i = 0; i < answer.rawHeaders.length; i += 2) {
        lines.push(`${answer.rawHeaders[i]}: ${answer.rawHeaders[i + 1]}`);
      }
      client.write(`${lines.join('\r\n')}\r\n\r\n`);
      client.write(first);
      server.write(early);
      client.pipe(server).pipe(client);
      for (const end of [client, server]) end.on('error', () => (client.destroy(), server.destroy()));
    });
    forwarded.on('response', (answer) => {
      client.end(`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\nConnection: close\r\n\r\n`);
      answer.resume();
    });
    forwarded.on('error', () => client.destroy());
    forwarded.end();
  });
  await new Promise((done) => front.listen(0, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${front.address().port}`,
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => front.close(done));
    },
  };
}
