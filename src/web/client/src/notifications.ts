// The user's notifications: a list that keeps itself up to date, in every tab and on every device.

import { request } from './api.js';
import { Listeners } from './drive.js';
import { EMPTY, heard, marked, merge, unread, type InboxState } from './inbox.js';
import { JWTManager } from './jwt.js';
import type { FanfareSocket, Subscription } from './socket.js';
import type { Frame } from './types.js';

/** Notifications of a page, and how many are loaded anew at most. */
const PAGE = 20;
const RELOAD_MAX = 100;

export class Notifications {
  private _state = EMPTY;
  private _listeners = new Listeners<[]>();
  private _ends: (() => void)[] = [];
  private _subscription?: Subscription;
  /** The load that is under way, and whether something was heard meanwhile. */
  private _loading?: Promise<void>;
  private _isStale = false;
  /** How much was heard. */
  private _heard = 0;
  /** Counts users: what was asked for an earlier one is not taken. */
  private _era = 0;

  constructor(
    private _socket: FanfareSocket,
    private _jwt: JWTManager = JWTManager.getInstance(),
  ) {
    // Also while nobody looks: the next user is not shown what was this one's.
    _jwt.onChange((user, anew) => {
      if (!anew) return;
      this._era++;
      this._loading = undefined;
      this._set(EMPTY);
      if (user && this._ends.length) void this.reload();
    });
  }

  /** What is known now. */
  get state(): InboxState {
    return this._state;
  }

  /** Calls back when `state` is another one. */
  onChange(listener: () => void): () => void {
    return this._listeners.listen(listener);
  }

  /** Follows the user's notifications and loads the newest. */
  start(): void {
    if (this._ends.length) return;
    this._ends.push(
      // The server's own answer: in other channels anybody may publish what looks like it.
      this._socket.on('unread_notifications', (frame) => frame._meta || this._hear(frame)),
      this._socket.on('connected', () => this._state.error && void this.reload()),
      this._socket.on('$recovered', ({ data }) => {
        if (!data.recovered && data.channel.startsWith('notifications_')) void this.reload();
      }),
    );
    this._subscription = this._socket.subscribe('notifications', (frame) => this._hear(frame));
    if (this._jwt.user) void this.reload();
  }

  stop(): void {
    for (const end of this._ends.splice(0)) end();
    this._subscription?.unsubscribe();
  }

  /** Loads what is shown anew. */
  reload(): Promise<void> {
    this._isStale = true;
    return (this._loading ??= this._load().finally(() => (this._loading = undefined)));
  }

  /** Loads older ones. */
  async more(): Promise<void> {
    const cursor = this._state.nextCursor;
    if (!cursor) return;
    const page = await this._ask('GET', `?limit=${PAGE}&cursor=${encodeURIComponent(cursor)}`);
    if (!page) return;
    const notifications = merge(this._state.notifications, page.notifications);
    this._set({ notifications, nextCursor: page.nextCursor });
  }

  markRead(id: string, isRead = true): Promise<void> {
    return this._change('PATCH', '', { notificationId: id, isRead }, (count) => marked(this._state, id, isRead, count));
  }

  markAllRead(): Promise<void> {
    return this._change('PATCH', '', { markAllAsRead: true }, (count) => marked(this._state, null, true, count));
  }

  async remove(id: string): Promise<void> {
    if (await this._ask('DELETE', `?id=${encodeURIComponent(id)}`)) await this.reload();
  }

  /** Deletes those that are read. */
  clear(): Promise<void> {
    return this._change('DELETE', '/clear', undefined, () => unread(this._state));
  }

  // ---- within

  private _set(change: Partial<InboxState>): void {
    this._state = { ...this._state, ...change };
    this._listeners.tell();
  }

  private _hear(frame: Frame): void {
    const state = heard(this._state, frame);
    if (state === this._state) return;
    this._isStale = true;
    this._heard++;
    if (state) this._set(state);
    else void this.reload();
  }

  /** Until nothing was heard while it was asked: an answer may be older than an event. */
  private async _load(): Promise<void> {
    const era = this._era;
    this._set({ isLoading: true, error: null });
    try {
      while (this._isStale && era === this._era) {
        this._isStale = false;
        const limit = Math.min(RELOAD_MAX, Math.max(PAGE, this._state.notifications.length));
        const page = await this._ask('GET', `?limit=${limit}`);
        if (page) this._set(page);
      }
    } catch (error) {
      if (era === this._era) this._set({ error: error as Error });
    }
    if (era === this._era) this._set({ isLoading: false });
  }

  /** Asks for a change. If something was heard meanwhile, the answer may be older: this change is, or will be, heard of, too. */
  private async _change(method: string, rest: string, body: unknown, apply: (unreadCount: number) => InboxState): Promise<void> {
    const before = this._heard;
    const answer = await this._ask(method, rest, body);
    if (answer && before === this._heard) this._set(apply(answer.unreadCount));
  }

  /** The answer, unless somebody else has signed in meanwhile. */
  private async _ask(method: string, rest: string, body?: unknown): Promise<any> {
    const { _era: era, _jwt: jwt } = this;
    let token: string | null;
    const ask = async () => {
      token = await jwt.getToken();
      // Nothing is done to what is another one's.
      return era === this._era && request(method, `${jwt.baseUrl}/api/user/notifications${rest}`, token, body);
    };
    const answer = await ask().catch(async (error) => {
      // The server knows more of this token than the clock here: once, with another.
      if (error.status !== 401 || !token || !(await jwt.refresh(token))) throw error;
      return ask();
    });
    return era === this._era ? answer : null;
  }
}
