// What a stream of server-sent events is of, and how its messages become the replies that a WebSocket
// would have brought. Pure, like link.ts. A stream cannot be told anything: for a channel more, or from
// an earlier place, another one is opened, which begins in each channel where this one stood.

import type { Frame, Position } from './types.js';

interface Followed {
  /** Where the stream stands in it; undefined without history, and before it is known. */
  at?: Position;
  /** Whether the server agreed, and from there on. */
  isIn: boolean;
  /** Who waits for the server's word, and from where. */
  asked: { id: Frame['id']; recover?: Position }[];
}

export class Follow {
  /** Whether another stream is needed before anything else can be heard. */
  isStale = false;
  private _all = new Map<string, Followed>();
  /** Whether what comes behind a `subscribed` was asked for. */
  private _isFresh = false;

  get isEmpty(): boolean {
    return !this._all.size;
  }

  /** The query of the stream's address. */
  get query(): string {
    return [...this._all.keys()].map((key) => `channel=${encodeURIComponent(key)}`).join('&');
  }

  /** For `Last-Event-ID`: where it begins; empty if that is nowhere. */
  get lastEventId(): string {
    const entries = [...this._all].flatMap(([key, { at }]) => (at ? `${encodeURIComponent(key)}@${at.epoch}:${at.offset}` : []));
    return entries.join(',');
  }

  /** A command; the replies that can be given at once. */
  ask({ type, id, channel, recover }: Frame): Frame[] {
    if (type === 'unsubscribe') {
      this._all.delete(channel);
      return [{ type: 'unsubscribed', id, data: { channel, channelKey: channel } }];
    }
    if (type !== 'subscribe') {
      return [{ type: 'error', id, data: { message: 'Only over a WebSocket, which does not get through here', code: 'needs_websocket' } }];
    }
    let one = this._all.get(channel);
    if (one?.isIn && (!recover || passed(one.at, recover))) {
      return [{ type: 'subscribed', id, data: { channel, channelKey: channel, ...one.at, ...(recover && { recovered: true }) } }];
    }
    if (!one || (recover && !passed(one.at, recover))) {
      this._all.set(channel, (one = { at: recover, isIn: false, asked: one?.asked ?? [] }));
      this.isStale = true;
    }
    one.asked.push({ id, recover });
    return [];
  }

  /** The server refused the whole stream: who asked last is told; if there are only too many of them, the last quarter. */
  refuse(code: string, message?: string): Frame[] {
    const asked = [...this._all].filter(([, { isIn }]) => !isIn);
    const told = code === 'limit_reached' ? asked.slice(Math.floor(asked.length * 0.75)) : asked;
    return told.flatMap(([channel]) => this._error({ type: 'error', data: { code, message, channel } }));
  }

  /** A message of the stream; what it is for who listens. */
  heard(message: Frame): Frame[] {
    const { type, data, _meta } = message;
    const key = _meta?.channel ?? data?.channelKey;
    const one = this._all.get(key);
    if (_meta) {
      if (!one) return [];
      if (_meta.offset !== undefined) one.at = { epoch: _meta.epoch!, offset: _meta.offset };
    } else if (type === 'subscribed') return one ? this._subscribed(message, one) : [];
    else if (type === 'unsubscribed') this._all.delete(key);
    else if (type === 'error' && this._all.has(data.channel)) return this._error(message);
    // They were greeted already; and told of what is unread, unless they have subscribed now.
    else if (type === 'connected' || (type === 'unread_notifications' && !this._isFresh)) return [];
    return [message];
  }

  private _subscribed(message: Frame, one: Followed): Frame[] {
    const { recovered, reason, ...data } = message.data;
    const from = one.at;
    one.isIn = true;
    if (!recovered) one.at = data.epoch === undefined ? undefined : { epoch: data.epoch, offset: data.offset };
    const asked = one.asked.splice(0);
    this._isFresh = asked.length > 0;
    // From further on than the stream began: perhaps what those miss is there still.
    const later = recovered === false ? asked.filter(({ recover }) => recover && from && recover.epoch === from.epoch && recover.offset > from.offset) : [];
    if (later.length) {
      one.asked = later;
      one.at = later.map(({ recover }) => recover!).reduce((a, b) => (b.offset < a.offset ? b : a));
      one.isIn = false;
      this.isStale = true;
    }
    const replies = asked
      .filter((one) => !later.includes(one))
      .map(({ id, recover }) => ({ type: 'subscribed', id, data: recover ? message.data : data }));
    // Nobody asked, and something is missing: let them ask.
    return asked.length || recovered !== false ? replies : [{ type: 'subscribed', data }];
  }

  private _error(message: Frame): Frame[] {
    const { channel } = message.data;
    const { asked } = this._all.get(channel)!;
    this._all.delete(channel);
    if (asked.length) return asked.map(({ id }) => ({ ...message, id }));
    return [{ type: 'unsubscribed', data: { channel, channelKey: channel } }];
  }
}

/** Whether a stream that stands there brings all that comes behind `recover`. */
function passed(at: Position | undefined, recover: Position): boolean {
  return at?.epoch === recover.epoch && at.offset <= recover.offset;
}

/** The messages in the lines of `text/event-stream`, however they are cut. */
export class Lines {
  private _rest = '';
  private _data: string[] = [];

  feed(text: string): Frame[] {
    const lines = (this._rest + text).split('\n');
    this._rest = lines.pop()!;
    const messages: Frame[] = [];
    for (const line of lines) {
      if (line.startsWith('data: ')) this._data.push(line.slice(6));
      else if (!line && this._data.length) {
        const json = this._data.splice(0).join('\n');
        try {
          messages.push(JSON.parse(json));
        } catch {
          // None of ours.
        }
      }
    }
    return messages;
  }
}
