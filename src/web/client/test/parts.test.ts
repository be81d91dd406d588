// The smaller pure parts: who renews, who holds a channel, what is in the inbox.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BURST, Hub, RATE } from '../src/hub.js';
import { EMPTY, heard, merge } from '../src/inbox.js';
import { MARGIN, Renewal, type Session } from '../src/renewal.js';
import { Notifications } from '../src/notifications.js';
import { keyOf, type Frame } from '../src/types.js';

const session = (token: string, from: number, life: number): Session => ({ token, refreshToken: `r-${token}`, user: { id: 'u1' }, from, until: from + life });
const names = (renewal: Renewal) => renewal.effects.splice(0).map(([kind]) => kind);

test('a token is renewed five minutes before its end, a short one at half of its life', () => {
  const renewal = new Renewal(Math.random);
  renewal.stored(session('a', 0, 30 * 60_000));
  assert.equal(renewal.deadline, 30 * 60_000 - MARGIN);
  renewal.stored(session('b', 0, 8_000));
  assert.equal(renewal.deadline, 4_000);
});

test('one refresh at a time, and none when another tab was faster', () => {
  const renewal = new Renewal(Math.random);
  const a = session('a', 0, 10_000);
  renewal.stored(a);
  names(renewal);
  renewal.tick(5_000);
  renewal.refresh();
  renewal.wake(6_000);
  assert.deepEqual(names(renewal), ['lock']);
  renewal.locked(session('b', 5_000, 10_000));
  assert.deepEqual(names(renewal), ['tell', 'unlock', 'settle']);
  assert.equal(renewal.session!.token, 'b');
});

test('an answer that comes after signing out signs nobody in', () => {
  const renewal = new Renewal(Math.random);
  renewal.stored(session('a', 0, 10_000));
  renewal.refresh();
  renewal.locked(renewal.session);
  renewal.signedIn(null);
  names(renewal);
  renewal.renewed(session('b', 5_000, 10_000), null);
  assert.equal(renewal.session, null);
  assert.deepEqual(names(renewal), ['unlock', 'settle']);
});

test('a refusal signs out, a failure waits and tries again', () => {
  const renewal = new Renewal(() => 0.5);
  const a = session('a', 0, 10_000);
  renewal.stored(a);
  renewal.refresh();
  renewal.locked(a);
  renewal.failed(6_000, false, a);
  assert.equal(renewal.session, a);
  assert.equal(renewal.deadline, 6_500);
  renewal.wake(6_100);
  renewal.locked(a);
  names(renewal);
  renewal.failed(6_200, true, a);
  assert.deepEqual(names(renewal), ['store', 'tell', 'unlock', 'settle']);
  assert.equal(renewal.session, null);
});

test('a channel is left when the last tab leaves it, or dies', () => {
  const hub = new Hub();
  hub.fromServer({ type: 'connected', data: {} }, 0);
  const ask = (tab: string, type: string) => hub.fromTab(tab, { type, channel: 'post_1', id: 1 }, 0);
  ask('a', 'subscribe');
  ask('b', 'subscribe');
  ask('a', 'unsubscribe');
  assert.deepEqual(hub.send.splice(0).map(({ type }) => type), ['subscribe', 'subscribe']);
  assert.deepEqual(hub.out.pop(), { to: 'a', frame: { type: 'unsubscribed', id: 1, data: { channel: 'post_1', channelKey: 'post_1' } } });
  hub.gone('b', 0);
  assert.deepEqual(hub.send.map(({ type }) => type), ['unsubscribe']);
});

test('replies go to whom they are for, under the number that was asked', () => {
  const hub = new Hub();
  hub.fromServer({ type: 'connected', data: {} }, 0);
  hub.fromTab('a', { type: 'ping', id: 7 }, 0);
  hub.fromTab('b', { type: 'ping', id: 7 }, 0);
  hub.out.length = 0;
  const [, second] = hub.send;
  hub.fromServer({ type: 'pong', id: second!.id }, 0);
  assert.deepEqual(hub.out, [{ to: 'b', frame: { type: 'pong', id: 7 } }]);
});

test('many tabs together keep to the limits of one connection', () => {
  const hub = new Hub();
  hub.fromServer({ type: 'connected', data: {} }, 0);
  for (let n = 0; n < BURST + 10 * RATE; n++) hub.fromTab('a', { type: 'ping', id: n }, 0);
  assert.equal(hub.send.splice(0).length, BURST);
  let now = 0;
  let later = 0;
  while (hub.deadline < Infinity) {
    now = hub.deadline;
    hub.tick(now);
    later += hub.send.splice(0).length;
  }
  assert.equal(later, 10 * RATE);
  assert.ok(now >= 9_900 && now < 10_100, `${now}`);
});

test('a clock that is set back stops no command', () => {
  const hub = new Hub();
  hub.fromServer({ type: 'connected', data: {} }, 3_600_000);
  hub.fromTab('a', { type: 'ping', id: 1 }, 0);
  assert.equal(hub.send.length, 1);
});

