// The client library in a real Chromium, against the real server: renewal, restarts, sleep, tabs,
// bad networks, revocation.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { launch } from './chromium.mjs';
import { asBackend, startDevServer, until } from './server.mjs';
import { PATIENCE_MS, WALLET, hears, isIn, openTab as openTabAt, range } from './tab.mjs';
import { startWire } from './wire.mjs';

let browser;
let server;
let wire;
let context;

before(async () => (browser = await launch()));
after(() => browser?.close());
beforeEach(() => start());
afterEach(async () => {
  await context?.close();
  await wire?.stop();
  await server?.stop();
});

async function start(...settings) {
  server = await startDevServer(...settings);
  wire = await startWire(Number(new URL(server.url).port));
  context = await browser.newContext();
}

/** With other settings. */
async function startAnew(...settings) {
  await context.close();
  await wire.stop();
  await server.stop();
  await start(...settings);
}

const openTab = (options) => openTabAt(context, wire.url, options);

async function openSignedIn(options) {
  const page = await openTab(options);
  await page.evaluate((wallet) => window.jwt.signIn(wallet), WALLET);
  await isIn(page);
  return page;
}

const publish = (n) => asBackend(server, 'POST', '/api/publish', { channel: 'post_1', event: { type: 'tick', n } });

const stats = async () => (await fetch(`${server.metricsUrl}/stats`)).json();
const sockets = async () => (await stats()).activeConnections;

test('a token is renewed in band, once for all tabs, and the socket outlives it', async () => {
  await startAnew('auth.token_ttl=6s');
  const used = [];
  context.on('request', (request) => {
    if (request.url().endsWith('/api/auth/refresh')) used.push(request.postDataJSON().refreshToken);
  });
  const page = await openSignedIn();
  const other = await openTab();
  await isIn(other);
  const before = await page.evaluate(() => window.jwt.getToken());
  const issued = (await stats()).server.tokensIssued;
  const began = performance.now();
  await page.waitForTimeout(14_000);
  await publish(1);
  await hears(page, [1]);
  await hears(other, [1]);
  assert.notEqual(await page.evaluate(() => window.jwt.getToken()), before);
  await until('both have the same token', PATIENCE_MS, async () => (await page.evaluate(() => window.jwt.getToken())) === (await other.evaluate(() => window.jwt.getToken())));
  // At half of six seconds each time, by whichever tab.
  const { totalConnections, messagesByType, server: figures } = await stats();
  const renewals = figures.tokensIssued - issued;
  const most = (performance.now() - began) / 3_000 + 1;
  assert.ok(renewals >= 3 && renewals <= most, `${renewals} renewals`);
  assert.equal(new Set(used).size, used.length, 'a refresh token was used twice');
  assert.equal(totalConnections, 1, 'the socket was closed in between');
  // One may be on its way.
  assert.ok(Math.abs(messagesByType.refresh - renewals) <= 1, `${messagesByType.refresh} in band, ${renewals} renewals`);
});

test('the server is killed and started again under the page: nothing is lost', async () => {
  const page = await openSignedIn();
  await publish(1);
  await hears(page, [1]);
  await server.kill();
  await until('the page has noticed', PATIENCE_MS, () => page.evaluate(() => !window.socket.isConnected()));
  await server.restart();
  // Before the page is back, perhaps, or after.
  for (const n of range(2, 30)) await publish(n);
  await hears(page, range(1, 30));
  const told = await page.evaluate(() => window.told.filter(([type]) => type === '$recovered'));
  assert.deepEqual(told, [['$recovered', { channel: 'post_1', recovered: true }]]);
});

