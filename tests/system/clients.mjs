// Those who use the installed server: a backend that publishes, and clients that follow a channel,
// come back by themselves and notice every gap.

import { createHmac, randomUUID } from 'node:crypto';
import http from 'node:http';
import WebSocket from 'ws';

export const ADDRESS = '127.0.0.1:3002';

/** Times that a connection was refused: the port was closed. With a socket unit it never is. */
export const refused = { count: 0 };

/** Publishers and followers that were not stopped yet. */
const here = new Set();

/** Stops them all. */
export async function everybodyLeaves() {
  await Promise.all([...here].map((one) => one.leave()));
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });

/** One request; resolves with {status, json}; rejects if there was no answer. */
export function request(method, path, { headers = {}, body, timeoutMs = 60_000 } = {}) {
  return new Promise((resolve, reject) => {
    const [host, port] = ADDRESS.split(':');
    const text = body === undefined ? undefined : JSON.stringify(body);
    const outgoing = http.request(
      {
        host, port, method, path, agent, timeout: timeoutMs,
        headers: text ? { ...headers, 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) } : headers,
      },
      (answer) => {
        let got = '';
        answer.setEncoding('utf8');
        answer.on('data', (data) => (got += data));
        answer.on('error', reject);
        answer.on('end', () => {
          let json = null;
          try {
            json = JSON.parse(got);
          } catch {
            // Not every answer is JSON.
          }
          resolve({ status: answer.statusCode, json, text: got });
        });
      },
    );
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${timeoutMs} ms`)));
    outgoing.on('error', (error) => {
      if (error.code === 'ECONNREFUSED') refused.count += 1;
      reject(error);
    });
    outgoing.end(text);
  });
}

/** An HS256 token as any backend signs it. */
export function mint(secret, user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const claims = { userId: user, sub: user, iss: 'fonana.me', aud: 'fonana-websocket', iat: now, exp: now + 1800 };
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Publishes {n: 1}, {n: 2}, .. to one channel, each again and again until it is acknowledged. */
export class Publisher {
  constructor(apiKey, channel, everyMs) {
    Object.assign(this, { apiKey, channel, everyMs, acknowledged: 0, stopped: false });
    here.add(this);
    this.done = this.#publish();
  }

  /** Resolves when what is under way is acknowledged. */
  async stop() {
    this.stopped = true;
    here.delete(this);
    await this.done;
  }

  async leave() {
    this.left = true;
    await this.stop();
  }

  async #publish() {
    while (!this.stopped) {
      const began = performance.now();
      await this.#once(this.acknowledged + 1, randomUUID());
      this.acknowledged += 1;
      await pause(this.everyMs - (performance.now() - began));
    }
  }

  async #once(n, key) {
    while (!this.left) {
      const answer = await request('POST', '/api/publish', {
        headers: { 'X-API-Key': this.apiKey, 'Idempotency-Key': key },
        body: { channel: this.channel, event: { type: 'tick', n } },
      }).catch(() => null);
      if (answer?.status === 200) return;
      if (answer && answer.status < 500) throw new Error(`publish: ${answer.status} ${answer.text}`);
      await pause(50);
    }
  }
}

/** Follows a channel; `last` is the number of its last event, `faults` what should not have been. */
export class Follower {
  constructor(secret, user, channel, address = '127.0.0.1') {
    Object.assign(this, { secret, user, channel, address });
    Object.assign(this, { last: 0, opened: 0, recovered: 0, faults: [], position: null, stopped: false });
    here.add(this);
    this.#open();
  }

  stop() {
    this.stopped = true;
    here.delete(this);
    this.socket.terminate();
  }

  leave() {
    this.stop();
  }

  #open() {
    let retryAfterMs = 100;
    const socket = new WebSocket(`ws://${ADDRESS}/ws`, {
      headers: { Authorization: `Bearer ${mint(this.secret, this.user)}`, 'X-Forwarded-For': this.address },
    });
    this.socket = socket;
    socket.on('message', (data) => {
      const message = JSON.parse(data);
      if (message.type === 'tick') this.#event(message);
      else if (message.type === 'connected') this.#subscribe();
      else if (message.type === 'subscribed') this.#subscribed(message.data);
      else if (message.type === 'disconnect') {
        retryAfterMs = message.data.retryAfterMs ?? retryAfterMs;
        if (!message.data.reconnect) this.faults.push(`told to stay away: ${data}`);
      }
    });
    socket.on('error', (error) => {
      if (error.code === 'ECONNREFUSED') refused.count += 1;
    });
    socket.on('close', () => {
      if (!this.stopped) setTimeout(() => this.stopped || this.#open(), retryAfterMs);
    });
  }

  #subscribe() {
    const recover = this.position ? { recover: this.position } : {};
    this.socket.send(JSON.stringify({ type: 'subscribe', channel: this.channel, ...recover }));
  }

  #subscribed(data) {
    this.opened += 1;
    if (!this.position) this.position = { epoch: data.epoch, offset: data.offset };
    else if (data.recovered) this.recovered += 1;
    else this.faults.push(`not recovered: ${data.reason}`);
  }

  #event({ n, _meta }) {
    if (this.last && n !== this.last + 1) this.faults.push(`${n} after ${this.last}`);
    this.last = n;
    this.position = { epoch: _meta.epoch, offset: _meta.offset };
  }
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