test('the inbox follows what is heard', () => {
  const one = (id: string, isRead = false) => ({ id, userId: 'u', type: 't', title: id, message: '', isRead, metadata: null, createdAt: '' });
  let state = heard(EMPTY, { type: 'unread_notifications', data: { notifications: [one('2'), one('1')], count: 2 } })!;
  state = heard(state, { type: 'notification', notification: one('3'), unreadCount: 3 })!;
  state = heard(state, { type: 'notification', notification: one('3'), unreadCount: 3 })!;
  assert.deepEqual(state.notifications.map(({ id }) => id), ['3', '2', '1']);
  state = heard(state, { type: 'notification_read', notificationId: '2', unreadCount: 2 })!;
  assert.deepEqual(state.notifications.map(({ isRead }) => isRead), [false, true, false]);
  state = heard(state, { type: 'notification_read', notificationId: '2', isRead: false, unreadCount: 3 })!;
  state = heard(state, { type: 'notification_read', notificationId: null, unreadCount: 0 })!;
  assert.ok(state.notifications.every(({ isRead }) => isRead) && state.unreadCount === 0);
  assert.equal(heard(state, { type: 'notifications_cleared', count: 1, unreadCount: 0 }), null);
  assert.deepEqual(merge([one('1')], [one('1', true), one('0')]).map(({ id, isRead }) => [id, isRead]), [['1', true], ['0', false]]);
});

test('an answer that comes after an event changes nothing that the event has said', async () => {
  const answers: ((body: unknown, status?: number) => void)[] = [];
  const before = globalThis.fetch;
  const tokens: string[] = [];
  globalThis.fetch = ((_: string, { headers }: { headers: Record<string, string> }) => {
    tokens.push(headers.Authorization!);
    return new Promise((resolve) => answers.push((body, status = 200) => resolve(Response.json(body, { status }))));
  }) as any;
  try {
    let hear: (frame: Frame) => void;
    const subscribe = (_: string, handler: typeof hear) => {
      hear = handler;
      return {};
    };
    const socket = { on: () => () => {}, subscribe };
    let token = 't1';
    const refresh = async (old: string) => old === 't1' && (token = 't2') === 't2';
    const jwt = { onChange: () => () => {}, getToken: async () => token, refresh, baseUrl: 'http://rt.example' };
    const inbox = new Notifications(socket as any, jwt as any);
    inbox.start();
    const one = (id: string, isRead = false) => ({ id, userId: 'u1', type: 'like', title: '', message: '', isRead, metadata: null, createdAt: '' });
    const answer = async (body: unknown, status?: number) => {
      while (!answers.length) await new Promise((resolve) => setImmediate(resolve));
      answers.shift()!(body, status);
    };
    const shows = () => [inbox.state.unreadCount, inbox.state.notifications.map(({ id, isRead }) => `${id}${isRead ? ' read' : ''}`).join()];
    const loaded = inbox.reload();
    await answer({ notifications: [one('2'), one('1')], unreadCount: 2, nextCursor: null });
    await loaded;

    // Nothing was heard: what was asked for is done.
    let done = inbox.markRead('1');
    await answer({ success: true, unreadCount: 1 });
    await done;
    assert.deepEqual(shows(), [1, '2,1 read']);

    // Another one comes in between, and this change is heard of before its answer is there.
    done = inbox.markRead('2');
    await new Promise((resolve) => setImmediate(resolve));
    hear!({ type: 'notification_read', notificationId: '2', isRead: true, unreadCount: 0 });
    hear!({ type: 'notification', notification: one('3'), unreadCount: 1 });
    await answer({ success: true, unreadCount: 0 });
    await done;
    assert.deepEqual(shows(), [1, '3,2 read,1 read']);

    done = inbox.clear();
    await answer({ success: true, clearedCount: 2 });
    await done;
    assert.deepEqual(shows(), [1, '3']);

    // The server takes this token no more, though its time is not over by the clock here: once with another.
    tokens.length = 0;
    done = inbox.markRead('3');
    await answer({ error: 'Token expired', code: 'token_expired' }, 401);
    await answer({ success: true, unreadCount: 0 });
    await done;
    assert.deepEqual(shows(), [0, '3 read']);
    assert.deepEqual(tokens, ['Bearer t1', 'Bearer t2']);
    done = inbox.markAllRead();
    await answer({ error: 'Token revoked', code: 'token_revoked' }, 401);
    await assert.rejects(done, { code: 'token_revoked', status: 401 });
    assert.deepEqual(tokens.slice(2), ['Bearer t2']);
  } finally {
    globalThis.fetch = before;
  }
});

test('channels have keys', () => {
  assert.equal(keyOf({ type: 'post', postId: '42' }), 'post_42');
  assert.equal(keyOf({ type: 'creator', id: 'c' }), 'creator_c');
  assert.equal(keyOf({ type: 'feed', userId: 'u' }), 'feed_u');
  assert.equal(keyOf('notifications'), 'notifications');
});