test('a page that was frozen has everything when it wakes', async () => {
  const page = await openSignedIn();
  await publish(1);
  await hears(page, [1]);
  // As when the machine sleeps: without a word before.
  const began = performance.now();
  await pages('SIGSTOP');
  try {
    for (const n of range(2, 20)) await publish(n);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
  } finally {
    await pages('SIGCONT');
  }
  await hears(page, range(1, 20));
  const heard = await page.evaluate(() => window.heard.map(({ at }) => at));
  assert.ok(heard[1] - heard[0] >= 1_500, `it ran on: ${heard[1] - heard[0]} of ${performance.now() - began} ms`);

  // As the browser freezes it, which tells the page (and does not here, where every page is seen): it leaves
  // the socket to others, and comes back.
  const other = await openTab();
  await isIn(other);
  await page.evaluate(() => document.dispatchEvent(new Event('freeze')));
  await until('the other has the socket', PATIENCE_MS, () => other.evaluate(() => window.socket.isLeader && window.socket.isConnected()));
  for (const n of range(21, 30)) await publish(n);
  await hears(other, range(21, 30));
  assert.equal((await page.evaluate(() => window.heard)).length, 20);
  await page.evaluate(() => document.dispatchEvent(new Event('resume')));
  await hears(page, range(1, 30));
  assert.equal(await sockets(), 1);
});

/** Stops what runs the pages, or lets it go on. */
async function pages(signal) {
  const devtools = await browser.newBrowserCDPSession();
  const { processInfo } = await devtools.send('SystemInfo.getProcessInfo');
  for (const { type, id } of processInfo) if (type === 'renderer') process.kill(id, signal);
  await devtools.detach();
}

test('two tabs have one socket; when the tab with it is closed, the other goes on', async () => {
  const first = await openSignedIn();
  const second = await openTab();
  const third = await openTab();
  await isIn(second);
  await isIn(third);
  assert.equal(await sockets(), 1);
  const leaders = await Promise.all([first, second, third].map((page) => page.evaluate(() => window.socket.isLeader)));
  assert.deepEqual(leaders, [true, false, false]);
  await publish(1);
  for (const page of [first, second, third]) await hears(page, [1]);
  assert.ok((await second.evaluate(() => window.socket.ping())) > 0);

  // One tab's leaving takes nothing from the others.
  await third.evaluate(() => window.socket.unsubscribe('post_1'));
  await third.evaluate(() => window.socket.ping());
  await publish(2);
  await hears(second, [1, 2]);
  await hears(third, [1]);

  await first.close();
  await publish(3);
  await hears(second, [1, 2, 3]);
  await publish(4);
  await hears(second, [1, 2, 3, 4]);
  await until('one socket again', PATIENCE_MS, async () => (await sockets()) === 1);
  assert.equal((await stats()).totalConnections, 2);
});

test('a tab that signs out signs all of them out', async () => {
  const first = await openSignedIn();
  const second = await openTab();
  await isIn(second);
  await second.evaluate(() => window.jwt.logout());
  await until('no socket', PATIENCE_MS, async () => (await sockets()) === 0);
  assert.equal(await first.evaluate(() => window.jwt.isAuthenticated()), false);
  await first.evaluate((wallet) => window.jwt.signIn(wallet), WALLET);
  await isIn(first);
  await isIn(second);
  assert.equal(await sockets(), 1);
});

test('offline and online again: commands wait, events come', async () => {
  const page = await openSignedIn();
  await context.setOffline(true);
  wire.cut();
  await until('the page has noticed', PATIENCE_MS, () => page.evaluate(() => !window.socket.isConnected()));
  await page.evaluate(() => {
    window.reply = window.socket.history('post_1');
  });
  for (const n of range(1, 10)) await publish(n);
  await page.waitForTimeout(1_500);
  wire.mend();
  await context.setOffline(false);
  await hears(page, range(1, 10));
  const reply = await page.evaluate(() => window.reply);
  assert.deepEqual(reply.events.map(({ n }) => n), range(1, 10));
});

