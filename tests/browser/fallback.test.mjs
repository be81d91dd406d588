// The client library in a real Chromium where WebSockets do not pass: it takes server-sent events by
// itself, loses and repeats nothing on the way there and back, and goes back when it can.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { example, Proxy, replaced } from '../system/proxy.mjs';
import { launch } from './chromium.mjs';
import { asBackend, startDevServer, until } from './server.mjs';
import { PATIENCE_MS, WALLET, hears, isIn, openTab, range } from './tab.mjs';
import { startWire } from './wire.mjs';

let browser;
let server;
let wire;
let context;

before(async () => (browser = await launch()));
after(() => browser?.close());
afterEach(async () => {
  await context?.close();
  await wire?.stop();
  await server?.stop();
});

async function start(hindrance, ...settings) {
  server = await startDevServer('limits.requests_per_second=1000', ...settings);
  wire = await startWire(Number(new URL(server.url).port));
  wire.hinder(hindrance);
  context = await browser.newContext();
}

async function openSignedIn() {
  const page = await openTab(context, wire.url);
  await page.evaluate((wallet) => window.jwt.signIn(wallet), WALLET);
  await isIn(page);
  return page;
}

const publish = (n, channel = 'post_1') => asBackend(server, 'POST', '/api/publish', { channel, event: { type: 'tick', n } });
const figures = async () => (await (await fetch(`${server.metricsUrl}/stats`)).json()).server;
const greetings = (page) => page.evaluate(() => window.greetings);
/** As when the computer comes into another network: the client looks again whether WebSockets pass. */
const changeNetwork = (page) => page.evaluate(() => window.dispatchEvent(new Event('online')));

test('where WebSockets are refused, everything that can comes by server-sent events', async () => {
  await start('refused');
  const page = await openSignedIn();
  assert.deepEqual(await greetings(page), ['sse']);
  assert.equal((await figures()).eventStreams, 1);
  await publish(1);
  await hears(page, [1]);

  // A channel more: another stream, which begins where this one stood.
  await page.evaluate(() => {
    window.others = [];
    const { ready } = window.socket.subscribe('post_2', (event) => window.others.push(event.n));
    return ready;
  });
  for (const n of range(2, 6)) await publish(n);
  await publish(1, 'post_2');
  await hears(page, range(1, 6));
  assert.deepEqual(await page.evaluate(() => window.others), [1]);
  assert.equal((await figures()).eventStreams, 1);
  await page.evaluate(() => window.socket.unsubscribe('post_2'));
  await until('post_2 is left', PATIENCE_MS, async () => !('post_2' in (await (await fetch(`${server.metricsUrl}/stats`)).json()).connectionsByChannel));
  await publish(7);
  await hears(page, range(1, 7));

  assert.ok((await page.evaluate(() => window.socket.ping())) > 0);
  for (const [command, ...parameters] of [['publish', 'post_1', { type: 'said' }], ['history', 'post_1'], ['presence', 'post_1']]) {
    const code = await page.evaluate(([command, parameters]) => window.socket[command](...parameters).catch((error) => error.code), [command, parameters]);
    assert.equal(code, 'needs_websocket', command);
  }
  const refused = await page.evaluate(() => window.socket.subscribe('secret_1').ready.catch((error) => error.code));
  assert.equal(refused, 'access_denied');
  await publish(8);
  await hears(page, range(1, 8));
});

test('where WebSockets are swallowed, the next tab knows it, and one stream is there for all', async () => {
  await start('swallowed');
  const page = await openTab(context, wire.url, { hasClock: true });
  await page.evaluate((wallet) => window.jwt.signIn(wallet), WALLET);
  // Two that hang, and a last trial: half a minute and more.
  await until('it gives up', PATIENCE_MS, async () => {
    await page.clock.fastForward(1_000);
    return page.evaluate(() => window.socket.isConnected());
  });
  await page.clock.resume();
  await isIn(page);
  assert.deepEqual(await greetings(page), ['sse']);
  const other = await openTab(context, wire.url);
  await isIn(other);
  await publish(1);
  for (const tab of [page, other]) await hears(tab, [1]);
  assert.equal((await figures()).eventStreams, 1);

  // The tab that holds it goes: the other does not try for half a minute.
  const began = performance.now();
  await page.close();
  await publish(2);
  await hears(other, [1, 2]);
  assert.ok(performance.now() - began < 10_000);
  assert.equal((await figures()).eventStreams, 1);
});

