// The connection's state machine, one situation each.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ASLEEP, BACKOFF_FIRST, BACKOFF_MAX, Link, QUEUE_MAX, SILENCE_MAX, type Effects } from '../src/link.js';

const GREETING = { type: 'connected', data: { userId: 'u1' } };

/** A link that is connected at 1,000. */
function open(random = () => 0.5): Link {
  const link = new Link(random);
  link.connect(1_000);
  link.frame(GREETING, 1_000);
  assert.equal(link.phase, 'open');
  link.effects.length = 0;
  return link;
}

const drain = (link: Link) => link.effects.splice(0);
const sent = (link: Link) => drain(link).flatMap((effect) => (effect[0] === 'send' ? [effect[1]] : []));
/** What comes with the effects of this kind. */
const only = <K extends keyof Effects>(link: Link, kind: K) =>
  drain(link).flatMap(([one, ...details]) => (one === kind ? [details as unknown as Effects[K]] : []));
const failures = (link: Link) => only(link, 'settle').map(([command, , error]) => [command, error!.code]);
const event = (offset: number, epoch = 'e') => ({ type: 'tick', _meta: { channel: 'post_1', epoch, offset } });

/** With post_1 subscribed at offset 5. */
function subscribed(): Link {
  const link = open();
  link.want('post_1', 1, 1_000);
  const [frame] = sent(link);
  assert.deepEqual(frame, { type: 'subscribe', channel: 'post_1', id: frame!.id });
  link.frame({ type: 'subscribed', id: frame!.id, data: { channelKey: 'post_1', epoch: 'e', offset: 5 } }, 1_000);
  assert.equal(only(link, 'settle').length, 1);
  return link;
}

const delivered = (link: Link) => only(link, 'deliver').flatMap(([frame]) => frame._meta?.offset ?? []);

test('an event that was there before, or is of nobody, is not delivered', () => {
  const link = subscribed();
  for (const offset of [5, 6, 6, 4, 7]) link.frame(event(offset), 1_000);
  link.frame({ type: 'tick', _meta: { channel: 'post_2', epoch: 'e', offset: 1 } }, 1_000);
  assert.deepEqual(delivered(link), [6, 7]);
});

test('behind a hole nothing is delivered until it is filled', () => {
  const link = subscribed();
  link.frame(event(8), 1_000);
  const [again] = sent(link);
  assert.deepEqual(again!.recover, { epoch: 'e', offset: 5 });
  link.frame(event(9), 1_000);
  link.frame({ type: 'subscribed', id: again!.id, data: { channelKey: 'post_1', epoch: 'e', offset: 9, recovered: true } }, 1_000);
  for (const offset of [6, 7, 8, 9, 10]) link.frame(event(offset), 1_000);
  assert.deepEqual(delivered(link), [6, 7, 8, 9, 10]);
});

test('what cannot be recovered is told, and goes on from where the channel stands', () => {
  const link = subscribed();
  link.closed(1006, '', 2_000);
  link.tick(99_000);
  link.frame(GREETING, 99_000);
  const [again] = sent(link);
  assert.deepEqual(again!.recover, { epoch: 'e', offset: 5 });
  link.frame({ type: 'subscribed', id: again!.id, data: { channelKey: 'post_1', epoch: 'f', offset: 2, recovered: false, reason: 'epoch_changed' } }, 99_000);
  const [report] = only(link, 'report');
  assert.deepEqual(report![1], { channel: 'post_1', recovered: false, reason: 'epoch_changed' });
  link.frame(event(2, 'f'), 99_000);
  link.frame(event(3, 'f'), 99_000);
  assert.deepEqual(delivered(link), [3]);
});

test('waits grow, are full of jitter and bounded', () => {
  for (const random of [() => 0, () => 0.5, () => 0.999]) {
    const link = new Link(random);
    link.connect(0);
    let now = 0;
    for (let n = 0; n < 12; n++) {
      link.closed(1006, '', now);
      const wait = link.deadline - now;
      assert.equal(wait, random() * Math.min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** n));
      now = link.deadline;
      link.tick(now);
      assert.equal(link.phase, 'opening');
    }
  }
});

