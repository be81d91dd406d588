// The example configurations of nginx and haproxy, each with the real program in front of real servers.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { API_KEY, asBackend, startServer, until } from '../browser/server.mjs';
import { mint } from './clients.mjs';
import { NAME, Proxy, example, freePorts, part, replaced } from './proxy.mjs';

const SECRET = 'a secret for the tests of the proxies alone';
/** The nodes of the examples, and those here. */
const NODES = ['10.0.0.11:3002', '10.0.0.12:3002'];
let servers;

const start = (more = {}) => startServer({
  args: ['serve', '--listen', '127.0.0.1:0', '--metrics-listen', '127.0.0.1:0'],
  env: {
    FANFARE_AUTH__SECRET: SECRET, FANFARE_AUTH__API_KEYS: API_KEY, FANFARE_LIMITS__REQUESTS_PER_SECOND: '10000', ...more,
  },
});

before(async () => (servers = await Promise.all([start(), start()])));
after(() => Promise.all((servers ?? []).map((one) => one.stop())));

const host = (server) => new URL(server.url).host;
const nodes = () => NODES.map((node, i) => [node, host(servers[i])]);

const nginx = async (upstream) => {
  const text = await example('nginx/fanfare.conf');
  if (!upstream) return Proxy.nginx(replaced(text, [['127.0.0.1:3002', host(servers[0])]]).replace(/^#.*$/gm, ''));
  return Proxy.nginx(replaced(text, [[part(text, 'upstream fanfare'), replaced(part(await example(upstream), 'upstream fanfare'), nodes())]]));
};
const haproxy = async (backend) => {
  const text = await example('haproxy/fanfare.cfg');
  const instead = backend ? part(await example(backend), 'backend fanfare') : part(text, 'backend fanfare');
  return Proxy.haproxy(replaced(replaced(text, [[part(text, 'backend fanfare'), instead]]), nodes()));
};

/** Which node served each of so many connections, all of them open at once. */
async function served(proxy, times, options = () => ({})) {
  const clients = [];
  const seen = [];
  try {
    for (let i = 0; i < times; i += 1) {
      clients.push(await proxy.connect(mint(SECRET, 'ann'), options(i)));
      seen.push((await clients.at(-1).next()).data.node);
    }
    return seen;
  } finally {
    for (const client of clients) client.socket.terminate();
  }
}

for (const [name, begin] of [['nginx', () => nginx()], ['haproxy', () => haproxy()]]) {
  describe(name, () => {
    let proxy;
    before(async () => (proxy = await begin()));
    after(() => proxy?.stop());

    test('a browser gets what it needs, over TLS', async () => {
      const token = mint(SECRET, 'ann');
      assert.equal((await proxy.get('/health')).status, 200);
      assert.match((await proxy.get('/fanfare.js')).headers['content-type'], /javascript/);
      const verified = await proxy.get('/api/auth/wallet', { headers: { Authorization: `Bearer ${token}` } });
      assert.equal(JSON.parse(verified.text).userId, 'ann');
      assert.equal((await proxy.get('/api/user/notifications', { headers: { Authorization: `Bearer ${token}` } })).status, 200);

      const client = await proxy.connect(token, { headers: { Origin: `https://${NAME}` } });
      assert.equal((await client.next()).type, 'connected');
      client.socket.send('{"type":"ping"}');
      assert.equal((await client.next()).type, 'pong');
      client.socket.send('{"type":"subscribe","channel":"post_1"}');
      assert.equal((await client.next()).type, 'subscribed');
      for (const server of servers) {
        await asBackend(server, 'POST', '/api/publish', { channel: 'post_1', event: { type: 'liked' } });
      }
      assert.equal((await client.next()).type, 'liked');
      client.socket.terminate();
    });

    test('server-sent events come one by one, and go on where they stood', async () => {
      const headers = { Authorization: `Bearer ${mint(SECRET, 'ann')}`, Accept: 'text/event-stream' };
      const channel = `post_sse-${name}`;
      const publish = (n) => Promise.all(servers.map((one) => asBackend(one, 'POST', '/api/publish', { channel, event: { type: 'tick', n } })));
      const stream = await proxy.stream(`/sse?channels=${channel}`, headers);
      assert.equal(stream.headers['content-type'], 'text/event-stream');
      assert.equal((await stream.next()).type, 'connected');
      assert.equal((await stream.next()).type, 'subscribed');
      let last;
      for (const n of [1, 2, 3]) {
        await publish(n);
        last = await stream.next();
        assert.equal(last.n, n);
      }
      stream.close();
      if (name === 'haproxy') return; // Two nodes without a common history.
      await publish(4);
      const id = `${channel}@${last._meta.epoch}:${last._meta.offset}`;
      const again = await proxy.stream(`/sse?channels=${channel}`, { ...headers, 'Last-Event-ID': id });
      await again.next();
      assert.equal((await again.next()).data.recovered, true);
      assert.equal((await again.next()).n, 4);
      again.close();
    });

    test('without TLS it is sent there', async () => {
      const { status, headers } = await proxy.get('/ws', { plain: true });
      assert.equal(status, 308);
      assert.match(headers.location, /^https:\/\/rt\.example\.com/);
    });

    test('what is for backends is not for the world', async () => {
      for (const where of ['/api/publish', '/api/broadcast', '/api/history', '/api/users', '/api/disconnect', '/api/auth/revoke', '/ready']) {
        const headers = { 'X-API-Key': API_KEY, 'Content-Type': 'application/json' };
        assert.equal((await proxy.get(where, { method: 'POST', headers, body: '{}' })).status, 404, where);
      }
    });

    test('a page of somebody else is refused', async () => {
      const connecting = proxy.connect(mint(SECRET, 'ann'), { headers: { Origin: 'https://evil.example' } });
      await assert.rejects(connecting, /status 403/);
    });

    test('the server sees the address of the client, whatever the client says', async () => {
      const client = await proxy.connect(mint(SECRET, 'address'), {
        from: '127.0.0.77', headers: { 'X-Forwarded-For': '6.6.6.6', 'X-Real-IP': '6.6.6.6' },
      });
      await client.next();
      client.socket.terminate();
      const seen = await until('the line of the event log', 20_000, async () =>
        (await eventLogs()).find((line) => line.type === 'connection' && line.data.userId === 'address'));
      assert.equal(seen.data.ip, '127.0.0.77');
    });

    test('no token is in its log', async () => {
      await proxy.get('/health?token=eyJ-not-for-logs');
      const log = await until('the request in the log', 20_000, async () => {
        const text = await proxy.log();
        return text.includes('/health') && text;
      });
      assert.ok(!log.includes('eyJ'), log);
    });
  });
}

for (const [name, begin] of [['nginx', () => nginx('nginx/fanfare-nodes.conf')], ['haproxy', () => haproxy()]]) {
  test(`${name} without stickiness uses every node`, async () => {
    const proxy = await begin();
    try {
      assert.equal(new Set(await served(proxy, 8)).size, 2);
    } finally {
      await proxy.stop();
    }
  });
}

test('nginx with stickiness sends an address to the same node', async () => {
  const proxy = await nginx('nginx/fanfare-nodes-sticky.conf');
  try {
    for (const from of ['127.0.0.2', '127.0.0.3']) {
      assert.equal(new Set(await served(proxy, 5, () => ({ from }))).size, 1);
    }
    const all = await served(proxy, 40, (i) => ({ from: `127.0.1.${i + 1}` }));
    assert.equal(new Set(all).size, 2);
  } finally {
    await proxy.stop();
  }
});

test('haproxy with stickiness sends a browser to the same node', async () => {
  const proxy = await haproxy('haproxy/fanfare-sticky.cfg');
  try {
    const first = await proxy.connect(mint(SECRET, 'ann'));
    const { node } = (await first.next()).data;
    assert.match(first.cookie, /^fanfare_node=(one|two)$/);
    const seen = await served(proxy, 6, () => ({ headers: { Cookie: first.cookie } }));
    assert.deepEqual(new Set(seen), new Set([node]));
    assert.equal(new Set(await served(proxy, 8)).size, 2);
    first.socket.terminate();
  } finally {
    await proxy.stop();
  }
});

for (const [name, begin] of [
  ['nginx', () => nginx('nginx/fanfare-nodes.conf')],
  ['nginx with stickiness', () => nginx('nginx/fanfare-nodes-sticky.conf')],
  ['haproxy', () => haproxy()],
  ['haproxy with stickiness', () => haproxy('haproxy/fanfare-sticky.cfg')],
]) {
  test(`${name} goes on with the node that is left`, async () => {
    const proxy = await begin();
    const stable = servers[1];
    try {
      // So many that chance does not give them all to one.
      const before = new Set(await served(proxy, 40, (i) => ({ from: `127.0.2.${i + 1}` })));
      assert.equal(before.size, 2);
      await servers[0].stop();
      const left = await until('only the other answers', 20_000, async () => {
        const seen = await served(proxy, 16, (i) => ({ from: `127.0.2.${i + 1}` })).catch(() => []);
        return seen.length === 16 && new Set(seen);
      });
      assert.equal(left.size, 1);
      assert.ok(before.has([...left][0]));
      assert.equal(servers[1], stable);
    } finally {
      await proxy.stop();
      await servers[0].stop();
      servers[0] = await start();
    }
  });
}

describe('two nodes on one Redis', () => {
  const alone = [];
  let redis;
  before(async () => {
    const home = await mkdtemp(path.join(tmpdir(), 'fanfare-redis-'));
    const [port] = await freePorts(1);
    redis = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', home], { stdio: 'ignore' });
    redis.home = home;
    redis.ended = new Promise((resolve) => redis.on('close', resolve).on('error', resolve));
    const on = { FANFARE_BROKER__BACKEND: 'redis', FANFARE_BROKER__REDIS__URL: `redis://127.0.0.1:${port}` };
    await until('Redis listens', 20_000, () => new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
      socket.unref().end();
    }));
    alone.push(...servers);
    servers = await Promise.all([start(on), start(on)]);
    servers.settings = on;
  });
  after(async () => {
    await Promise.all(servers.map((one) => one.stop()));
    servers = alone;
    redis.kill('SIGKILL');
    await redis.ended;
    await rm(redis.home, { recursive: true, force: true });
  });

  for (const [name, begin] of [
    ['nginx', () => nginx('nginx/fanfare-nodes.conf')],
    ['nginx with stickiness', () => nginx('nginx/fanfare-nodes-sticky.conf')],
    ['haproxy', () => haproxy()],
    ['haproxy with stickiness', () => haproxy('haproxy/fanfare-sticky.cfg')],
  ]) {
    test(`behind ${name}, who loses a node recovers on the other`, async () => {
      const proxy = await begin();
      const channel = `post_${name.replaceAll(' ', '-')}`;
      const publish = (server, n) => asBackend(server, 'POST', '/api/publish', { channel, event: { type: 'tick', n } });
      const subscribe = async (client, recover) => {
        const { node } = (await client.next()).data;
        client.socket.send(JSON.stringify({ type: 'subscribe', channel, ...(recover && { recover }) }));
        const { data } = await client.next();
        return { node, ...data };
      };
      try {
        const client = await proxy.connect(mint(SECRET, 'ann'));
        const { node } = await subscribe(client);
        await publish(servers[0], 1);
        const first = await client.next();
        assert.equal(first.n, 1);
        client.socket.on('error', () => {});

        const names = await Promise.all(servers.map(async (one) => (await (await fetch(`${one.metricsUrl}/stats`)).json()).server.node));
        const gone = names.indexOf(node);
        assert.ok(gone >= 0, `${node} of ${names}`);
        await servers[gone].stop();
        for (const n of [2, 3]) await publish(servers[1 - gone], n);

        const back = await until('a socket again', 20_000, () => proxy.connect(mint(SECRET, 'ann'), { headers: { Cookie: client.cookie } }).catch(() => null));
        const { recovered, node: other } = await subscribe(back, { epoch: first._meta.epoch, offset: first._meta.offset });
        assert.equal(recovered, true);
        assert.notEqual(other, node);
        for (const n of [2, 3]) assert.equal((await back.next()).n, n);
        back.socket.terminate();
        servers[gone] = await start(servers.settings);
      } finally {
        await proxy.stop();
      }
    });
  }
});

/** The lines of the event logs of both servers. */
async function eventLogs() {
  const lines = [];
  for (const server of servers) {
    const folder = path.join(server.home, 'logs');
    for (const file of await readdir(folder).catch(() => [])) {
      const text = await readFile(path.join(folder, file), 'utf8');
      lines.push(...text.split('\n').slice(0, -1).map((line) => JSON.parse(line)));
    }
  }
  return lines;
}
