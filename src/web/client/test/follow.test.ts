// What a stream of server-sent events is of, and what its messages are for those who listen.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Follow, Lines } from '../src/follow.js';

const at = (offset: number, epoch = 'e') => ({ epoch, offset });
const subscribed = (channelKey: string, data: object) => ({ type: 'subscribed', data: { channel: channelKey, channelKey, ...data } });
const event = (channel: string, offset: number) => ({ type: 'tick', _meta: { channel, ...at(offset) } });
const ids = (frames: { id?: unknown }[]) => frames.map(({ id }) => id);

/** Follows `post_1` at 5. */
function following(): Follow {
  const follow = new Follow();
  assert.deepEqual(follow.ask({ type: 'subscribe', id: 1, channel: 'post_1' }), []);
  assert.ok(follow.isStale);
  follow.isStale = false;
  assert.deepEqual(ids(follow.heard(subscribed('post_1', at(5)))), [1]);
  return follow;
}

test('the next stream begins where this one stands', () => {
  const follow = following();
  follow.ask({ type: 'subscribe', id: 2, channel: 'post_é,@:' });
  follow.ask({ type: 'subscribe', id: 3, channel: 'live_1' });
  follow.heard(event('post_1', 6));
  follow.heard(subscribed('post_é,@:', at(9, 'f')));
  follow.heard(subscribed('live_1', {}));
  assert.equal(follow.query, 'channel=post_1&channel=post_%C3%A9%2C%40%3A&channel=live_1');
  assert.equal(follow.lastEventId, 'post_1@e:6,post_%C3%A9%2C%40%3A@f:9');
  follow.ask({ type: 'unsubscribe', id: 4, channel: 'post_1' });
  assert.deepEqual(follow.heard(event('post_1', 7)), [], 'nobody wants it any more');
  assert.equal(follow.lastEventId, 'post_%C3%A9%2C%40%3A@f:9');
});

test('who asks again for what comes anyway has an answer, and no other stream is needed', () => {
  const follow = following();
  const replies = [
    ...follow.ask({ type: 'subscribe', id: 2, channel: 'post_1' }),
    ...follow.ask({ type: 'subscribe', id: 3, channel: 'post_1', recover: at(5) }),
    ...follow.ask({ type: 'subscribe', id: 4, channel: 'post_1', recover: at(7) }),
  ];
  const data = { channel: 'post_1', channelKey: 'post_1', ...at(5) };
  const recovered = { ...data, recovered: true };
  assert.deepEqual(replies, [[2, data], [3, recovered], [4, recovered]].map(([id, data]) => ({ type: 'subscribed', id, data })));
  assert.ok(!follow.isStale);
});

test('who stands further back has the stream begin there, and each is told what it asked', () => {
  const follow = following();
  follow.ask({ type: 'subscribe', id: 2, channel: 'post_1', recover: at(3) });
  follow.ask({ type: 'subscribe', id: 3, channel: 'post_1' });
  assert.ok(follow.isStale);
  assert.equal(follow.lastEventId, 'post_1@e:3');
  const replies = follow.heard(subscribed('post_1', { ...at(5), recovered: true }));
  assert.deepEqual(replies.map(({ id, data }) => [id, data.recovered]), [[2, true], [3, undefined]]);
  assert.equal(follow.lastEventId, 'post_1@e:3', 'what was missed is still to come');
  follow.heard(event('post_1', 4));
  assert.equal(follow.lastEventId, 'post_1@e:4');
});

test('what is too far for one may be there for another', () => {
  const follow = new Follow();
  follow.ask({ type: 'subscribe', id: 1, channel: 'post_1', recover: at(80) });
  follow.ask({ type: 'subscribe', id: 2, channel: 'post_1', recover: at(3) });
  follow.isStale = false;
  const told = follow.heard(subscribed('post_1', { ...at(90), recovered: false, reason: 'too_far' }));
  assert.deepEqual(ids(told), [2]);
  assert.ok(follow.isStale);
  assert.equal(follow.lastEventId, 'post_1@e:80');
  assert.deepEqual(ids(follow.heard(subscribed('post_1', { ...at(90), recovered: true }))), [1]);
});

test('a stream that goes on says nothing of that, unless something is missing', () => {
  const follow = following();
  assert.deepEqual(follow.heard({ type: 'connected', data: {} }), []);
  assert.deepEqual(follow.heard(subscribed('post_1', { ...at(6), recovered: true })), []);
  assert.deepEqual(follow.heard({ type: 'unread_notifications', data: {} }), []);
  const [told] = follow.heard(subscribed('post_1', { ...at(1, 'f'), recovered: false, reason: 'epoch_changed' }));
  assert.deepEqual(told, { type: 'subscribed', data: { channel: 'post_1', channelKey: 'post_1', ...at(1, 'f') } });
  // Who hears that asks from where it stood itself.
  follow.ask({ type: 'subscribe', id: 7, channel: 'post_1', recover: at(5) });
  assert.ok(follow.isStale);
  assert.equal(follow.lastEventId, 'post_1@e:5');
});

test('refusals are for who asked; who was in before is out', () => {
  const follow = following();
  follow.ask({ type: 'subscribe', id: 2, channel: 'secret_1' });
  const refusal = (channel: string) => ({ type: 'error', data: { message: 'Access denied to channel', channel, code: 'access_denied' } });
  assert.deepEqual(follow.heard(refusal('secret_1')), [{ ...refusal('secret_1'), id: 2 }]);
  assert.deepEqual(follow.heard(refusal('post_1')).map(({ type, data }) => [type, data.channelKey]), [['unsubscribed', 'post_1']]);
  assert.ok(follow.isEmpty);
  follow.ask({ type: 'subscribe', id: 3, channel: 'post_2' });
  assert.deepEqual(follow.refuse('limit_reached').map(({ id, data }) => [id, data.code]), [[3, 'limit_reached']]);
});

test('what needs a socket fails with a code that says so', () => {
  for (const type of ['publish', 'presence', 'history', 'anything']) {
    const [reply] = new Follow().ask({ type, id: 1, channel: 'post_1' });
    assert.deepEqual([reply!.type, reply!.id, reply!.data.code], ['error', 1, 'needs_websocket']);
  }
});

test('a message is one however it is cut', () => {
  const text = 'retry: 1500\n\n:\n\nid: post_1@e:1\nevent: message\ndata: {"type":"a",\ndata: "n":1}\n\nevent: message\ndata: nonsense\n\ndata: {"type":"b"}\n\ndata: {"type":"c"}\n';
  for (let cut = 0; cut <= text.length; cut++) {
    const lines = new Lines();
    const messages = [...lines.feed(text.slice(0, cut)), ...lines.feed(text.slice(cut))];
    assert.deepEqual(messages, [{ type: 'a', n: 1 }, { type: 'b' }]);
  }
});

test('of too many channels those fit that were asked for first', () => {
  const follow = new Follow();
  for (let n = 0; n < 120; n++) follow.ask({ type: 'subscribe', id: n, channel: `post_${n}` });
  const refused: unknown[] = [];
  while (follow.query.split('&').length > 90) refused.push(...follow.refuse('limit_reached').map(({ id }) => id));
  assert.ok(follow.query.startsWith('channel=post_0&channel=post_1&'));
  assert.ok(refused.length < 60, `${refused.length}`);
  assert.deepEqual([...refused].sort(), [...Array(120).keys()].slice(120 - refused.length).sort());
});
