// When a session is renewed, and by whom: inputs in, effects out, as in link.ts. All tabs of a
// browser share one session (in localStorage); a lock that they share, too, makes sure that a
// refresh token is used once. Whoever gets the lock looks first whether another tab was faster.

import type { Effect } from './drive.js';
import type { User } from './types.js';

/** Who is signed in, as it is stored. Times are of this browser's clock. */
export interface Session {
  token: string;
  refreshToken?: string;
  user: User;
  /** When the token was asked for, in milliseconds. */
  from: number;
  /** When it ends, in milliseconds. */
  until: number;
}

/** What is to be done. */
export type Effects = {
  /** Wait for the lock, then hand in `locked` with the session that is stored. */
  lock: [];
  fetch: [session: Session];
  store: [session: Session | null];
  unlock: [];
  /** The session is another one; `anew`: somebody has signed in, or out. */
  tell: [session: Session | null, anew: boolean];
  /** Those who asked for a refresh are told whether there is a newer token. */
  settle: [renewed: boolean];
};

/** A token is renewed so long before its end, but not before half of its life is over. */
export const MARGIN = 5 * 60_000;
/** Between attempts; full jitter below. */
export const RETRY_FIRST = 1_000;
export const RETRY_MAX = 60_000;

export class Renewal {
  session: Session | null = null;
  /** To be carried out in this order, each taken out before. */
  readonly effects: Effect<Effects>[] = [];

  /** The token that is to be replaced, while that is under way. */
  private _replacing?: string;
  private _failures = 0;
  private _retryAt = 0;

  constructor(private _random: () => number) {}

  /** When `tick` is to be called. */
  get deadline(): number {
    if (!this.session || this._replacing) return Infinity;
    const { from, until } = this.session;
    return Math.max(until - Math.min(MARGIN, (until - from) / 2), this._retryAt);
  }

  /** What is stored, at the start and whenever another tab has changed it. */
  stored(session: Session | null): void {
    this._adopt(session, false);
  }

  signedIn(session: Session | null): void {
    this.effects.push(['store', session]);
    this._adopt(session, true);
  }

  /** The page is back, or the network: what waits for its time does not have to. */
  wake(now: number): void {
    this._retryAt = 0;
    this.tick(now);
  }

  tick(now: number): void {
    if (now >= this.deadline) this.refresh();
  }

  /** Asks for another token than this one; `settle` will follow. */
  refresh(token?: string): void {
    if (!this.session) this.effects.push(['settle', false]);
    else if (token && token !== this.session.token) this.effects.push(['settle', true]);
    else if (!this._replacing) {
      this._replacing = this.session.token;
      this.effects.push(['lock']);
    }
  }

  locked(stored: Session | null): void {
    if (!stored || stored.token !== this._replacing) {
      this._adopt(stored, false);
      this._done(!!stored);
    } else this.effects.push(['fetch', stored]);
  }

  /** `stored`: what is stored by now; who has signed out meanwhile stays so. */
  renewed(session: Session, stored: Session | null): void {
    const current = stored?.token === this._replacing;
    if (current) {
      this._failures = 0;
      this.effects.push(['store', session]);
      this._adopt(session, false);
    } else this._adopt(stored, false);
    this._done(current || !!stored);
  }

  /** `final`: the server says that this session cannot be renewed any more. */
  failed(now: number, final: boolean, stored: Session | null): void {
    if (stored?.token !== this._replacing) this._adopt(stored, false);
    else if (final) this.signedIn(null);
    this._retryAt = now + this._random() * Math.min(RETRY_MAX, RETRY_FIRST * 2 ** this._failures++);
    this._done(false);
  }

  private _adopt(session: Session | null, anew: boolean): void {
    const before = this.session;
    this.session = session;
    if (before?.token === session?.token) return;
    this._retryAt = this._failures = 0;
    const other = !before || !session || before.user.id !== session.user.id;
    this.effects.push(['tell', session, anew || other]);
  }

  private _done(renewed: boolean): void {
    this._replacing = undefined;
    this.effects.push(['unlock'], ['settle', renewed]);
  }
}
