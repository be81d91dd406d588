// The test page in a real Chromium, against the real server.

import assert from 'node:assert/strict';
import { after, before, beforeEach, afterEach, test } from 'node:test';
import { accessible, launch, screenshot, withPage } from './chromium.mjs';
import { API_KEY, asBackend, startDevServer } from './server.mjs';
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
    for (const name of ['Mark as unread', 'Mark as read', 'Delete']) assert.equal(await page.getAttribute(`[aria-label="${name}: From the test page"]`, 'title'), `${name}: From the test page`);
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

/** Waits until the focus is there, and sees that it stays when the browser has drawn anew. */
async function isFocused(page, selector) {
  const where = () => page.evaluate(() => document.activeElement.outerHTML.slice(0, 200));
  await page.waitForFunction((selector) => document.activeElement.matches(selector), selector).catch(async () => assert.fail(`the focus is not on ${selector}, but: ${await where()}`));
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  assert.ok(await page.evaluate((selector) => document.activeElement.matches(selector), selector), await where());
}

test('a button that goes or is disabled leaves the focus to a neighbour', () =>
  open({}, async (page) => {
    const press = async (selector) => {
      await page.focus(selector);
      await page.keyboard.press('Enter');
    };
    await signIn(page);
    await press('#connect');
    await isFocused(page, '#disconnect');
    await shows(page, '#state', /^connected as /);
    await press('#disconnect');
    await isFocused(page, '#connect');
    await connect(page);
    await isFocused(page, '#disconnect');

    for (const channel of ['post_1', 'post_2', 'post_3']) {
      await page.fill('#channel', channel);
      await press('#channel');
      await page.waitForSelector(`[data-channel="${channel}"]`);
    }
    await press('[data-channel="post_2"] button');
    await isFocused(page, '[data-channel="post_3"] button');
    await page.keyboard.press('Enter');
    await isFocused(page, '[data-channel="post_1"] button');
    await page.keyboard.press('Enter');
    await isFocused(page, '#subscribe');

    await page.fill('#api-key', API_KEY);
    for (const number of [1, 2, 3]) {
      await press('#notify');
      await shows(page, '#unread', new RegExp(`^${number}$`));
    }
    await press('#inbox li:nth-child(2) [aria-label^="Mark as read"]');
    await isFocused(page, '#inbox li:nth-child(2) [aria-label^="Mark as unread"]');
    await asBackend(server, 'POST', '/api/user/notifications', { userId: await page.evaluate(() => JSON.parse(document.querySelector('#decoded').textContent).claims.userId), type: 'test', title: 'Another', message: 'From elsewhere' });
    await isFocused(page, '#inbox li:nth-child(3) [aria-label^="Mark as unread"]');
    await press('#inbox li:nth-child(1) [aria-label="Delete: Another"]');
    await isFocused(page, '#inbox li:nth-child(1):nth-last-child(3) [aria-label^="Delete"]');
    await press('#inbox li:nth-child(3) [aria-label^="Delete"]');
    await isFocused(page, '#inbox li:nth-child(2):last-child [aria-label^="Delete"]');
    await press('#read-all');
    await isFocused(page, '#clear-read');
    await page.keyboard.press('Enter');
    await isFocused(page, '[aria-labelledby="inbox-title"]');
    // Somebody who is elsewhere stays there.
    await press('#notify');
    await shows(page, '#unread', /^1$/);
    await page.focus('#filter');
    await page.evaluate(() => document.querySelector('#inbox [aria-label^="Delete"]').click());
    await page.waitForSelector('#inbox li', { state: 'detached' });
    await isFocused(page, '#filter');
  }));

