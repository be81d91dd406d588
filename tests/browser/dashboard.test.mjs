// The dashboard in a real Chromium, over a server that has something to show.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePorts } from '../system/proxy.mjs';
import { accessible, launch, screenshot, withPage } from './chromium.mjs';
import { asBackend, startDevServer, startServer, until } from './server.mjs';

const WALLET = '4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T';

let browser;
let server;

before(async () => (browser = await launch()));
after(() => browser?.close());
afterEach(() => server?.stop());

/** Signs in, follows a channel, and is told something. */
async function doSomething() {
  const answer = await fetch(`${server.url}/api/auth/wallet`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ wallet: WALLET }),
  });
  const { token } = await answer.json();
  await fetch(`${server.url}/api/auth/wallet`, { headers: { Authorization: 'Bearer nonsense' } });
  const page = await browser.newPage();
  await page.goto(`${server.url}/fanfare.js`);
  await page.evaluate((token) => {
    window.socket = new WebSocket(`ws://${location.host}/ws?token=${token}`);
    return new Promise((resolve) => {
      window.socket.onmessage = ({ data }) => data.includes('"subscribed"') && resolve();
      window.socket.onopen = () => window.socket.send('{"type":"subscribe","channel":"post_42"}');
    });
  }, token);
  for (let n = 0; n < 50; n++) await asBackend(server, 'POST', '/api/publish', { channel: 'post_42', event: { type: 'tick', n } });
  return page;
}

const open = (options, walk) =>
  withPage(browser, { url: server.metricsUrl, output: server.output }, options, async (page) => {
    await page.goto(server.metricsUrl);
    await walk(page);
  });

const shows = (page, selector, pattern) =>
  page.waitForFunction(([selector, source]) => new RegExp(source, 's').test(document.querySelector(selector)?.textContent ?? ''), [selector, pattern.source], { timeout: 20_000 });

test('it shows what there is and what was, in light and dark, wide and narrow', async () => {
  server = await startDevServer();
  const client = await doSomething();
  for (const [name, options] of [
    ['dashboard-light', { viewport: { width: 1280, height: 900 }, colorScheme: 'light' }],
    ['dashboard-narrow-dark', { viewport: { width: 360, height: 760 }, colorScheme: 'dark' }],
  ]) {
    await open(options, async (page) => {
      await shows(page, '#about', /node .*, version .*, up 0h 0m, 1 channel, 1 subscription/);
      await shows(page, '#states', /broker up.*store up/);
      await shows(page, '#tables', /post_42.*subscribe/);
      // The first samples are five seconds away.
      await page.waitForFunction(() => document.querySelectorAll('.series[d*="L"]').length > 4, null, { timeout: 20_000 });
      await shows(page, '#charts article', /1 open/);
      assert.ok(await page.isVisible('a[href="/stats"]'));
      // It was published and delivered before: the hour has it.
      await page.waitForFunction(() => [...document.querySelectorAll('#charts article')].some((one) => one.textContent.startsWith('From publication') && /[µm]s/.test(one.querySelector('.top').textContent)));
      const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
      assert.ok(content <= screen, `${content} px wide on a screen of ${screen}`);
      await page.mouse.move(0, 0);
      // The values stand side by side if there is room, and always above the plot.
      const crowded = await page.evaluate(() =>
        [...document.querySelectorAll('#charts article:not([hidden])')].filter((one) => {
          const tops = new Set([...one.querySelectorAll('.now b')].map((value) => value.getBoundingClientRect().top));
          const [now, top, plot] = ['.now', '.top', 'svg'].map((selector) => one.querySelector(selector).getBoundingClientRect());
          return (tops.size !== 1 && innerWidth > 1_000) || now.bottom > top.top || top.bottom > plot.top || one.scrollWidth > one.clientWidth;
        }).map((one) => one.innerText));
      assert.deepEqual(crowded, []);
      await accessible(page);
      await screenshot(page, name);
    });
  }
  await client.close();
});

