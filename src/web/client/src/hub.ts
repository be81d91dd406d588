// What the tab that holds the socket does for the others: their commands go out under numbers of
// its own, replies go back to whom they are for, everything else goes to all. Every tab keeps its
// own subscriptions and positions (link.ts); here it is only known which tabs hold a channel, so
// that one tab's leaving takes nothing from another. Pure, like link.ts.

import type { Frame } from './types.js';

/**
 * Commands at once, and then a second: the server's own limit is 250 and 50 unless configured. Where it
 * is lower, fewer than the 100 refusals in a row after which it gives a client up.
 */
export const BURST = 60;
export const RATE = 40;

/** A frame for one tab, for all of them, or for all but one. */
export interface Out {
  to?: string;
  except?: string;
  frame: Frame;
}

export class Hub {
  /** What a tab that comes later is greeted with; undefined while there is no connection. */
  greeting?: Frame;
  /** For the server, to be sent now. */
  send: Frame[] = [];
  /** For the tabs. */
  out: Out[] = [];
  /** When `tick` is to be called. */
  deadline = Infinity;

  private _last = 0;
  private _asked = new Map<number, { tab: string; id: any; key?: string | false }>();
  private _holders = new Map<string, Set<string>>();
  private _waiting: Frame[] = [];
  private _budget = BURST;
  private _countedAt = 0;

  fromTab(tab: string, frame: Frame, now: number): void {
    const { type, id, channel } = frame;
    const holders = this._holders.get(channel);
    if (type === 'subscribe') this._holders.set(channel, (holders ?? new Set()).add(tab));
    if (type === 'unsubscribe' && holders) {
      holders.delete(tab);
      if (holders.size) {
        this.out.push({ to: tab, frame: { type: 'unsubscribed', id, data: { channel, channelKey: channel } } });
        return;
      }
      this._holders.delete(channel);
    }
    const number = ++this._last;
    this._asked.set(number, { tab, id, key: type === 'subscribe' && channel });
    this._waiting.push({ ...frame, id: number });
    this.tick(now);
  }

  fromServer(frame: Frame, now: number): void {
    const { type, id, data } = frame;
    // What was published may have any members, and means nothing here.
    if (frame._meta) return void this.out.push({ frame });
    if (type === 'connected') {
      this.lost();
      this.greeting = frame;
      this._budget = BURST;
      this._countedAt = now;
    }
    if (id === undefined) {
      if (type === 'unsubscribed') this._holders.delete(data.channelKey);
      this.out.push({ frame });
      return;
    }
    const asked = this._asked.get(id as number);
    this._asked.delete(id as number);
    // Nobody waits for it.
    if (!asked) return;
    const { tab, key } = asked;
    if (type === 'error') {
      // Slower than that, then.
      if (data.code === 'rate_limited') this._budget = Math.min(this._budget, -RATE);
      if (key) this._holders.get(key)?.delete(tab);
    }
    this.out.push({ to: tab, frame: { ...frame, id: asked.id } });
    if (type === 'subscribed') {
      // The server passes over nothing on its way, but another tab's position may have been older.
      const { id: _, ...rest } = frame;
      this.out.push({ except: tab, frame: rest });
    }
  }

  /** A tab is no more. */
  gone(tab: string, now: number): void {
    for (const [key, holders] of this._holders) {
      if (holders.delete(tab) && !holders.size) {
        this._holders.delete(key);
        if (this.greeting) this._waiting.push({ type: 'unsubscribe', channel: key, id: ++this._last });
      }
    }
    this.tick(now);
  }

  /** The connection has ended. */
  lost(): void {
    this.greeting = undefined;
    this._asked.clear();
    this._holders.clear();
    this._waiting = [];
    this.deadline = Infinity;
  }

  tick(now: number): void {
    this._budget = Math.min(BURST, this._budget + (Math.max(0, now - this._countedAt) * RATE) / 1_000);
    this._countedAt = now;
    while (this._waiting.length && this._budget >= 1) {
      this._budget--;
      this.send.push(this._waiting.shift()!);
    }
    this.deadline = this._waiting.length ? now + Math.ceil(((1 - this._budget) * 1_000) / RATE) : Infinity;
  }
}
