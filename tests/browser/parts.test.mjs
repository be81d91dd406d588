// The smaller parts of the client library in a real Chromium: the hooks with a real React, and the
// wallets that a page has by the wallet standard.

import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, afterEach, before, test } from 'node:test';
import { launch } from './chromium.mjs';
import { API_KEY, asBackend, startDevServer, startServer, until } from './server.mjs';
import { PATIENCE_MS, WALLET, isIn, openTab } from './tab.mjs';

const client = fileURLToPath(new URL('../../src/web/client/', import.meta.url));

let browser;
let server;
let context;

before(async () => (browser = await launch()));
after(() => browser?.close());
afterEach(async () => {
  await context?.close();
  await server?.stop();
});

/** A page in React, on the hooks as the server has them. */
const PAGE = `
  import { createElement as h, StrictMode, useState } from 'react';
  import { createRoot } from 'react-dom/client';
  import { useChannel, useNotifications, useStatus } from './dist/fanfare-react.js';

  function Inbox({ inbox, socket }) {
    const { notifications, unreadCount } = useNotifications(inbox);
    const status = useStatus(socket);
    const [channel, follow] = useState('post_7');
    const [events, setEvents] = useState([]);
    useChannel(socket, channel, (event) => setEvents([...events, event.n]));
    const items = notifications.map((one) => h('li', { key: one.id, className: one.isRead ? 'read' : 'unread', onClick: () => inbox.markRead(one.id) }, one.title));
    return h('div', {}, h('b', { id: 'count' }, unreadCount), h('i', { id: 'status' }, status), h('u', { id: 'events' }, events.join()),
      h('button', { id: 'other', onClick: () => follow('post_8') }), h('ul', {}, ...items));
  }
  export function show(inbox, socket) {
    const place = document.body.appendChild(document.createElement('main'));
    const root = createRoot(place);
    root.render(h(StrictMode, {}, h(Inbox, { inbox, socket })));
    return () => root.unmount();
  }
`;

async function bundled() {
  const { build } = createRequire(path.join(client, 'package.json'))('esbuild');
  const made = await build({
    stdin: { contents: PAGE, resolveDir: client },
    bundle: true,
    format: 'esm',
    write: false,
    define: { 'process.env.NODE_ENV': '"development"' },
    plugins: [{
      name: 'as served',
      setup: (build) => build.onResolve({ filter: /^\.\/fanfare\.js$/ }, () => ({ path: '/fanfare.js', external: true })),
    }],
  });
  return made.outputFiles[0].text;
}

test('the hooks follow what there is, and leave nothing behind', async () => {
  server = await startDevServer();
  context = await browser.newContext();
  const body = await bundled();
  await context.route('**/page-in-react.js', (route) => route.fulfill({ contentType: 'text/javascript', body }));
  const page = await openTab(context, server.url);
  const mistakes = [];
  page.on('console', (message) => message.type() === 'error' && mistakes.push(message.text()));
  await page.evaluate((wallet) => window.jwt.signIn(wallet), WALLET);
  await isIn(page);
  const userId = await page.evaluate(() => window.jwt.user.id);
  const notify = (title) => asBackend(server, 'POST', '/api/user/notifications', { userId, type: 'like', title, message: 'm' });
  const stats = async () => (await fetch(`${server.metricsUrl}/stats`)).json();
  const followed = async () => Object.keys((await stats()).connectionsByChannel).sort();
  const shows = (selector, text) =>
    until(`${selector} is ${text}`, PATIENCE_MS, () => page.evaluate(([selector, text]) => [...document.querySelectorAll(selector)].map((one) => one.textContent).join() === text, [selector, text]));

  await notify('before');
  await page.evaluate(async () => {
    const { show } = await import('/page-in-react.js');
    window.unmount = show(window.inbox, window.socket);
  });
  await shows('li.unread', 'before');
  await shows('#count', '1');
  await shows('#status', 'open');
  // Live, and read by a click.
  await notify('now');
  await shows('li.unread', 'now,before');
  await page.click('li:last-child');
  await shows('li.read', 'before');
  await shows('#count', '1');
  // The newest handler hears each event: it knows those before.
  await until('post_7 is followed', PATIENCE_MS, async () => (await followed()).includes('post_7'));
  for (const n of [1, 2, 3]) {
    await asBackend(server, 'POST', '/api/publish', { channel: 'post_7', event: { type: 'tick', n } });
    await shows('#events', Array.from({ length: n }, (_, i) => i + 1).join());
  }
  // Another channel instead, by another rendering.
  await page.click('#other');
  await until('post_8 instead', PATIENCE_MS, async () => String(await followed()) === String([`notifications_${userId}`, 'post_1', 'post_8']));
  await page.evaluate(() => window.unmount());
  await until('all is left', PATIENCE_MS, async () => String(await followed()) === 'post_1');
  await notify('after');
  await page.evaluate(() => window.socket.ping());
  assert.deepEqual(await page.evaluate(() => window.inbox.state.notifications.map(({ title }) => title)), ['now', 'before']);
  assert.deepEqual(mistakes, []);
});

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