test('those who hear it and those who choose their colours are told the same', async () => {
  server = await startDevServer();
  const client = await doSomething();
  await open({ forcedColors: 'active', viewport: { width: 1280, height: 900 } }, async (page) => {
    const label = (title) => page.getAttribute(`#charts svg[role="img"][aria-label^="${title}"]`, 'aria-label');
    await page.waitForFunction(() => document.querySelectorAll('.series[d*="L"]').length > 4, null, { timeout: 20_000 });
    assert.equal(await label('Connections'), 'Connections, now: 1 open');
    assert.match(await label('Messages'), /^Messages and deliveries a second, now: [\d.,]+ messages, [\d.,]+ deliveries, [\d.,]+ published$/);
    assert.match(await label('Wait'), /^Wait of an event for its worker, now: \S+ [µm]s p50, \S+ [µm]s p90, \S+ [µm]s p99$/);
    assert.match(await page.textContent('#charts'), /[\d.,]+ messages [\d.,]+ deliveries [\d.,]+ published /);
    assert.equal(await page.locator('tbody tr:not(:has(> th[scope="row"]))').count(), 0);
    assert.equal(await page.locator('thead th:not([scope="col"])').count(), 0);
    assert.equal(await page.getAttribute('#states', 'role'), 'status');
    const strokes = await page.evaluate(() => {
      const article = [...document.querySelectorAll('#charts article')].find((one) => one.textContent.startsWith('Wait'));
      const swatches = [...article.querySelectorAll('.now span')].map((one) => getComputedStyle(one, '::before'));
      return {
        lines: [...article.querySelectorAll('.series')].map((one) => getComputedStyle(one).strokeDasharray),
        swatches: swatches.map((one) => one.backgroundImage.match(/[\d.]+px/g)?.join(' ') ?? 'solid'),
        forced: swatches.map((one) => one.forcedColorAdjust),
      };
    });
    assert.equal(new Set(strokes.lines).size, 3);
    assert.deepEqual(strokes.swatches, ['solid', '0px 5px 0px 8px', '0px 2px 0px 4px']);
    assert.deepEqual(strokes.forced, ['none', 'none', 'none']);
    await screenshot(page, 'dashboard-forced-colors');
  });
  await client.close();
});

test('a value alone is a point', async () => {
  server = await startDevServer();
  await withPage(browser, { url: server.metricsUrl, output: server.output }, {}, async (page) => {
    await page.route('**/hour/*', async (route) => {
      const response = await route.fetch();
      const json = await response.json();
      await route.fulfill({ response, json: { ...json, first: 0, next: 0, samples: json.samples.slice(0, 1) } });
    });
    await page.goto(server.metricsUrl);
    await page.waitForSelector('.series.point', { state: 'attached', timeout: 20_000 });
    const [path, { strokeWidth, strokeLinecap }] = await page.evaluate(() => {
      const line = document.querySelector('.series.point');
      return [line.getAttribute('d'), { ...getComputedStyle(line) }];
    });
    assert.match(path, /^M720\.0 [\d.]+h0$/);
    assert.deepEqual([strokeWidth, strokeLinecap], ['6px', 'round']);
    await screenshot(page, 'dashboard-point');
  });
});

test('who is connected is shown when it is asked for, filtered, page by page', async () => {
  server = await startDevServer('limits.connections_per_user=200');
  const client = await doSomething();
  const userId = await client.evaluate(() => new Promise((resolve) => {
    window.socket.onmessage = resolve;
    window.socket.send('{"type":"subscribe","channel":"feed"}');
  }).then(() => JSON.parse(atob(new URL(window.socket.url).searchParams.get('token').split('.')[1].replace(/-/g, '+').replace(/_/g, '/'))).userId));
  // Sixty more of the same user, without a channel.
  await client.evaluate(() => {
    window.more = Array.from({ length: 60 }, () => new WebSocket(window.socket.url));
    return Promise.all(window.more.map((one) => new Promise((resolve) => (one.onmessage = resolve))));
  });
  await open({ viewport: { width: 1280, height: 900 } }, async (page) => {
    await page.click('#roster summary');
    await shows(page, '#roster-told', /^50 shown$/);
    await page.focus('#roster-more');
    await page.keyboard.press('Enter');
    await shows(page, '#roster-told', /^61 shown, no more$/);
    assert.equal(await page.isVisible('#roster-more'), false);
    // The button is gone: the first row that it brought has the focus.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    assert.ok(await page.evaluate(() => document.activeElement.matches('#roster-rows tr:nth-child(51)')));
    const filter = async (name, text, pattern) => {
      for (const one of ['user', 'address', 'channel']) await page.fill(`#by-${one}`, one === name ? text : '');
      await page.keyboard.press('Enter');
      await shows(page, '#roster-told', pattern);
    };
    await filter('channel', 'post_42', /^1 shown, no more$/);
    await shows(page, '#roster-rows', new RegExp(`${userId}127\\.0\\.0\\.1.*websocket2`));
    await filter('user', userId.slice(2, 9), /^50 shown$/);
    await filter('user', 'nobody', /^Nobody fits\.$/);
    await filter('address', '127.0.', /^50 shown$/);
    await filter('address', '10.', /^Nobody fits\.$/);
    await filter('channel', 'post_42', /^1 shown, no more$/);
    await accessible(page);
    await screenshot(page, 'dashboard-connections');
  });
  await client.close();
});

