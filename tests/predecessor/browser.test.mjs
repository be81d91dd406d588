// The predecessor's browser client, unchanged, in a real Chromium.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, withPage } from '../browser/chromium.mjs';
import { API_KEY, asBackend, until } from '../browser/server.mjs';
import { startApplication } from './application.mjs';
import { mint, startDropIn } from './drop-in.mjs';

let browser;
let server;
let application;

before(async () => {
  browser = await launch();
  server = await startDropIn({ FANFARE_AUTH__API_KEYS: API_KEY });
  application = await startApplication(server.url);
});
after(async () => {
  await browser?.close();
  await application?.stop();
  await server?.stop();
});

/** A page of the application in a browser of its own. */
const inApplication = (walk) =>
  withPage(browser, { url: application.url, output: server.output }, {}, async (page) => {
    await page.goto(`${application.url}/application`);
    await walk(page);
  });

async function connect(page, token) {
  return page.evaluate(async (token) => {
    window.client = new OldSocketClient(`ws://${location.host}/ws`, async () => token);
    return window.client.connect().catch((error) => ({ refused: error.message }));
  }, token);
}

/** The first message of this type that the page has received. */
function received(page, type) {
  return until(`the page received "${type}"`, 5_000, () =>
    page.evaluate((type) => window.client.received.find((event) => event.type === type), type),
  );
}

const notify = (userId, title) =>
  asBackend(server, 'POST', '/api/user/notifications', {
    userId,
    type: 'POST_LIKE',
    title,
    message: 'Somebody liked your post',
  });

const publish = (channel, event) => asBackend(server, 'POST', '/api/publish', { channel, event });

test('it signs in by the query, subscribes to everything and hears of everything', () =>
  inApplication(async (page) => {
    await notify('anna', 'before she came');
    const greeting = await connect(page, mint('anna'));
    assert.equal(greeting.userId, 'anna');
    assert.equal(greeting.message, 'Successfully connected to WebSocket server');

    await page.evaluate(() => {
      window.client.subscribeToCreator('c1');
      window.client.subscribeToNotifications('anna');
      window.client.subscribeToFeed('anna');
      window.client.subscribeToPost('p1');
    });
    const channels = await until('four acknowledgements', 5_000, () =>
      page.evaluate(() => {
        const replies = window.client.received.filter((event) => event.type === 'subscribed');
        return replies.length === 4 && replies.map((event) => event.data.channel);
      }),
    );
    assert.deepEqual(new Set(channels.map((channel) => JSON.stringify(channel))), new Set([
      '{"type":"creator","id":"c1"}',
      '{"type":"notifications","userId":"anna"}',
      '{"type":"feed","userId":"anna"}',
      '{"type":"post","postId":"p1"}',
    ]));
    const unread = await received(page, 'unread_notifications');
    assert.equal(unread.data.count, 1);
    assert.equal(unread.data.notifications[0].title, 'before she came');

    await notify('anna', 'while she is here');
    const notification = await received(page, 'notification');
    assert.equal(notification.userId, 'anna');
    assert.equal(notification.unreadCount, 2);
    assert.equal(notification.notification.title, 'while she is here');
    assert.equal(notification.notification.isRead, false);

    await publish({ type: 'post', postId: 'p1' }, { type: 'post_liked', postId: 'p1', likesCount: 3 });
    const liked = await received(page, 'post_liked');
    assert.equal(liked.postId, 'p1');
    assert.equal(liked.likesCount, 3);
    await publish({ type: 'creator', id: 'c1' }, { type: 'creator_updated', creatorId: 'c1' });
    assert.equal((await received(page, 'creator_updated')).creatorId, 'c1');
    await publish({ type: 'feed', userId: 'anna' }, { type: 'new_post', post: { id: 'p2' } });
    assert.deepEqual((await received(page, 'new_post')).post, { id: 'p2' });

    await page.evaluate(() => window.client.ping());
    assert.deepEqual(await received(page, 'pong'), { type: 'pong' });
    await page.evaluate(() => window.client.unsubscribeFromPost('p1'));
    const left = await received(page, 'unsubscribed');
    assert.deepEqual(left.data.channel, { type: 'post', postId: 'p1' });
  }));

test("it cannot subscribe to another user's notifications or feed", () =>
  inApplication(async (page) => {
    await connect(page, mint('anna'));
    await page.evaluate(() => {
      window.client.subscribeToNotifications('boris');
      window.client.subscribeToFeed('boris');
    });
    const errors = await until('two refusals', 5_000, () =>
      page.evaluate(() => {
        const errors = window.client.received.filter((event) => event.type === 'error');
        return errors.length === 2 && errors;
      }),
    );
    for (const error of errors) assert.equal(error.data.message, 'Access denied to channel');
    await notify('boris', 'for his eyes only');
    await page.evaluate(() => window.client.ping());
    await received(page, 'pong');
    const all = await page.evaluate(() => JSON.stringify(window.client.received));
    assert.doesNotMatch(all, /for his eyes only/);
  }));

test('a token of another audience is refused as it was', () =>
  inApplication(async (page) => {
    const answer = await connect(page, mint('anna', { audience: 'somebody-else' }));
    assert.deepEqual(answer, { refused: '1008 Unauthorized' });
  }));
