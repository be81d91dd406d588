// One connection's state machine: inputs in, effects out. It knows no socket, timer, clock or
// storage: whoever drives it (socket.ts, or a test) carries out the effects, hands in the time
// and calls `tick` when `deadline` has come.
//
// What it promises: an event of a channel with history is delivered once and in the order of its
// offsets, however often the connection, the tab that holds it, or the server changed in between;
// a wanted channel is subscribed to again until it is unwanted; a command is settled exactly once.

import type { Effect } from './drive.js';
import type { Frame, Position } from './types.js';

/** What is to be done. */
export type Effects = {
  /** Get a token (a new one if `fresh`) and connect with it. */
  open: [fresh: boolean];
  /** Let go of the connection; no `closed` is to be handed in for it. */
  close: [];
  send: [frame: Frame];
  /** Get a newer token. */
  renew: [];
  /** The server says that the session is over: forget the tokens. */
  forget: [];
  /** An event or message for those who listen; `names` are the wanted channels it came by. */
  deliver: [frame: Frame, names: string[]];
  report: [type: Report, data: any];
  settle: [command: number, frame?: Frame, error?: Problem];
};

/** Why a command failed; without a message, the code says it all. */
export interface Problem {
  code: string;
  message?: string;
}

/** What is told beside what the server sends. */
export type Report = 'status' | 'recovered' | 'denied' | 'closed';

/**
 * `idle`: not asked to connect, or nobody is signed in. `stopped`: the server wants no more of
 * this client, until `connect` is called or somebody signs in anew.
 */
export type Phase = 'idle' | 'waiting' | 'opening' | 'open' | 'stopped';

/** The longest wait between two attempts, and the first one's at most; full jitter below. */
export const BACKOFF_MAX = 30_000;
export const BACKOFF_FIRST = 500;
/** From opening to the greeting, token included. */
export const OPEN_PATIENCE = 15_000;
/** For the reply to a command. */
export const REPLY_PATIENCE = 10_000;
/** Silence after which the connection is tried with a ping; how long that may take. */
export const SILENCE_MAX = 25_000;
export const PONG_PATIENCE = 10_000;
/** The same when the page comes back: somebody looks at it. */
export const WAKE_PATIENCE = 3_000;
/** Silence after which a page that comes back connects anew at once: it was asleep. */
export const ASLEEP = 90_000;
/** Commands that wait while there is no connection. */
export const QUEUE_MAX = 100;
/** Commands whose replies are awaited. */
const ASKED_MAX = 1_000;
/** A connection that lived for so long is not counted as a failure. */
const STEADY = 5_000;
/** Refusals of a token, each newer than the one before, after which it is over. */
const REFUSALS_MAX = 2;
/** Refusals of a channel that do not go away by asking again. */
const FINAL = /^(access_denied|invalid_channel|limit_reached|invalid_format)$/;

interface Member {
  /** As the server names it; undefined while it depends on who the user is. */
  key?: string;
  position?: Position;
  stage: 'out' | 'joining' | 'in';
  /** Whether the server ever agreed. */
  held: boolean;
  /** When it is tried again. */
  retryAt: number;
  tries: number;
  /** Commands that are settled by the next answer. */
  waiting: number[];
}

interface Asked {
  due: number;
  /** A subscription, or ... */
  member?: Member;
  recovering?: boolean;
  /** ... a command, sent again after a lost connection if it changes nothing. */
  command?: number;
  frame?: Frame;
  harmless?: boolean;
}

const BARE = /^(notifications|feed)$/;

export class Link {
  phase: Phase = 'idle';
  /** To be carried out in this order, each taken out before. */
  readonly effects: Effect<Effects>[] = [];
  /** Whether this one is the tab that holds the socket: only it renews in band. */
  leads = true;
  user?: string;

  /** By name, as wanted; a name may stand for the member of another one. */
  private _members = new Map<string, Member>();
  private _asked = new Map<number, Asked>();
  private _queue: { command: number; frame: Frame; harmless: boolean }[] = [];
  private _last = 0;
  private _until = 0;
  private _notBefore = 0;
  private _failures = 0;
  /** How often the token was refused, since one was taken. */
  private _refusals = 0;
  /** Whether a newer token is needed. */
  private _isStale = false;
  private _openedAt = 0;
  private _heardAt = 0;
  private _pongDue = Infinity;
  private _bye?: { reconnect?: boolean; retryAfterMs?: number };
  /** Between `connect` and `disconnect`. */
  private _on = false;

  /** `random`: from 0 to 1, without 1. */
  constructor(private _random: () => number) {}

