// The server in the predecessor's place: configured by the variables that this one read.

import { createServer } from 'node:net';
import jwt from 'jsonwebtoken';
import { startServer } from '../browser/server.mjs';

export const SECRET = 'the secret that the application and its socket server share';

/** Starts `fanfare` without arguments, with the predecessor's variables, and with `more` of them. */
export async function startDropIn(more = {}) {
  const [ws, metrics] = await freePorts(2);
  const server = await startServer({
    env: {
      NEXTAUTH_SECRET: SECRET,
      WS_PORT: String(ws),
      METRICS_PORT: String(metrics),
      // Nobody listens there: the embedded backend must not mind.
      REDIS_URL: 'redis://127.0.0.1:1',
      ...more,
    },
  });
  return Object.assign(server, { wsPort: ws, metricsPort: metrics });
}

/** A token as the application's own route signed it; without `userId`, name the `subject`. */
export function mint(userId, options = {}) {
  const claims = userId ? { userId, sub: userId, wallet: `wallet-of-${userId}` } : {};
  return jwt.sign(claims, SECRET, {
    algorithm: 'HS256',
    expiresIn: '30m',
    issuer: 'fonana.me',
    audience: 'fonana-websocket',
    ...options,
  });
}

/** Ports that were free a moment ago. */
async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer());
  await Promise.all(
    servers.map((one) => new Promise((done) => one.listen(0, '127.0.0.1', done))),
  );
  const ports = servers.map((one) => one.address().port);
  await Promise.all(servers.map((one) => new Promise((done) => one.close(done))));
  return ports;
}
