// The predecessor's names over the client library, in a real Chromium: an application that changes one import.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { launch } from './chromium.mjs';
import { asBackend, startDevServer, until } from './server.mjs';
import { PATIENCE_MS, WALLET } from './tab.mjs';
import { injectWallet } from './wallet.mjs';

let browser;
let server;
let context;

before(async () => (browser = await launch()));
after(() => browser?.close());
afterEach(async () => {
  await context?.close();
  await server?.stop();
});

async function openPage(...settings) {
  server = await startDevServer(...settings);
  context = await browser.newContext();
  const page = await context.newPage();
  page.on('pageerror', (error) => assert.fail(error));
  await page.goto(`${server.url}/fanfare.js`);
  return page;
}

/** The application's code, as far as it is about this: it connects nowhere. */
const begin = (page, wallet) =>
  page.evaluate(async (wallet) => {
    window.parts = await import('/fanfare-compat.js');
    const { wsService, subscribeToPost } = window.parts;
    if (wallet) localStorage.setItem('fonana_user_wallet', wallet);
    window.liked = [];
    window.told = [];
    const hear = (event) => window.liked.push(event.likesCount);
    wsService.on('post_liked', hear);
    for (const event of ['connected', 'disconnected', 'max_reconnect_reached']) wsService.on(event, () => window.told.push(event));
    subscribeToPost('p1');
  }, wallet);

const isConnected = (page) => until('it is connected', PATIENCE_MS, () => page.evaluate(() => window.parts.wsService.isConnected()));
const followed = async () => Object.keys((await (await fetch(`${server.metricsUrl}/stats`)).json()).connectionsByChannel).sort();
const follows = (...keys) => until(`${keys} are followed`, PATIENCE_MS, async () => String(await followed()) === String(keys));
const like = (likesCount) => asBackend(server, 'POST', '/api/publish', { channel: { type: 'post', postId: 'p1' }, event: { type: 'post_liked', likesCount } });
const liked = (page, ...counts) => until(`${counts} were heard`, PATIENCE_MS, () => page.evaluate((counts) => String(window.liked) === counts, String(counts)));

test('it signs in with the remembered wallet, connects by itself and has all the names', async () => {
  const page = await openPage();
  await begin(page, WALLET);
  await isConnected(page);
  await page.evaluate(() => window.parts.wsService.subscribeToCreator('c1'));
  await follows('creator_c1', 'post_p1');
  await like(3);
  await liked(page, 3);
  assert.match(await page.evaluate(() => window.parts.getJWTToken()), /^eyJ/);
  assert.match(await page.evaluate(() => window.parts.wsService.getWebSocketUrlWithAuth()), /^ws:.*\/ws\?token=eyJ/);
  assert.ok(await page.evaluate(() => window.parts.jwtManager.verifyToken()));
  const { connected, subscribedChannels, listeners } = await page.evaluate(() => window.parts.wsService.getStats());
  assert.deepEqual({ connected, subscribedChannels, listeners }, {
    connected: true,
    subscribedChannels: 2,
    listeners: { post_liked: 1, connected: 1, disconnected: 1, max_reconnect_reached: 1 },
  });

  // Asked for twice, left once; and a listener that throws takes nothing from the next.
  await page.evaluate(() => {
    const { wsService } = window.parts;
    wsService.subscribeToPost('p1');
    wsService.unsubscribeFromCreator('c1');
    window.heard = 0;
    wsService.on('pretended', () => window.heard++);
    wsService.emit('pretended');
  });
  assert.equal(await page.evaluate(() => window.heard), 1);
  await follows('post_p1');
  await like(4);
  await liked(page, 3, 4);

  // Whoever disconnects has left the channels, too.
  await page.evaluate(() => window.parts.wsService.disconnect());
  await follows();
  await page.evaluate(() => {
    window.parts.wsService.subscribeToPost('p2');
    window.parts.wsService.connect();
  });
  await follows('post_p2');
  assert.deepEqual(await page.evaluate(() => window.told), ['connected', 'disconnected', 'connected']);
});