  /** When `tick` is to be called. */
  get deadline(): number {
    if (this.phase !== 'open') return this.isTrying ? this._until : Infinity;
    let due = this._pongDue === Infinity ? this._heardAt + SILENCE_MAX : this._pongDue;
    for (const asked of this._asked.values()) due = Math.min(due, asked.due);
    for (const member of this._each()) if (member.stage === 'out') due = Math.min(due, member.retryAt);
    return due;
  }

  /** Whether there is a connection, or hope of one. */
  get isTrying(): boolean {
    return this.phase !== 'idle' && this.phase !== 'stopped';
  }

  connect(now: number): void {
    this._on = true;
    if (!this.isTrying) {
      this._notBefore = this._failures = this._refusals = 0;
      this._isStale = false;
      this._open(now);
    }
  }

  disconnect(): void {
    this._on = false;
    this.signedOut('disconnected');
  }

  /** Whoever was signed in is not any more. */
  signedOut(reason = 'signed out'): void {
    if (this.phase === 'idle') this._refuse(reason);
    else this._end('idle', 1000, reason);
  }

  /** Nobody is signed in: `token` will tell when somebody is. */
  noToken(): void {
    if (this.phase === 'opening') this._phase('idle');
  }

  /** There is a newer token of the same user, or one after `signedOut`; `anew`: somebody has signed in. */
  token(token: string, now: number, anew: boolean): void {
    if (this.phase === 'open') {
      if (this.leads) this._ask({ type: 'refresh', token }, { due: Infinity });
    } else if (this.phase === 'waiting') {
      if (now >= this._notBefore) this._open(now);
    } else if (this._on && (anew || this.phase === 'idle')) this.connect(now);
  }

  want(name: string, command: number, now: number): void {
    let member = this._members.get(name);
    if (!member) {
      member = { stage: 'out', held: false, retryAt: now, tries: 0, waiting: [] };
      this._members.set(name, member);
      if (this.user) this._resolve(name, member);
      member = this._members.get(name)!;
    }
    member.waiting.push(command);
    if (this.phase === 'stopped') this._answer(member, undefined, { code: 'stopped' });
    else if (member.stage === 'in') this._answer(member, { type: 'subscribed', data: { channelKey: member.key, ...member.position } });
    else if (this.phase === 'open' && member.stage === 'out') this._join(member, now);
  }

  unwant(name: string, now: number): void {
    const member = this._members.get(name);
    if (!member) return;
    this._members.delete(name);
    if ([...this._members.values()].includes(member)) return;
    this._answer(member, undefined, { code: 'unsubscribed' });
    if (this.phase === 'open' && member.stage !== 'out') {
      this._ask({ type: 'unsubscribe', channel: member.key }, { due: now + REPLY_PATIENCE });
    }
  }

  /** `harmless`: it may be sent again when the connection was lost before the reply came. */
  command(command: number, frame: Frame, harmless: boolean, now: number): void {
    if (this.phase === 'open' && this._asked.size < ASKED_MAX) this._ask(frame, { due: now + REPLY_PATIENCE, command, frame, harmless });
    else if (this.phase === 'stopped') this._fail(command, 'stopped');
    else if (this._queue.length >= QUEUE_MAX || this._asked.size >= ASKED_MAX) this._fail(command, 'queue_full');
    else this._queue.push({ command, frame, harmless });
  }

  /** The page became visible, was resumed, or the network is back. */
  wake(now: number): void {
    if (this.phase === 'waiting') {
      this._until = Math.max(now, this._notBefore);
      this.tick(now);
    } else if (this.phase === 'open') {
      if (now - this._heardAt > ASLEEP) this._lost(now, true);
      else this._probe(now, WAKE_PATIENCE);
    }
  }

  /** Another tab holds the socket from now on, or this one does: begin anew without delay. */
  moved(now: number, leads: boolean): void {
    this.leads = leads;
    if (this.isTrying) {
      if (this.phase !== 'waiting') this._drop();
      this._open(now);
    }
  }

  tick(now: number): void {
    if (this.phase !== 'open') {
      if (now < this.deadline) return;
      if (this.phase === 'waiting') this._open(now);
      else this._lost(now, false);
    } else {
      if (now >= this._pongDue) return this._lost(now, true);
      if (now >= this._heardAt + SILENCE_MAX && this._pongDue === Infinity) this._probe(now, PONG_PATIENCE);
      for (const [id, asked] of this._asked) {
        if (now < asked.due) continue;
        this._asked.delete(id);
        if (asked.member) this._later(asked.member, now);
        else if (asked.command) this._fail(asked.command, 'timeout');
      }
      for (const member of this._each()) {
        if (member.stage === 'out' && now >= member.retryAt) this._join(member, now);
      }
    }
  }