test('what came while the log was paused is there afterwards, and what it no longer has is counted', () =>
  open({}, async (page) => {
    await signIn(page);
    await connect(page);
    const write = (number) =>
      page.evaluate(async (number) => {
        const { log } = await import('/test/log.js');
        for (let n = 0; n < number; n++) log('note', `line ${n}`);
      }, number);
    const last = () => page.textContent('#log li:last-child span');
    await page.click('#clear-log');
    await shows(page, '#log-count', /^0 lines$/);
    await write(1);
    await shows(page, '#log-count', /^1 line$/);
    await page.click('#pause-log');
    await page.click('#ping');
    await shows(page, '#round-trip', /ms$/);
    await shows(page, '#log-count', /^1 of 3 lines, paused$/);
    assert.equal(await last(), 'line 0');
    await page.fill('#filter', 'pong');
    await page.click('#pause-log');
    await shows(page, '#log-count', /^1 of 3 lines$/);
    assert.match(await page.textContent('#log li:visible'), /"type":"pong"/);
    await page.fill('#filter', '');

    await write(1_231);
    await shows(page, '#log-count', /^500 of 1,234 lines$/);
    await page.fill('#filter', '1230');
    await shows(page, '#log-count', /^1 of 500 lines \(1,234 in all\)$/);
    await page.fill('#filter', '');
    await page.click('#pause-log');
    await write(766);
    assert.equal(await last(), 'line 1230');
    await page.click('#pause-log');
    await shows(page, '#log-count', /^500 of 2,000 lines$/);
    assert.deepEqual([await page.locator('#log li').count(), await last()], [500, 'line 765']);
  }));

test('a mistake in a field is told beside it until it is mended', () =>
  open({}, async (page) => {
    const isWrong = async (field, pattern) => {
      await shows(page, `#${field}-wrong`, pattern);
      assert.equal(await page.getAttribute(`#${field}`, 'aria-invalid'), 'true');
      assert.equal(await page.getAttribute(`#${field}`, 'aria-describedby'), `${field}-wrong`);
    };
    const isMended = async (field) => {
      assert.equal(await page.textContent(`#${field}-wrong`), '');
      assert.equal(await page.getAttribute(`#${field}`, 'aria-invalid'), null);
    };
    await page.fill('#channel', '{"type":');
    await page.click('#subscribe');
    await isWrong('channel', /^Channel: not JSON; expected a key such as post_42, or an object such as /);
    await isFocused(page, '#channel');
    await page.fill('#channel', '{"type":"post"}');
    await isWrong('channel', /^Channel: /);
    await page.click('#subscribe');
    await isWrong('channel', /^Channel: an object without a type or an id; /);
    await page.fill('#channel', '{"type":"post","postId":"42"}');
    await isMended('channel');

    await page.fill('#event', '');
    await page.click('#publish');
    await isWrong('event', /^Event: not JSON; expected an object with a type, such as /);
    await isFocused(page, '#event');
    await page.fill('#event', '["post_liked"]');
    await page.click('#publish');
    await isWrong('event', /^Event: JSON without a type; /);
    await accessible(page);
    await screenshot(page, 'page-mistake');
    await page.fill('#event', '{"type":"post_liked"}');
    await isMended('event');

    await page.fill('#token', 'not.a.token');
    await page.focus('#verify');
    await isWrong('token', /^Token: not a token; expected three parts of base64url/);
    await isFocused(page, '#verify');
    await shows(page, '#decoded', /^This is not a token; expected/);
    await signIn(page);
    await isMended('token');
    assert.equal(await page.isVisible('#notice'), false);
  }));

test('on a telephone the state stays in sight', () =>
  open({ viewport: { width: 320, height: 640 } }, async (page) => {
    await signIn(page);
    await connect(page);
    await page.fill('#channel', 'feed_somebody-else');
    await page.click('#subscribe');
    await shows(page, '#notice', /Access denied/);
    await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
    const [state, notice] = await Promise.all(['#state', '#notice'].map((selector) => page.locator(selector).boundingBox()));
    assert.ok(state.y >= 0 && state.y + state.height < 64, `the state is at ${state.y}, ${state.height} high`);
    assert.ok(notice.y >= state.y + state.height && notice.y < 100, `the notice is at ${notice.y}`);
    // What is focused is not beneath it.
    await page.focus('#sign-in-key');
    assert.ok((await page.locator('#sign-in-key').boundingBox()).y > 50);
    await accessible(page);
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