test('a page that was away for ten minutes and 100 events has them within a second, by one reply', async () => {
  const page = await context.newPage();
  await page.clock.install();
  await page.close();
  const away = await openSignedIn();
  await publish(0);
  await hears(away, [0]);
  const devtools = await context.newCDPSession(away);
  const frames = [];
  await devtools.send('Network.enable');
  devtools.on('Network.webSocketFrameSent', ({ response }) => frames.push(response.payloadData));
  await context.setOffline(true);
  wire.cut();
  for (const n of range(1, 100)) await publish(n);
  await away.clock.fastForward('10:00');
  assert.equal(await away.evaluate(() => window.socket.isConnected()), false);
  wire.mend();
  await away.evaluate(() => {
    window.addEventListener('online', () => (window.backAt = performance.now()), { capture: true });
  });
  await context.setOffline(false);
  const deadline = performance.now() + 1_000;
  await until('100 events', 1_000, () => away.evaluate(() => window.heard.length > 100));
  assert.ok(performance.now() <= deadline);
  await hears(away, range(0, 100));
  const subscribes = frames.filter((text) => text.includes('"subscribe"'));
  assert.equal(subscribes.length, 1, subscribes.join('\n'));
  const recovered = await away.evaluate(() => window.told.filter(([type]) => type === '$recovered'));
  assert.deepEqual(recovered, [['$recovered', { channel: 'post_1', recovered: true }]]);
});

test('a backend that sends the user away is obeyed, until somebody asks again', async () => {
  const page = await openSignedIn();
  const { userId } = await page.evaluate(() => ({ userId: window.jwt.user.id }));
  await asBackend(server, 'POST', '/api/disconnect', { userId });
  await until('the page has stopped', PATIENCE_MS, () => page.evaluate(() => window.socket.status === 'stopped'));
  await page.evaluate(() => window.dispatchEvent(new Event('online')));
  await page.waitForTimeout(1_000);
  assert.equal(await sockets(), 0);
  await page.evaluate(() => window.socket.connect());
  await isIn(page);
});

test('who is revoked in the middle is signed out in every tab, asks no more, and may sign in anew', async () => {
  const page = await openSignedIn();
  const other = await openTab();
  await isIn(other);
  const [user, token] = await page.evaluate(async () => [window.jwt.user.id, await window.jwt.getToken()]);
  await asBackend(server, 'POST', '/api/auth/revoke', { userId: user });
  for (const tab of [page, other]) {
    await until('it is signed out', PATIENCE_MS, () => tab.evaluate(() => !window.socket.isConnected() && !window.jwt.isAuthenticated()));
  }
  const closed = await page.evaluate(() => window.told.filter(([type]) => type === '$closed').map(([, { code }]) => code));
  assert.ok(closed.includes(4300), String(closed));
  assert.equal(await page.evaluate((token) => window.jwt.verify(token), token), false);
  const { totalConnections, server: before } = await stats();
  for (const tab of [page, other]) await tab.evaluate(() => window.dispatchEvent(new Event('online')));
  await page.waitForTimeout(1_500);
  const now = await stats();
  assert.deepEqual([now.totalConnections, now.server.tokensIssued], [totalConnections, before.tokensIssued]);
  // A token is refused that is not newer than the revocation, to the second.
  await until('it is in again', PATIENCE_MS, () =>
    page.evaluate((wallet) => window.jwt.signIn(wallet).then(() => window.jwt.verify(), () => false), WALLET),
  );
  await isIn(page);
  await isIn(other);
});

test('without locks or channels between tabs, each has a socket of its own, and the session is still one', async () => {
  await startAnew('auth.token_ttl=6s');
  await context.addInitScript(() => {
    delete Navigator.prototype.locks;
    delete window.BroadcastChannel;
  });
  const page = await openSignedIn();
  const other = await openTab();
  await isIn(other);
  assert.equal(await sockets(), 2);
  for (const tab of [page, other]) assert.ok(await tab.evaluate(() => window.socket.isLeader));
  await page.waitForTimeout(7_000);
  await publish(1);
  for (const tab of [page, other]) await hears(tab, [1]);
  await page.close();
  await until('the other is left', PATIENCE_MS, async () => (await sockets()) === 1);
  await other.evaluate(() => window.jwt.logout());
  await until('none is left', PATIENCE_MS, async () => (await sockets()) === 0);
});

