// A tab with the client library in it, and what it has heard.

import assert from 'node:assert/strict';
import { until } from './server.mjs';

export const WALLET = '4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T';
export const PATIENCE_MS = 20_000;

/**
 * Opens one at `url` (shown as text: its policy lets own scripts run); `heard` has what `post_1` brought,
 * `told` what the client said of itself.
 */
export async function openTab(context, url, { options = {}, hasClock = false } = {}) {
  const page = await context.newPage();
  if (hasClock) await page.clock.install();
  page.on('pageerror', (error) => assert.fail(error));
  await page.goto(`${url}/fanfare.js`);
  await page.evaluate(async (options) => {
    const { FanfareSocket, JWTManager, Notifications } = await import('/fanfare.js');
    window.jwt = JWTManager.getInstance();
    window.socket = new FanfareSocket(options);
    window.inbox = new Notifications(window.socket);
    window.heard = [];
    window.told = [];
    window.greetings = [];
    for (const type of ['$status', '$recovered', '$denied', '$closed']) {
      window.socket.on(type, (frame) => window.told.push([type, frame.data]));
    }
    window.socket.on('connected', ({ data, _meta }) => _meta || window.greetings.push(data.transport ?? 'websocket'));
    window.socket.subscribe('post_1', (event) => window.heard.push({ n: event.n, at: performance.now() }));
    window.socket.connect();
  }, options);
  return page;
}

/** Until the page is connected and follows `post_1`. */
export const isIn = (page, patienceMs = PATIENCE_MS) =>
  until('the page follows its channel', patienceMs, () =>
    page.evaluate(() => window.socket.isConnected() && window.socket.subscribe('post_1').ready.then(() => true, () => false)),
  );

/** Until the page has heard exactly these, in this order, each once. */
export async function hears(page, numbers) {
  const heard = () => page.evaluate(() => window.heard.map(({ n }) => n));
  await until(`${numbers.length} events`, PATIENCE_MS, async () => (await heard()).length >= numbers.length).catch(() => {});
  assert.deepEqual(await heard(), numbers);
}

export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