test('the server says when to come back, and nothing brings it forward', () => {
  const link = open();
  link.frame({ type: 'disconnect', data: { code: 4100, reason: 'shutting down', reconnect: true, retryAfterMs: 7_000 } }, 2_000);
  link.closed(4100, 'shutting down', 2_000);
  assert.equal(link.deadline, 9_000);
  link.wake(3_000);
  link.token('newer', 4_000, false);
  link.tick(8_999);
  assert.equal(link.phase, 'waiting');
  link.tick(9_000);
  assert.equal(link.phase, 'opening');
});

test('stay-away codes are obeyed until somebody asks again', () => {
  for (const code of [4300, 4301, 4302, 4303]) {
    const link = open();
    link.closed(code, 'go', 2_000);
    assert.equal(link.phase, 'stopped');
    assert.equal(link.deadline, Infinity);
    assert.equal(only(link, 'forget').length, code === 4300 ? 1 : 0);
    link.wake(10_000);
    link.tick(1e9);
    link.token('renewed', 20_000, false);
    assert.equal(link.phase, 'stopped');
    link.connect(30_000);
    assert.equal(link.phase, 'opening');
  }
});

test('a refused token is renewed twice, the second time after a wait, then it is over', () => {
  const link = new Link(() => 0.5);
  link.connect(0);
  assert.deepEqual(only(link, 'open'), [[false]]);
  const refuse = (now: number) => {
    link.frame({ type: 'disconnect', data: { code: 1008, reason: 'Unauthorized', reconnect: false, retryAfterMs: 0 } }, now);
    link.closed(1008, 'Unauthorized', now);
  };
  refuse(10);
  assert.deepEqual(only(link, 'open'), [[true]]);
  refuse(20);
  assert.equal(link.phase, 'waiting');
  assert.equal(link.deadline, 20 + BACKOFF_FIRST / 2);
  link.tick(link.deadline);
  assert.deepEqual(only(link, 'open'), [[true]]);
  refuse(400);
  assert.equal(link.phase, 'stopped');
});

test('a token that has expired is no refused one', () => {
  const link = open();
  link.frame({ type: 'disconnect', data: { code: 4101, reason: 'token expired', reconnect: true, retryAfterMs: 0 } }, 2_000);
  link.closed(4101, 'token expired', 2_000);
  link.tick(link.deadline);
  assert.deepEqual(only(link, 'open'), [[true]]);
  link.closed(1008, 'Unauthorized', 2_100);
  assert.deepEqual(only(link, 'open'), [[true]]);
  link.frame(GREETING, 2_200);
  assert.equal(link.phase, 'open');
});

test('a goodbye is for one connection, in the tabs that only follow, too', () => {
  const link = open();
  link.leads = false;
  link.frame({ type: 'disconnect', data: { code: 1008, reason: 'Unauthorized', reconnect: false, retryAfterMs: 0 } }, 2_000);
  link.closed(1008, 'Unauthorized', 2_000);
  assert.equal(link.phase, 'waiting');
  // It waits, and the tab that leads is refused once more; then it has a newer token.
  link.frame({ type: 'disconnect', data: { code: 1008, reason: 'Unauthorized', reconnect: false, retryAfterMs: 0 } }, 2_050);
  link.closed(1008, 'Unauthorized', 2_050);
  link.frame(GREETING, 2_100);
  link.closed(1006, '', 3_000);
  assert.equal(link.phase, 'waiting');
});

test('a newer token goes in band', () => {
  const link = open();
  link.token('newer', 2_000, false);
  assert.deepEqual(sent(link), [{ type: 'refresh', token: 'newer', id: 1 }]);
  link.frame({ type: 'refreshed', id: 1, data: {} }, 2_010);
  assert.equal(link.phase, 'open');
});

test('silence is tried with a ping, and no answer is the end', () => {
  const link = open();
  link.tick(1_000 + SILENCE_MAX);
  assert.equal(sent(link)[0]!.type, 'ping');
  link.tick(link.deadline);
  assert.equal(link.phase, 'opening', 'at once: nobody said to wait');
});