test('notifications are the same in every tab, and paged', async () => {
  const page = await openSignedIn();
  const other = await openTab();
  const userId = await page.evaluate(() => window.jwt.user.id);
  const notify = (title) => asBackend(server, 'POST', '/api/user/notifications', { userId, type: 'like', title, message: 'm' });
  for (const n of range(1, 25)) await notify(`n${n}`);
  for (const tab of [page, other]) await tab.evaluate(() => window.inbox.start());
  let seen;
  const shows = (tab, expected) =>
    until(`the inbox is ${JSON.stringify(expected)}`, PATIENCE_MS, async () => {
      const state = await tab.evaluate(() => {
        const { notifications, unreadCount, isLoading } = window.inbox.state;
        return { count: notifications.length, unread: unreadCount, first: notifications[0]?.title, isLoading };
      });
      seen = JSON.stringify(state);
      return seen === JSON.stringify({ ...expected, isLoading: false });
    }).catch((error) => assert.fail(`${error.message}, but ${seen}`));
  for (const tab of [page, other]) await shows(tab, { count: 20, unread: 25, first: 'n25' });
  await page.evaluate(() => window.inbox.more());
  await shows(page, { count: 25, unread: 25, first: 'n25' });
  await notify('n26');
  await shows(other, { count: 21, unread: 26, first: 'n26' });
  await other.evaluate(() => window.inbox.markRead(window.inbox.state.notifications[0].id));
  for (const [tab, count] of [[page, 26], [other, 21]]) await shows(tab, { count, unread: 25, first: 'n26' });
  await page.evaluate(() => window.inbox.clear());
  for (const [tab, count] of [[page, 25], [other, 21]]) await shows(tab, { count, unread: 25, first: 'n25' });
  await other.evaluate(() => window.inbox.remove(window.inbox.state.notifications[0].id));
  for (const [tab, count] of [[page, 24], [other, 21]]) await shows(tab, { count, unread: 24, first: 'n24' });
  await page.evaluate(() => window.inbox.markAllRead());
  for (const [tab, count] of [[page, 24], [other, 21]]) await shows(tab, { count, unread: 0, first: 'n24' });
});

test('the classic script has the same', async () => {
  const page = await context.newPage();
  await page.goto(`${wire.url}/fanfare.js`);
  await page.addScriptTag({ url: '/fanfare.classic.js' });
  await page.evaluate((wallet) => {
    window.socket = new window.Fanfare.FanfareSocket({ shared: false });
    window.socket.connect();
    return window.Fanfare.JWTManager.getInstance().signIn(wallet);
  }, WALLET);
  await until('it is connected', PATIENCE_MS, () => page.evaluate(() => window.socket.isConnected()));
});

test('what somebody publishes is an event, whatever it looks like', async () => {
  const page = await openSignedIn();
  await page.evaluate(() => window.inbox.start());
  const looks = [
    { type: 'tick', id: 'c1' },
    { type: 'tick', id: 1 },
    { type: 'connected', data: { userId: 'somebody' } },
    { type: 'connected' },
    { type: 'disconnect', data: { code: 4300, reconnect: false } },
    { type: 'subscribed' },
    { type: 'unsubscribed', data: { channelKey: 'post_1' } },
    { type: 'notification', notification: { id: 'zzz', title: 'click here' }, unreadCount: 999 },
    { type: 'unread_notifications' },
    { type: '$status', data: 'stopped' },
    { type: '*' },
  ];
  for (const [n, event] of looks.entries()) {
    await asBackend(server, 'POST', '/api/publish', { channel: 'post_1', event: { ...event, n: n + 1 } });
  }
  await hears(page, range(1, looks.length));
  assert.equal(await page.evaluate(() => window.inbox.state.unreadCount), 0);
  assert.ok(!(await page.evaluate(() => window.told.some(([type, data]) => type === '$status' && data === 'stopped'))));
  const userId = await page.evaluate(() => window.jwt.user.id);
  await asBackend(server, 'POST', '/api/user/notifications', { userId, type: 'like', title: 't', message: 'm' });
  await until('its own notification is there', PATIENCE_MS, () => page.evaluate(() => window.inbox.state.unreadCount === 1));
  assert.equal((await stats()).messagesByType.subscribe, 2, 'post_1 and its notifications, once each');
  await server.kill();
  await until('the page has noticed', PATIENCE_MS, () => page.evaluate(() => !window.socket.isConnected()));
  await server.restart();
  await publish(looks.length + 1);
  await hears(page, range(1, looks.length + 1));
});