test('alerts that fire and the Redis are shown', async () => {
  const home = await mkdtemp(path.join(tmpdir(), 'fanfare-redis-'));
  const [port] = await freePorts(1);
  const redis = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--maxmemory', '64mb', '--maxmemory-policy', 'noeviction', '--dir', home], { stdio: 'ignore' });
  const ended = new Promise((resolve) => redis.on('close', resolve));
  try {
    await until('Redis listens', 20_000, () => new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
      socket.unref().end();
    }));
    server = await startDevServer('alerts.broker_down=1s', 'broker.backend=redis', `broker.redis.url=redis://127.0.0.1:${port}`);
    const client = await doSomething();
    await open({ colorScheme: 'dark', viewport: { width: 1280, height: 900 } }, async (page) => {
      await shows(page, '#redis-rows', new RegExp(`stateup.*127\\.0\\.0\\.1:${port}master.*memory.*of 64 MiB.*evicted keys0`));
      await shows(page, '#charts', /Answers of Redis/);
      // The Redis has the data: no file here grows.
      assert.deepEqual(await page.locator('#charts h2:visible', { hasText: /^Store/ }).count(), 0);
      await accessible(page);
      await screenshot(page, 'dashboard-redis');
      redis.kill('SIGKILL');
      await shows(page, '#states[role="status"]', /broker down.*alert: broker down/);
      await shows(page, '#redis-rows', /statedown: /);
    });
    await client.close();
  } finally {
    redis.kill('SIGKILL');
    await ended;
    await rm(home, { recursive: true, force: true });
  }
});

test('a server that goes is told, and one that comes is found', async () => {
  server = await startDevServer();
  // The icon may still be on its way when the server goes.
  await open({ expected: [/ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE .*dashboard\.svg/] }, async (page) => {
    await shows(page, '#states', /store up/);
    await page.waitForFunction(() => document.querySelector('.series[d^="M"]'), null, { timeout: 20_000 });
    assert.equal(await page.textContent('.times span:last-child'), 'now');
    await page.click('#roster summary');
    await shows(page, '#roster-told', /^Nobody fits\.$/);
    await server.kill();
    await shows(page, '#notice', /^The server cannot be reached\. Trying again\. What is shown is from \d\d:\d\d:\d\d\.$/);
    // What was good then is not what is.
    assert.equal(await page.textContent('#states'), 'broker unknownstore unknown');
    assert.equal(await page.locator('#states li:not([data-state="unknown"])').count(), 0);
    assert.match(await page.textContent('.times span:last-child'), /^at \d\d:\d\d:\d\d$/);
    assert.match(await page.getAttribute('#charts svg', 'aria-label'), /^Connections, at \d\d:\d\d:\d\d: 0 open$/);
    await page.click('#roster-filter button');
    await shows(page, '#roster-told', /^The server cannot be reached\.$/);
    await accessible(page);
    await screenshot(page, 'dashboard-gone');
    await server.restart();
    await page.waitForFunction(() => document.querySelector('#notice').hidden, null, { timeout: 20_000 });
    await shows(page, '#states', /broker up.*store up/);
    assert.equal(await page.textContent('.times span:last-child'), 'now');
  });
});

test('where a token is asked for, the page asks the person, and nothing is shown without', async () => {
  server = await startServer({
    args: ['serve', '--dev', '--set', 'server.listen=127.0.0.1:0', '--set', 'metrics.listen=127.0.0.1:0'],
    env: { FANFARE_METRICS__TOKEN: 'the-token-of-the-metrics' },
  });
  await open({ expected: [/status of 401/] }, async (page) => {
    await page.waitForSelector('#entry:not([hidden])');
    assert.equal(await page.textContent('#states'), '');
    assert.equal(await page.isVisible('a[href="/stats"]'), false);
    await page.fill('#token', 'another-token-than-that');
    await page.keyboard.press('Enter');
    await shows(page, '#notice', /missing or wrong/);
    await page.fill('#token', 'the-token-of-the-metrics');
    await page.keyboard.press('Enter');
    await shows(page, '#states', /store up/);
    assert.equal(await page.isVisible('#entry'), false);
    await page.reload();
    await shows(page, '#states', /store up/);
    // A link would not bring the token along.
    assert.equal(await page.isVisible('a[href="/stats"]'), false);
  });
});