test('where wallets have to sign, the one of the page does, and it is asked once', async () => {
  const page = await openPage('auth.wallet_proof=signature');
  const wallet = await injectWallet(page);
  await page.evaluate(() => (window.declines = true));
  await begin(page, wallet);
  await until('it was asked', PATIENCE_MS, () => page.evaluate(() => window.asked === 1));
  for (let n = 0; n < 3; n++) assert.equal(await page.evaluate(() => window.parts.getJWTToken()), null);
  assert.equal(await page.evaluate(() => window.asked), 1);

  // In the next page the person agrees; all that want a token wait for one signature.
  await page.reload();
  await page.evaluate((wallet) => localStorage.setItem('fonana_user_wallet', wallet), await injectWallet(page));
  await begin(page);
  const tokens = await page.evaluate(() => Promise.all([1, 2, 3].map(() => window.parts.getJWTToken())));
  assert.match(tokens[0], /^eyJ/);
  assert.equal(new Set(tokens).size, 1);
  assert.equal(await page.evaluate(() => window.asked), 1);
  await isConnected(page);
  await like(5);
  await liked(page, 5);
});

test('a wallet that comes later signs, and until then the server is not troubled', async () => {
  const page = await openPage('auth.wallet_proof=signature');
  const wallet = await injectWallet(page);
  await page.evaluate(() => {
    window.later = window.solana;
    delete window.solana;
  });
  const asked = [];
  page.on('request', (request) => request.url().includes('/api/auth/') && asked.push(new URL(request.url()).pathname));
  await begin(page, wallet);
  for (let n = 0; n < 5; n++) assert.equal(await page.evaluate(() => window.parts.getJWTToken()), null);
  assert.deepEqual(asked, ['/api/auth/wallet']);
  await page.evaluate(() => (window.solana = window.later));
  assert.match(await page.evaluate(() => window.parts.getJWTToken()), /^eyJ/);
  assert.deepEqual(asked, ['/api/auth/wallet', '/api/auth/challenge', '/api/auth/wallet']);
  await page.evaluate(() => window.parts.wsService.connect());
  await isConnected(page);
});

test('the wallet of somebody else signs nobody in', async () => {
  const page = await openPage('auth.wallet_proof=signature');
  await injectWallet(page);
  await begin(page, WALLET);
  assert.equal(await page.evaluate(() => window.parts.getJWTToken()), null);
  assert.deepEqual(await page.evaluate(() => [window.asked, window.parts.jwtManager.isAuthenticated()]), [0, false]);
});

test("whoever was signed in by the predecessor's token stays so, and one that does not hold is forgotten", async () => {
  const page = await openPage('auth.wallet_proof=signature');
  const wallet = await injectWallet(page);
  // As the application signed it, with the secret that both have.
  const token = await page.evaluate(async (wallet) => {
    const { JWTManager } = await import('/fanfare.js');
    const jwt = JWTManager.getInstance();
    await jwt.signIn({ address: wallet, signMessage: async (message) => (await window.solana.signMessage(message)).signature });
    const token = await jwt.getToken();
    localStorage.clear();
    return token;
  }, wallet);
  const keep = (token) =>
    page.evaluate(([token, wallet]) => {
      localStorage.clear();
      localStorage.setItem('fonana_user_wallet', wallet);
      localStorage.setItem('fonana_jwt_token', JSON.stringify({ token, expiresAt: Date.now() + 60_000, userId: 'u', wallet }));
    }, [token, wallet]);
  await keep(token);
  await page.reload();
  await begin(page);
  assert.deepEqual(await page.evaluate(() => [window.parts.isJWTAuthenticated(), window.parts.jwtManager.getCurrentWallet()]), [true, wallet]);
  await isConnected(page);
  assert.equal(await page.evaluate(() => window.parts.getJWTToken()), token);
  // The application looks for it there, too.
  const stored = await page.evaluate(() => JSON.parse(localStorage.getItem('fonana_jwt_token')));
  assert.deepEqual([stored.token, stored.wallet], [token, wallet]);
  assert.ok(stored.expiresAt > Date.now());

  // While the server cannot say whether it holds, it is kept.
  await keep(token);
  await page.route('**/api/auth/wallet', (route) => route.fulfill({ status: 502, body: 'away' }));
  await page.reload();
  await begin(page);
  assert.equal(await page.evaluate(() => window.parts.getJWTToken()), token);
  assert.equal((await page.evaluate(() => JSON.parse(localStorage.getItem('fonana_jwt_token')))).token, token);
  await page.unroute('**/api/auth/wallet');

  await keep(`${token.slice(0, -8)}AAAAAAAA`);
  await page.reload();
  await begin(page);
  assert.equal(await page.evaluate(() => window.parts.getJWTToken()), null);
  assert.equal(await page.evaluate(() => localStorage.getItem('fonana_jwt_token')), null);
});