test("an application's mistakes take nothing from the rest", async () => {
  const page = await openTab();
  page.removeAllListeners('pageerror');
  const mistakes = [];
  page.on('pageerror', ({ message }) => mistakes.push(message));
  const codes = await page.evaluate(async (wallet) => {
    const oops = () => {
      throw new Error('oops');
    };
    window.jwt.onChange(oops);
    window.inbox.onChange(oops);
    window.socket.on('tick', oops);
    window.inbox.start();
    await window.jwt.signIn(wallet);
    const publish = (event) => window.socket.publish('post_1', event).catch((error) => error.code ?? error.name);
    return [await publish({ type: 'tick', n: 1n }), await publish(new Proxy({ type: 'tick' }, {}))];
  }, WALLET);
  // The second went out: clients may not publish there.
  assert.deepEqual(codes, ['TypeError', 'access_denied']);
  await isIn(page);
  await publish(1);
  await hears(page, [1]);
  await page.evaluate(() => window.jwt.logout());
  await until('it is idle', PATIENCE_MS, () => page.evaluate(() => window.socket.status === 'idle'));
  assert.ok(mistakes.length > 3 && mistakes.every((one) => one === 'oops'), `${mistakes}`);
});

test('where nothing may be stored or locked, every tab is somebody of its own', async () => {
  await context.addInitScript(() => {
    const refuse = () => {
      throw new DOMException('not here', 'SecurityError');
    };
    Object.defineProperty(window, 'localStorage', { get: refuse });
    navigator.locks.request = async () => refuse();
  });
  const page = await openSignedIn();
  const other = await openTab();
  await other.evaluate(() => window.jwt.signIn('So11111111111111111111111111111111111111112'));
  await isIn(other);
  const users = await Promise.all([page, other].map((tab) => tab.evaluate(() => [window.jwt.user.id, window.socket.isLeader])));
  assert.notEqual(users[0][0], users[1][0]);
  assert.ok(users[0][1] && users[1][1]);
  assert.ok(await page.evaluate(() => window.jwt.refresh()));
  await publish(1);
  for (const tab of [page, other]) await hears(tab, [1]);
});

test('notifications that could not be loaded are, when the server is back', async () => {
  const page = await openSignedIn();
  const userId = await page.evaluate(() => window.jwt.user.id);
  await asBackend(server, 'POST', '/api/user/notifications', { userId, type: 'like', title: 't', message: 'm' });
  await server.kill();
  await page.evaluate(() => window.inbox.start());
  await until('it has failed', PATIENCE_MS, () => page.evaluate(() => window.inbox.state.error?.code === 'offline'));
  await server.restart();
  await until('it is there', PATIENCE_MS, () => page.evaluate(() => window.inbox.state.notifications.length === 1 && !window.inbox.state.error));
  // The next user is not shown them, whether somebody looks or not.
  await page.evaluate(() => window.inbox.stop());
  await page.evaluate(() => window.jwt.signIn('So11111111111111111111111111111111111111112'));
  assert.equal(await page.evaluate(() => window.inbox.state.notifications.length), 0);
});