function base58(bytes) {
  let number = BigInt(`0x${bytes.toString('hex')}`);
  let text = '';
  for (; number > 0n; number /= 58n) text = BASE58[Number(number % 58n)] + text;
  return '1'.repeat(bytes.findIndex((byte) => byte !== 0)) + text;
}

/** The text that a wallet makes of the input of `solana:signIn`, by the standard. */
function messageOf(input) {
  const lines = [`${input.domain} wants you to sign in with your Solana account:`, input.address];
  if (input.statement) lines.push('', input.statement);
  lines.push('');
  for (const [name, value] of [['URI', input.uri], ['Version', input.version], ['Chain ID', input.chainId], ['Nonce', input.nonce], ['Issued At', input.issuedAt], ['Expiration Time', input.expirationTime]]) {
    if (value) lines.push(`${name}: ${value}`);
  }
  return lines.join('\n');
}

for (const [feature, isEarly] of [['solana:signMessage', true], ['solana:signMessage', false], ['solana:signIn', true]]) {
  test(`a wallet of the standard with ${feature}, there ${isEarly ? 'before' : 'after'} the library, signs in`, async () => {
    server = await startServer({
      args: ['serve', '--listen', '127.0.0.1:0', '--metrics-listen', '127.0.0.1:0'],
      env: { FANFARE_AUTH__API_KEYS: API_KEY },
    });
    context = await browser.newContext();
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const address = base58(publicKey.export({ format: 'der', type: 'spki' }).subarray(-32));
    const asked = [];
    await context.exposeFunction('signByWallet', (kind, what) => {
      asked.push(kind);
      const message = kind === 'solana:signIn' ? Buffer.from(messageOf(what)) : Buffer.from(what);
      return { message: [...message], signature: [...sign(null, message, privateKey)] };
    });
    /** A wallet as extensions have it: it announces itself, and answers those who come later. */
    const install = ([feature, address]) => {
      const account = { address, publicKey: new Uint8Array(32), chains: ['solana:mainnet'], features: [feature] };
      let isConnected = false;
      const sign = async (kind, what) => {
        if (!isConnected) throw new Error('not connected');
        const { message, signature } = await window.signByWallet(kind, what);
        return [{ account, signedMessage: new Uint8Array(message), signature: new Uint8Array(signature) }];
      };
      const wallet = {
        version: '1.0.0', name: 'Test', icon: 'data:,', chains: ['solana:mainnet'], accounts: [],
        features: {
          'standard:connect': { version: '1.0.0', connect: async () => ({ accounts: (isConnected = true) && [account] }) },
          ...(feature === 'solana:signMessage' && { [feature]: { version: '1.0.0', signMessage: (input) => sign(feature, [...input.message]) } }),
          ...(feature === 'solana:signIn' && { [feature]: { version: '1.0.0', signIn: (input) => sign(feature, input) } }),
        },
      };
      // Another one, for another chain, comes first.
      const other = { ...wallet, name: 'Other', features: { 'standard:connect': { connect: () => Promise.reject(new Error('not this one')) } } };
      const callback = ({ register }) => register(other, wallet);
      window.dispatchEvent(new CustomEvent('wallet-standard:register-wallet', { detail: callback }));
      window.addEventListener('wallet-standard:app-ready', ({ detail }) => callback(detail));
    };
    if (isEarly) await context.addInitScript(install, [feature, address]);
    const page = await openTab(context, server.url);
    const none = await page.evaluate(() => (window.signByWallet && window.phantom ? '' : 'no injected one'));
    assert.equal(none, 'no injected one');
    if (!isEarly) {
      const told = await page.evaluate(() => window.jwt.signIn().catch((error) => error.message));
      assert.equal(told, 'No wallet was found in this browser');
      await page.evaluate(install, [feature, address]);
    }
    const user = await page.evaluate(() => window.jwt.signIn());
    assert.equal(user.wallet, address);
    assert.deepEqual(asked, [feature]);
    assert.ok(await page.evaluate(() => window.jwt.verify()));
    await isIn(page);
  });
}
