// The predecessor's command-line test client, unchanged: Node, the package `ws`, the path `/`, and a
// server that is configured by nothing but the predecessor's environment.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { mint, startDropIn } from './drop-in.mjs';

let server;

before(async () => (server = await startDropIn()));
after(() => server?.stop());

/** Opens a socket; `next()` gives its messages in order, `closed` resolves to [code, reason]. */
function open(where, options) {
  const socket = new WebSocket(`ws://127.0.0.1:${server.wsPort}${where}`, options);
  const arrived = [];
  let wake = () => {};
  socket.on('message', (data, isBinary) => {
    assert.equal(isBinary, false);
    arrived.push(JSON.parse(data));
    wake();
  });
  const closed = new Promise((resolve, reject) => {
    socket.on('close', (code, reason) => resolve([code, reason.toString()]));
    socket.on('error', reject);
  });
  const next = async () => {
    const late = setTimeout(() => socket.emit('error', new Error('no message in 5 s')), 5_000);
    while (arrived.length === 0) {
      await Promise.race([new Promise((resolve) => (wake = resolve)), closed]);
      if (arrived.length === 0 && socket.readyState === WebSocket.CLOSED) {
        assert.fail(`closed instead of a message: ${await closed}`);
      }
    }
    clearTimeout(late);
    return arrived.shift();
  };
  return { socket, next, closed, send: (message) => socket.send(JSON.stringify(message)) };
}

test('the ports are where the environment says', async () => {
  assert.equal(new URL(server.url).port, String(server.wsPort));
  const answer = await fetch(`http://127.0.0.1:${server.metricsPort}/stats`);
  const stats = await answer.json();
  assert.equal(stats.totalConnections, 0);
  assert.equal(stats.uptime, '0h 0m');
});

test('it connects to /, subscribes, pings and leaves', async () => {
  const client = open(`/?token=${mint('anna')}`);
  const greeting = await client.next();
  assert.equal(greeting.type, 'connected');
  assert.equal(greeting.data.userId, 'anna');

  for (const channel of [
    { type: 'creator', id: 'c1' },
    { type: 'notifications', userId: 'anna' },
    { type: 'feed', userId: 'anna' },
    { type: 'post', postId: 'p1' },
  ]) {
    client.send({ type: 'subscribe', channel });
    const reply = await client.next();
    assert.equal(reply.type, 'subscribed');
    assert.deepEqual(reply.data.channel, channel);
  }
  client.send({ type: 'ping' });
  assert.deepEqual(await client.next(), { type: 'pong' });
  client.send({ type: 'dance' });
  assert.equal((await client.next()).data.message, 'Unknown message type');
  client.socket.send('not json');
  assert.equal((await client.next()).data.message, 'Invalid message format');
  client.send({ type: 'unsubscribe', channel: { type: 'post', postId: 'p1' } });
  assert.equal((await client.next()).type, 'unsubscribed');

  client.socket.close();
  await client.closed;
});

test('a token in the header and one with only sub are as good', async () => {
  const byHeader = open('/', { headers: { Authorization: `Bearer ${mint('anna')}` } });
  assert.equal((await byHeader.next()).data.userId, 'anna');
  byHeader.socket.close();

  const onlySub = mint(undefined, { subject: 'boris' });
  const bySub = open(`/ws?token=${onlySub}`);
  assert.equal((await bySub.next()).data.userId, 'boris');
  bySub.socket.close();
  await Promise.all([byHeader.closed, bySub.closed]);
});

test('two sockets of one user are both served', async () => {
  const sockets = [open(`/?token=${mint('anna')}`), open(`/?token=${mint('anna')}`)];
  for (const client of sockets) assert.equal((await client.next()).type, 'connected');
  for (const client of sockets) client.send({ type: 'ping' });
  for (const client of sockets) assert.equal((await client.next()).type, 'pong');
  for (const client of sockets) client.socket.close();
  await Promise.all(sockets.map((client) => client.closed));
});

for (const [what, token] of [
  ['no token', () => ''],
  ['rubbish', () => 'rubbish'],
  ['an expired token', () => mint('anna', { expiresIn: '-2m' })],
  ['another issuer', () => mint('anna', { issuer: 'evil.example' })],
  ['another audience', () => mint('anna', { audience: 'another' })],
  ['another algorithm', () => mint('anna', { algorithm: 'HS512' })],
]) {
  test(`${what} is accepted and closed with 1008 Unauthorized`, async () => {
    const client = open(`/?token=${token()}`);
    const opened = new Promise((resolve) => client.socket.on('open', resolve));
    await opened;
    assert.deepEqual(await client.closed, [1008, 'Unauthorized']);
  });
}