test('it goes back to a WebSocket, and to events again, and nothing is lost or repeated on the way', async () => {
  await start('refused');
  const page = await openSignedIn();
  const other = await openTab(context, wire.url);
  await isIn(other);
  let last = 0;
  let isDone = false;
  const publishing = (async () => {
    while (!isDone) {
      await publish(++last);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  for (const round of [1, 2]) {
    wire.hinder(undefined);
    await changeNetwork(page);
    await until('a WebSocket', PATIENCE_MS, async () => (await greetings(page)).at(-1) === 'websocket');
    const before = await page.evaluate(() => window.heard.length);
    await until('events over it', PATIENCE_MS, async () => (await page.evaluate(() => window.heard.length)) > before);
    assert.equal((await figures()).eventStreams, 0);
    assert.equal((await page.evaluate(() => window.socket.history('post_1', { limit: 1 }))).events.length, 1);

    wire.hinder('refused');
    wire.cut();
    wire.mend();
    await until(`events again, round ${round}`, PATIENCE_MS, async () => {
      // Or it would wait longer from time to time.
      await page.evaluate(() => window.socket.status === 'waiting' && window.dispatchEvent(new Event('online')));
      return (await greetings(page)).at(-1) === 'sse';
    });
    await isIn(page);
  }
  isDone = true;
  await publishing;
  for (const tab of [page, other]) {
    await hears(tab, range(1, last));
    const told = await tab.evaluate(() => window.told.filter(([type, data]) => type === '$recovered' && !data.recovered));
    assert.deepEqual(told, []);
  }
});

test('the server is killed and started again under a stream: nothing is lost', async () => {
  await start('refused');
  const page = await openSignedIn();
  await publish(1);
  await hears(page, [1]);
  await server.kill();
  await until('the page has noticed', PATIENCE_MS, () => page.evaluate(() => !window.socket.isConnected()));
  await server.restart();
  for (const n of range(2, 30)) await publish(n);
  await hears(page, range(1, 30));
  assert.deepEqual(await page.evaluate(() => window.told.filter(([type]) => type === '$recovered')), [['$recovered', { channel: 'post_1', recovered: true }]]);
});

test('a stream goes on with a newer token, and ends with one that is revoked', async () => {
  await start('refused', 'auth.token_ttl=4s');
  const page = await openSignedIn();
  const { user, token } = await page.evaluate(async () => ({ user: window.jwt.user.id, token: await window.jwt.getToken() }));
  for (const n of range(1, 12)) {
    await publish(n);
    await page.waitForTimeout(500);
  }
  await hears(page, range(1, 12));
  assert.notEqual(await page.evaluate(() => window.jwt.getToken()), token);
  await asBackend(server, 'POST', '/api/auth/revoke', { userId: user });
  await until('the page has stopped', PATIENCE_MS, () => page.evaluate(() => ['stopped', 'idle'].includes(window.socket.status) && !window.jwt.isAuthenticated()));
  assert.equal((await figures()).eventStreams, 0);
});

test('a server that was away is no network without WebSockets', async () => {
  await start(undefined);
  const page = await openSignedIn();
  await server.kill();
  await until('it has tried often', PATIENCE_MS, async () => (await page.evaluate(() => window.told.filter(([type]) => type === '$closed').length)) > 4);
  await server.restart();
  await until('it is back', PATIENCE_MS, () => page.evaluate(() => window.socket.isConnected()));
  assert.deepEqual(await greetings(page), ['websocket', 'websocket']);
});

test('notifications are live', async () => {
  await start('refused');
  const page = await openSignedIn();
  const userId = await page.evaluate(() => window.jwt.user.id);
  await page.evaluate(() => window.inbox.start());
  const unread = (count) => until(`${count} unread`, PATIENCE_MS, () => page.evaluate((count) => window.inbox.state.unreadCount === count && !window.inbox.state.isLoading, count));
  await asBackend(server, 'POST', '/api/user/notifications', { userId, type: 'like', title: 't', message: 'm' });
  await unread(1);
  await page.evaluate(() => window.inbox.markAllRead());
  await unread(0);
});

test('behind an nginx that does TLS and passes no WebSocket on', async () => {
  server = await startDevServer('server.public_url=https://rt.example.com');
  const text = replaced(await example('nginx/fanfare.conf'), [
    ['127.0.0.1:3002', new URL(server.url).host],
    ['proxy_set_header Upgrade           $http_upgrade;', ''],
    ['proxy_set_header Connection        $fanfare_connection;', 'proxy_set_header Connection "";'],
    ['proxy_buffering off;', 'proxy_buffering on;'],
  ]);
  const proxy = await Proxy.nginx(text.replace(/^#.*$/gm, ''));
  try {
    context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await openTab(context, `https://127.0.0.1:${proxy.port}`);
    await page.evaluate((wallet) => window.jwt.signIn(wallet), WALLET);
    await isIn(page);
    assert.deepEqual(await greetings(page), ['sse']);
    for (const n of range(1, 5)) {
      await publish(n);
      // At once, though nginx was told to buffer: by the header that the answer has.
      await hears(page, range(1, n));
    }
  } finally {
    await proxy.stop();
  }
});