  /** The connection has ended, or could not be made. */
  closed(code: number, reason: string, now: number): void {
    const bye = this._bye;
    this._bye = undefined;
    if (this.phase !== 'open' && this.phase !== 'opening') return;
    const lived = this.phase === 'open' && now - this._openedAt > STEADY;
    if (lived) this._failures = 0;
    this._drop();
    if (code >= 4300 && code < 4400) {
      if (code === 4300) this._do('forget');
      return this._end('stopped', code, reason);
    }
    const wait = bye?.retryAfterMs;
    const isRefusal = code === 1008;
    if (isRefusal || code === 4101) this._isStale = true;
    if (isRefusal) {
      // Perhaps only old: twice, with a new one each. Which is the leader's to try.
      if (this.leads) {
        if (++this._refusals > REFUSALS_MAX) return this._end('stopped', code, reason);
        if (this._refusals < 2) return this._open(now);
      }
    } else if (bye?.reconnect === false) return this._end('stopped', code, reason);
    const delay = (isRefusal ? null : wait) ?? this._random() * Math.min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** this._failures);
    this._notBefore = wait ? now + delay : now;
    this._failures++;
    this._until = now + delay;
    this._do('report', 'closed', { code, reason, reconnectInMs: delay });
    this._phase('waiting');
  }

  frame(frame: Frame, now: number): void {
    this._heardAt = now;
    this._pongDue = Infinity;
    const { type, id, data } = frame;
    // Published, whatever its other members look like.
    if (frame._meta) return this.phase === 'open' ? this._event(frame, now) : undefined;
    if (type === 'connected') return this._greeted(frame, now);
    if (type === 'disconnect') this._bye = data;
    if (this.phase !== 'open') return;
    if (id !== undefined) {
      const asked = this._asked.get(id as number);
      this._asked.delete(id as number);
      if (asked) this._reply(frame, asked, now);
      return;
    }
    if (type === 'token_expiring') this._do('renew');
    else if (type === 'subscribed') {
      // Of another tab: it may have passed over what this one has not seen.
      const member = this._byKey(data.channelKey);
      const at = member?.position;
      if (member?.stage === 'in' && at && (data.epoch !== at.epoch || data.offset > at.offset)) this._join(member, now);
    } else if (type === 'unsubscribed') {
      const member = this._byKey(data.channelKey);
      if (member && member.stage !== 'out') {
        member.stage = 'out';
        this._denied(member, now, 'unsubscribed');
      }
    }
    this._do('deliver', frame, []);
  }

  // ---- within

  private _do<K extends keyof Effects>(...effect: [kind: K, ...details: Effects[K]]): void {
    this.effects.push(effect as any);
  }

  private _phase(phase: Phase): void {
    if (this.phase === phase) return;
    this.phase = phase;
    this._do('report', 'status', phase);
  }

  private _open(now: number): void {
    this._bye = undefined;
    this._until = now + OPEN_PATIENCE;
    this._phase('opening');
    this._do('open', this._isStale);
  }

  private _end(phase: Phase, code: number, reason: string): void {
    this._do('close');
    this._drop();
    const error = { code: 'stopped', message: reason };
    this._refuse(reason);
    for (const member of this._each()) this._answer(member, undefined, error);
    this._do('report', 'closed', { code, reason });
    this._phase(phase);
  }

  /** What waits is not sent. */
  private _refuse(reason: string): void {
    for (const { command } of this._queue.splice(0)) this._fail(command, 'stopped', reason);
  }

  private _lost(now: number, probed: boolean): void {
    this._do('close');
    this.closed(4000, 'no answer', now);
    if (probed && this.phase === 'waiting' && now >= this._notBefore) this._open(now);
  }

  /** What was asked will not be answered any more. */
  private _drop(): void {
    const again = [];
    for (const { command, frame, harmless } of this._asked.values()) {
      if (!command) continue;
      if (harmless) again.push({ command, frame: frame!, harmless });
      else this._fail(command, 'connection_lost');
    }
    this._queue.unshift(...again);
    this._asked.clear();
    for (const member of this._each()) member.stage = 'out';
    this._pongDue = Infinity;
  }

  private _greeted(frame: Frame, now: number): void {
    const { userId } = frame.data;
    if (!this.isTrying) return;
    // Another tab has connected anew for all of them.
    if (this.phase === 'open') this._drop();
    this._refusals = 0;
    this._isStale = false;
    this._openedAt = now;
    const others = this.user !== undefined && this.user !== userId;
    this.user = userId;
    for (const [name, member] of [...this._members]) {
      if (others && BARE.test(name)) member.position = member.key = undefined;
      this._resolve(name, member);
    }
    this._phase('open');
    this._do('deliver', frame, []);
    for (const member of this._each()) this._join(member, now);
    for (const { command, frame, harmless } of this._queue.splice(0)) this.command(command, frame, harmless, now);
  }

  /** Gives a member its key; two names of one channel become one member. */
  private _resolve(name: string, member: Member): void {
    member.key ??= BARE.test(name) ? `${name}_${this.user}` : name;
    const same = this._each().find((other) => other.key === member.key && other !== member);
    if (!same) return;
    same.waiting.push(...member.waiting);
    this._members.set(name, same);
  }

  private _each(): Member[] {
    return [...new Set(this._members.values())];
  }

  private _byKey(key: string): Member | undefined {
    return this._each().find((member) => member.key === key);
  }

  private _ask(frame: Frame, asked: Asked): void {
    const id = ++this._last;
    this._asked.set(id, asked);
    this._do('send', { ...frame, id });
  }

  private _join(member: Member, now: number): void {
    const recover = member.position;
    member.stage = 'joining';
    const frame = { type: 'subscribe', channel: member.key, ...(recover && { recover }) };
    this._ask(frame, { due: now + REPLY_PATIENCE, member, recovering: !!recover });
  }

  private _later(member: Member, now: number): void {
    member.stage = 'out';
    member.retryAt = now + Math.min(BACKOFF_MAX, 1_000 * 2 ** member.tries++) * (0.5 + this._random() / 2);
  }

  private _probe(now: number, patience: number): void {
    this._pongDue = Math.min(this._pongDue, now + patience);
    this._ask({ type: 'ping' }, { due: Infinity });
  }

  private _reply(frame: Frame, asked: Asked, now: number): void {
    const { type, data } = frame;
    const { member, command } = asked;
    if (member) {
      if (type === 'subscribed') this._joined(member, frame, !!asked.recovering);
      else if (type === 'error') this._denied(member, now, data.code, data.message);
    } else if (command) {
      if (type === 'error') this._fail(command, data.code, data.message);
      else this._do('settle', command, frame);
    }
  }

  private _joined(member: Member, frame: Frame, recovering: boolean): void {
    const { epoch, offset, recovered, reason } = frame.data;
    // Asked again meanwhile, or left: the answer to that one counts.
    if (member.stage !== 'joining' || [...this._asked.values()].some((other) => other.member === member)) return;
    member.stage = 'in';
    member.held = true;
    member.tries = 0;
    if (!recovered) member.position = epoch === undefined ? undefined : { epoch, offset };
    this._answer(member, frame);
    this._do('deliver', frame, []);
    if (recovering) {
      const data = { channel: member.key, recovered: !!recovered, ...(reason && { reason }) };
      this._do('report', 'recovered', data);
    }
  }

  private _denied(member: Member, now: number, code: string, message?: string): void {
    const names = this._names(member);
    if (FINAL.test(code) && !member.held) {
      for (const name of names) this._members.delete(name);
      this._answer(member, undefined, { code, message });
    } else this._later(member, now);
    if (FINAL.test(code) || code === 'unsubscribed') {
      this._do('report', 'denied', { channel: member.key, code, message });
    }
  }

  private _event(frame: Frame, now: number): void {
    const { channel, epoch, offset } = frame._meta!;
    const member = this._byKey(channel);
    if (!member) return;
    const at = member.position;
    if (offset !== undefined) {
      if (!at) return;
      if (epoch === at.epoch && offset <= at.offset) return;
      if (epoch !== at.epoch || offset !== at.offset + 1) {
        // A hole. Who is joining gets the rest anyway.
        if (member.stage === 'in') this._join(member, now);
        return;
      }
      at.offset = offset;
    } else if (member.stage !== 'in') return;
    this._do('deliver', frame, this._names(member));
  }

  private _names(member: Member): string[] {
    return [...this._members].filter(([, other]) => other === member).map(([name]) => name);
  }

  private _answer(member: Member, frame?: Frame, error?: Problem): void {
    for (const command of member.waiting.splice(0)) this._do('settle', command, frame, error);
  }

  private _fail(command: number, code: string, message?: string): void {
    this._do('settle', command, undefined, { code, message });
  }
}