test('a page that slept connects anew, one that only looked away asks', () => {
  const link = open();
  link.wake(5_000);
  assert.equal(sent(link)[0]!.type, 'ping');
  link.frame({ type: 'pong', id: 1 }, 5_010);
  link.wake(5_010 + ASLEEP + 1);
  assert.equal(link.phase, 'opening');
});

test('the queue is bounded, and what changes nothing is asked again', () => {
  const link = open();
  link.command(1, { type: 'publish' }, false, 1_000);
  link.command(2, { type: 'history' }, true, 1_000);
  link.closed(1006, '', 1_100);
  assert.deepEqual(failures(link), [[1, 'connection_lost']]);
  for (let n = 0; n < QUEUE_MAX + 5; n++) link.command(10 + n, { type: 'publish' }, false, 1_200);
  assert.deepEqual(failures(link).map(([, code]) => code), Array(6).fill('queue_full'));
  link.tick(99_000);
  link.frame(GREETING, 99_000);
  const frames = sent(link);
  assert.equal(frames.length, QUEUE_MAX);
  assert.equal(frames[0]!.type, 'history');
});

test('no reply in time fails a command and repeats a subscription', () => {
  const link = open();
  link.want('post_1', 1, 1_000);
  link.command(2, { type: 'presence' }, true, 1_000);
  drain(link);
  link.tick(11_000);
  assert.deepEqual(failures(link), [[2, 'timeout']]);
  link.frame({ type: 'pong' }, 11_500);
  link.tick(13_000);
  assert.equal(sent(link).filter(({ type }) => type === 'subscribe').length, 1);
});

test('a refused channel is told and forgotten; one that was held is tried again', () => {
  const link = open();
  link.want('feed_x', 1, 1_000);
  const [frame] = sent(link);
  const refusal = { type: 'error', data: { code: 'access_denied', message: 'Access denied to channel' } };
  link.frame({ ...refusal, id: frame!.id }, 1_000);
  assert.deepEqual(failures(link), [[1, 'access_denied']]);
  assert.equal(link.deadline, 1_000 + SILENCE_MAX);

  const holding = subscribed();
  holding.closed(1006, '', 2_000);
  holding.tick(99_000);
  holding.frame(GREETING, 99_000);
  const [again] = sent(holding);
  holding.frame({ ...refusal, id: again!.id }, 99_000);
  assert.equal(only(holding, 'report')[0]![0], 'denied');
  holding.tick(holding.deadline);
  assert.equal(sent(holding)[0]!.type, 'subscribe');
});

test("one's own channels go by two names, and are heard once", () => {
  const link = open();
  link.want('notifications', 1, 1_000);
  link.want('notifications_u1', 2, 1_000);
  const frames = sent(link);
  assert.equal(frames.length, 1);
  link.frame({ type: 'subscribed', id: frames[0]!.id, data: { channelKey: 'notifications_u1', epoch: 'e', offset: 0 } }, 1_000);
  drain(link);
  link.frame({ type: 'notification', _meta: { channel: 'notifications_u1', epoch: 'e', offset: 1 } }, 1_000);
  const [one, ...more] = only(link, 'deliver');
  assert.deepEqual(one![1].sort(), ['notifications', 'notifications_u1']);
  assert.equal(more.length, 0);
  link.unwant('notifications', 1_000);
  assert.equal(sent(link).length, 0);
  link.unwant('notifications_u1', 1_000);
  assert.equal(sent(link)[0]!.type, 'unsubscribe');
});

test('another user begins anew', () => {
  const link = open();
  link.want('feed', 1, 1_000);
  const [frame] = sent(link);
  link.frame({ type: 'subscribed', id: frame!.id, data: { channelKey: 'feed_u1', epoch: 'e', offset: 9 } }, 1_000);
  link.signedOut();
  link.token('other', 2_000, true);
  assert.equal(link.phase, 'opening');
  drain(link);
  link.frame({ type: 'connected', data: { userId: 'u2' } }, 2_010);
  assert.deepEqual(sent(link).map(({ channel, recover }) => [channel, recover]), [['feed_u2', undefined]]);
});
