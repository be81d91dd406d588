// The test page in a real Chromium, against the real server.

import assert from 'node:assert/strict';
import { after, before, beforeEach, afterEach, test } from 'node:test';
import { accessible, launch, screenshot, withPage } from './chromium.mjs';
import { API_KEY, startDevServer } from './server.mjs';
import { injectWallet } from './wallet.mjs';

const PAGE = '/test/jwt-websocket';

let browser;
let server;

before(async () => (browser = await launch()));
after(() => browser?.close());
beforeEach(async () => (server = await startDevServer()));
afterEach(() => server?.stop());

const open = (options, walk) =>
  withPage(browser, server, options, async (page) => {
    await page.goto(server.url + PAGE);
    await walk(page);
  });

/** Waits until the element's text (or value) matches. */
async function shows(page, selector, pattern) {
  const matching = ([selector, source, flags]) => {
    const element = document.querySelector(selector);
    const text = 'value' in element && element.tagName !== 'LI' ? element.value : element.textContent;
    return new RegExp(source, flags).test(text) && !element.hidden;
  };
  try {
    await page.waitForFunction(matching, [selector, pattern.source, pattern.flags]);
  } catch {
    const text = await page.locator(selector).textContent();
    assert.fail(`${selector} does not show ${pattern}, but: ${text}`);
  }
}

async function signIn(page) {
  await page.click('#make-wallet');
  await page.click('#get-token');
  await shows(page, '#token', /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/);
}

async function connect(page) {
  await page.click('#connect');
  await shows(page, '#state', /^connected as /);
}

test('a person walks through all of it', () =>
  open({}, async (page) => {
    await signIn(page);
    assert.match(await page.inputValue('#wallet'), /^[1-9A-HJ-NP-Za-km-z]{32,44}$/);
    await shows(page, '#user', /^Signed in as user /);
    await shows(page, '#expiry', /^Expires at .* in (29 min \d\d|30 min 00) s\.$/);
    await shows(page, '#decoded', /"aud": "fonana-websocket"/);
    await page.click('#verify');
    await shows(page, '#verified', /^Valid: /);

    await connect(page);
    await page.click('#ping');
    await shows(page, '#round-trip', /^\d+\.\d ms$/);

    await page.fill('#channel', '{"type":"post","postId":"42"}');
    await page.click('#subscribe');
    await page.waitForSelector('#subscriptions li[data-channel="post_42"]');
    await page.fill('#api-key', API_KEY);
    await page.click('#publish');
    await shows(page, '#log', /"_meta":\{"channel":"post_42".*"type":"post_liked","likes":7/);
    await shows(page, '#subscriptions li', /^post_42 1/);
    await page.click('#notify');
    await shows(page, '#unread', /^1$/);
    await page.click('#notify');
    await shows(page, '#unread', /^2$/);
    await page.click('[aria-label="Mark as read: From the test page"]');
    await shows(page, '#unread', /^1$/);
    await accessible(page);
    await screenshot(page, 'page-light');
    await page.click('#clear-read');
    await page.waitForFunction(() => document.querySelectorAll('#inbox li').length === 1);

    await page.fill('#filter', 'post_liked');
    await shows(page, '#log-count', /^\d+ of \d+ lines$/);
    assert.equal(await page.locator('#log li:visible', { hasText: 'pong' }).count(), 0);
    assert.ok((await page.locator('#log li:visible').count()) > 0);
    await page.fill('#filter', '');

    await page.click('[aria-label="Unsubscribe from post_42"]');
    await page.waitForSelector('#subscriptions li', { state: 'detached' });
    await page.fill('#channel', 'feed_somebody-else');
    await page.click('#subscribe');
    await shows(page, '#notice', /Access denied to channel/);

    await page.click('#log-out');
    await shows(page, '#state', /^not connected$/);
    assert.equal(await page.inputValue('#token'), '');
    assert.doesNotMatch(await page.textContent('#log'), /eyJ[\w-]{20}/, 'a whole token in the log');
  }));

test('a key made in the page proves itself where that is asked for', async () => {
  await server.stop();
  server = await startDevServer('auth.wallet_proof=signature');
  await open({ expected: [/status of 401/] }, async (page) => {
    await page.click('#make-wallet');
    await page.click('#get-token');
    await shows(page, '#notice', /Wallet signature required/);
    await page.click('#sign-in-key');
    await shows(page, '#token', /^eyJ/);
    await connect(page);
  });
});

test("the wallet of the page's browser signs", () =>
  open({}, async (page) => {
    await injectWallet(page);
    await page.click('#sign-in-wallet');
    await shows(page, '#user', /^Signed in as user /);
  }));

test('a revoked token ends it all', () =>
  open({}, async (page) => {
    await signIn(page);
    await connect(page);
    await page.fill('#api-key', API_KEY);
    await page.click('#revoke');
    await shows(page, '#state', /^not connected$/);
    await shows(page, '#notice', /revoked/);
    assert.equal(await page.inputValue('#token'), '');
  }));

test('a reload keeps the session and opens no socket by itself', () =>
  open({}, async (page) => {
    await signIn(page);
    await connect(page);
    const token = await page.inputValue('#token');
    await page.reload();
    await shows(page, '#state', /^not connected$/);
    await shows(page, '#token', /^eyJ/);
    assert.equal(await page.inputValue('#token'), token);
    await connect(page);
  }));

test('a bad wallet is told', () =>
  open({ expected: [/status of 400/] }, async (page) => {
    await page.click('#get-token');
    await shows(page, '#notice', /Wallet address is required/);
    await page.fill('#wallet', 'not-a-wallet');
    await page.click('#get-token');
    await shows(page, '#notice', /Invalid wallet address/);
    assert.equal(await page.inputValue('#token'), '');
    await screenshot(page, 'page-bad-wallet');
    // The next success takes the notice away.
    await signIn(page);
    assert.equal(await page.isVisible('#notice'), false);
  }));

test('a server that dies while connected is seen at once, and found again', () =>
  open({ expected: [/ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE)/] }, async (page) => {
    await signIn(page);
    await connect(page);
    await server.kill();
    await shows(page, '#notice', /connection was closed/);
    await shows(page, '#state', /^(waiting to connect again|connecting)$/);
    await accessible(page);
    await screenshot(page, 'page-lost');
    await page.click('#verify');
    await shows(page, '#notice', /offline/);
    await server.restart();
    await shows(page, '#state', /^connected as /);
  }));

test('the keyboard is enough', () =>
  open({}, async (page) => {
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    await page.focus('#wallet');
    await press('Tab', 'Enter', 'Tab', 'Enter');
    await shows(page, '#token', /^eyJ/);
    await page.focus('#connect');
    await press('Enter');
    await shows(page, '#state', /^connected as /);
    await page.focus('#channel');
    await press('Enter');
    await page.waitForSelector('#subscriptions li[data-channel="post_42"]');
    await page.focus('#subscriptions button');
    await press('Space');
    await page.waitForSelector('#subscriptions li', { state: 'detached' });
  }));

test('a narrow, dark screen shows all of it', () =>
  open({ viewport: { width: 340, height: 700 }, colorScheme: 'dark' }, async (page) => {
    await signIn(page);
    await connect(page);
    await page.fill('#channel', `post_${'x'.repeat(200)}`);
    await page.click('#subscribe');
    await page.waitForSelector('#subscriptions li');
    const [content, screen] = await page.evaluate(() => [
      document.documentElement.scrollWidth,
      window.innerWidth,
    ]);
    assert.ok(content <= screen, `${content} px wide on a screen of ${screen}`);
    await accessible(page);
    await screenshot(page, 'page-narrow-dark');
  }));