const signInAs = (wallet) =>
  fetch(`${server.url}/api/auth/wallet`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ wallet }),
  }).then((answer) => answer.json());

test('a token that the application has got itself for another wallet is used', async () => {
  const page = await openPage();
  await begin(page, WALLET);
  await isConnected(page);
  const other = 'So11111111111111111111111111111111111111112';
  const { token, user } = await signInAs(other);
  const stored = JSON.stringify({ token, expiresAt: Date.now() + 60_000, userId: user.id, wallet: other });
  await page.evaluate(([stored, other]) => {
    localStorage.setItem('fonana_jwt_token', stored);
    localStorage.setItem('fonana_user_wallet', other);
  }, [stored, other]);
  await page.reload();
  await begin(page);
  assert.equal(await page.evaluate(() => window.parts.getJWTToken()), token);
  await isConnected(page);
  assert.equal(await page.evaluate(() => window.parts.jwtManager.getCurrentUserId()), user.id);
});

test('it connects when the server is back, or the wallet there, by itself', async () => {
  const page = await openPage();
  let refused = 0;
  await page.route('**/api/auth/wallet', (route) => (refused++ < 2 ? route.fulfill({ status: 502, body: 'away' }) : route.continue()));
  await begin(page);
  await page.waitForTimeout(1_500);
  assert.equal(refused, 0);
  await page.evaluate((wallet) => localStorage.setItem('fonana_user_wallet', wallet), WALLET);
  await isConnected(page);
  assert.equal(refused, 3);
  await follows('post_p1');
});

test('what was left and wanted again at once is not left, and a refusal is told', async () => {
  const page = await openPage();
  await begin(page, WALLET);
  await isConnected(page);
  await follows('post_p1');
  const before = (await (await fetch(`${server.metricsUrl}/stats`)).json()).messagesByType;
  await page.evaluate(() => {
    const { subscribeToPost, unsubscribeFromPost } = window.parts;
    for (let n = 0; n < 10; n++) {
      unsubscribeFromPost('p1');
      subscribeToPost('p1');
    }
  });
  await like(7);
  await liked(page, 7);
  await page.evaluate(() => {
    window.parts.wsService.on('error', (frame) => (window.refused = frame));
    window.parts.subscribeToFeed('somebody-else');
  });
  await until('the refusal is told', PATIENCE_MS, () => page.evaluate(() => window.refused?.data.code === 'access_denied'));
  const { messagesByType } = await (await fetch(`${server.metricsUrl}/stats`)).json();
  assert.deepEqual([messagesByType.unsubscribe, messagesByType.subscribe], [before.unsubscribe, before.subscribe + 1]);
  await page.evaluate(() => window.parts.unsubscribeFromPost('p1'));
  await follows('');
});
