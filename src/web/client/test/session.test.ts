// Whose session it is, and how it ends: with the application's own tokens, with several servers, without a
// way to renew it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JWTManager, type JWTOptions } from '../src/jwt.js';
import { Notifications } from '../src/notifications.js';
import { FanfareSocket } from '../src/socket.js';
import { FakeServer } from './server.js';
import { World, type Tab } from './world.js';

const LIFE = 20_000;

class Browser {
  world = new World(1);
  server = new FakeServer(this.world, LIFE, 10);

  constructor() {
    this.world.install();
    this.world.server = this.server;
  }

  /** A page that has just been loaded. */
  page(options: JWTOptions = {}) {
    const tab = this.world.open('page');
    const open = () => {
      const jwt: JWTManager = new (JWTManager as any)().configure(options);
      const socket = new FanfareSocket({ jwt });
      const inbox = new Notifications(socket, jwt);
      socket.connect();
      return { tab, jwt, socket, inbox };
    };
    return this.world.run(tab, open);
  }

  within(page: { tab: Tab }, work: () => void) {
    this.world.run(page.tab, work);
  }

  get users() {
    return [...this.server.sockets.values()].map(({ user }) => user);
  }
}

test('an application whose token is another one\'s by now has another user', async () => {
  const browser = new Browser();
  const { world, server } = browser;
  let user: string | null = 'ann';
  let calls = 0;
  const getToken = async () => {
    calls++;
    return user && server.issue(user).token;
  };
  const page = browser.page({ getToken });
  const told: (string | undefined)[] = [];
  page.jwt.onChange((user) => told.push(user?.id));
  browser.within(page, () => {
    for (let n = 0; n < 5; n++) void page.jwt.getToken();
  });
  await world.pass(1_000);
  assert.equal(calls, 1, 'all wait for the same answer');
  assert.deepEqual(browser.users, ['ann']);

  // At the renewal.
  user = 'bob';
  await world.pass(LIFE);
  assert.equal(page.jwt.user?.id, 'bob');
  assert.deepEqual(browser.users, ['bob']);
  assert.deepEqual([...new Set(told)], ['ann', 'bob']);

  // And when the page is loaded anew, whatever is stored.
  world.kill(page.tab);
  user = 'cat';
  const second = browser.page({ getToken });
  await world.pass(1_000);
  assert.deepEqual(browser.users, ['cat']);
  world.kill(second.tab);
  user = null;
  const third = browser.page({ getToken });
  await world.pass(1_000);
  assert.equal(third.jwt.user, null);
  assert.deepEqual(browser.users, []);
});

test('an application that does not answer, or fails, is asked again', async () => {
  const browser = new Browser();
  const { world, server } = browser;
  const ways = ['fine', 'hangs', 'throws', 'fine'];
  const page = browser.page({
    getToken: async () => {
      const way = ways.shift();
      if (way === 'hangs') await new Promise(() => {});
      if (way === 'throws') throw new Error('the application is down');
      return server.issue('ann').token;
    },
  });
  await world.pass(500);
  assert.deepEqual(browser.users, ['ann']);
  await world.pass(4 * LIFE);
  assert.equal(ways.length, 0);
  assert.deepEqual(browser.users, ['ann']);
  assert.equal(page.socket.status, 'open');
});

test('a session that nothing renews ends with its token', async () => {
  const browser = new Browser();
  const { world, server } = browser;
  server.wantsProof = true;
  const page = browser.page();
  browser.within(page, () => page.jwt.setToken(server.issue('ann').token));
  const claims = (claims: object) => `x.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.x`;
  await world.pass(LIFE - 2_000);
  assert.equal(page.jwt.user?.id, 'ann');
  await world.pass(60_000);
  assert.equal(page.jwt.user, null);
  assert.equal(server.signIns, 0, 'its token names no wallet');

  const now = Math.floor(world.now / 1_000);
  browser.within(page, () => page.jwt.setToken(claims({ sub: 'ann', wallet: 'w-ann', iat: now, exp: now + 20 })));
  await world.pass(LIFE + 60_000);
  assert.equal(page.jwt.user, null);
  const tried = server.signIns;
  assert.ok(tried > 0 && tried < 10, `${tried}`);
  await world.pass(600_000);
  assert.equal(server.signIns, tried, 'it is over');
});

test('every server has a session of its own', async () => {
  const browser = new Browser();
  const { world, server } = browser;
  const here = browser.page();
  browser.within(here, () => here.jwt.setToken(server.issue('ann').token));
  const there = browser.page({ baseUrl: 'http://other.example' });
  assert.equal(there.jwt.user, null);
  browser.within(there, () => there.jwt.setToken(server.issue('bob').token));
  await world.pass(1_000);
  assert.equal(here.jwt.user?.id, 'ann');
  browser.within(here, () => void here.jwt.configure({ baseUrl: 'http://other.example' }));
  assert.equal(here.jwt.user?.id, 'bob');
});

test('a farewell is of the connection that it came by', async () => {
  const browser = new Browser();
  const { world, server } = browser;
  const page = browser.page();
  const enter = () => browser.within(page, () => page.jwt.setToken(server.issue('ann').token));
  enter();
  await world.pass(1_000);
  // The page is faster than the close behind it.
  const [socket] = server.sockets.keys();
  page.socket.on('disconnect', () => page.jwt.forget());
  socket!.push({ type: 'disconnect', data: { code: 4301, reason: 'disconnected', reconnect: false, retryAfterMs: 0 } });
  await world.pass(1_000);
  enter();
  await world.pass(1_000);
  for (const socket of [...server.sockets.keys()]) server.cut(socket);
  await world.pass(10_000);
  assert.equal(page.socket.status, 'open');
});

test('what is stored and is no session is nobody', async () => {
  const browser = new Browser();
  for (const stored of ['{}', '5', '[]', '{"user":{}}', 'null', '{']) {
    localStorage.setItem('fanfare-session', stored);
    const page = browser.page();
    assert.equal(page.jwt.user, null, stored);
    browser.within(page, () => page.jwt.setToken(browser.server.issue('ann').token));
    assert.equal(page.jwt.user!.id, 'ann');
    browser.world.kill(page.tab);
  }
});

test('a tab that is alone keeps its socket when its token is renewed', async () => {
  const browser = new Browser();
  const { world, server } = browser;
  const tab = world.open('page');
  const socket = world.run(tab, () => {
    const jwt: JWTManager = new (JWTManager as any)();
    const { token, refreshToken } = server.issue('ann');
    jwt.setToken(token, refreshToken);
    const socket = new FanfareSocket({ jwt, shared: false });
    socket.connect();
    return socket;
  });
  await world.pass(1_000);
  const [first] = server.sockets.keys();
  await world.pass(5 * LIFE);
  assert.equal(socket.status, 'open');
  assert.deepEqual([...server.sockets.keys()], [first]);
  assert.ok(server.inBand > 3, `${server.inBand}`);
});
