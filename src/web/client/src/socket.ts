// The live connection, as applications use it.

import { drive, Listeners } from './drive.js';
import { JWTManager } from './jwt.js';
import { Link, type Phase } from './link.js';
import { onPage } from './page.js';
import { Tabs } from './tabs.js';
import { FanfareError, keyOf, type Channel, type Frame } from './types.js';
import { SHUT_KEY, Wire, type Ears } from './wire.js';

/** For `new FanfareSocket`. */
export interface SocketOptions {
  /** The socket's address; by default `/ws` where the sessions come from. */
  url?: string;
  /** Where tokens come from. */
  jwt?: JWTManager;
  /** One socket for all tabs; true by default. */
  shared?: boolean;
}

/** So often a WebSocket may fail before it is looked whether anything passes. */
const ATTEMPTS = 2;

export type Handler = (frame: any) => void;

type Handlers = Map<string, Listeners<[frame: Frame]>>;

/** A wanted channel. */
export interface Subscription {
  /** When the server has agreed, with its `subscribed`; rejected if it refuses. */
  ready: Promise<Frame>;
  /** Ends it; the channel is left when nobody else in this page wants it. */
  unsubscribe(): void;
}

export class FanfareSocket {
  private _link = new Link(Math.random);
  private _run = drive(this._link, {
    open: (fresh) => {
      const opening = ++this._opening;
      this._open(fresh, opening).catch(() => opening === this._opening && this._run((now) => this._link.closed(4000, 'no token', now)));
    },
    close: () => {
      this._opening++;
      if (this._tabs.leads) this._tabs.close();
    },
    send: (frame) => this._tabs.send(frame),
    renew: () => this._jwt.hurry(),
    forget: () => {
      if (this._tabs.leads) this._jwt.forget(this._used);
    },
    deliver: (frame, names) => {
      // What somebody has published is nothing that this client says.
      if (!/^[$*]/.test(frame.type)) this._emit(frame.type, frame);
      this._emit('*', frame);
      for (const name of names) this._channels.get(name)?.tell(frame);
    },
    report: (kind, data) => this._emit(`$${kind}`, { type: `$${kind}`, data }),
    settle: (command, frame, error) => {
      const [resolve, reject] = this._commands.get(command) ?? [];
      this._commands.delete(command);
      if (frame) resolve?.(frame);
      else reject?.(new FanfareError(error!.code, error!.message));
    },
  });
  private _tabs: Tabs;
  private _jwt: JWTManager;
  private _handlers: Handlers = new Map();
  private _channels: Handlers = new Map();
  private _commands = new Map<number, [(frame: Frame) => void, (error: FanfareError) => void]>();
  private _last = 0;
  private _opening = 0;
  /** The token that the connection has. */
  private _used?: string;
  private _off?: () => void;

  constructor(private _options: SocketOptions = {}) {
    this._jwt = _options.jwt ?? JWTManager.getInstance();
    this._tabs = new Tabs(() => `fanfare:${this._url()} ${this._jwt.user?.id}`, _options.shared ?? true, {
      frame: (frame) => this._run((now) => this._link.frame(frame, now)),
      closed: (code, reason) => this._run((now) => this._link.closed(code, reason, now)),
      moved: () => this._run((now) => this._link.moved(now, this._tabs.leads)),
      isTrying: () => this._link.isTrying,
    });
    this._link.leads = this._tabs.leads;
    let last = this._jwt.user?.id;
    this._jwt.onChange((user, anew) => {
      const id = user?.id;
      // What was asked as somebody is not sent as somebody else, by no tab.
      if (last && id !== last) this._run(() => this._link.signedOut());
      last = id ?? last;
      if (!this._off) return;
      this._tabs.enter();
      if (id) void this._jwt.getToken().then((token) => {
        if (!token || token === this._used) return;
        if (this._link.phase === 'open') this._used = token;
        this._run((now) => this._link.token(token, now, anew));
      });
    });
  }

  /** `idle`, `waiting` (for the next attempt), `opening`, `open` or `stopped` (the server wants no more of this client). */
  get status(): Phase {
    return this._link.phase;
  }

  isConnected(): boolean {
    return this.status === 'open';
  }

  /** Whether this tab holds the socket. */
  get isLeader(): boolean {
    return this._tabs.leads;
  }

  /** Connects, and stays connected until `disconnect`; needs somebody signed in, and waits for that. */
  connect(): void {
    this._off ??= onPage(
      () => this._run((now) => this._link.wake(now)),
      // A page that sleeps must not keep the others from the socket.
      () => this._tabs.leave(),
      () => {
        this._tabs.enter();
        this._run((now) => {
          this._link.wake(now);
          this._link.moved(now, this._tabs.leads);
        });
      },
    );
    this._tabs.enter();
    this._run((now) => this._link.connect(now));
  }

  disconnect(): void {
    this._off?.();
    this._off = undefined;
    this._run(() => this._link.disconnect());
    this._tabs.leave();
  }

  /** The address with the token in its query; null if nobody is signed in. */
  async getWebSocketUrlWithAuth(): Promise<string | null> {
    const token = await this._jwt.getToken();
    return token && `${this._url()}?token=${encodeURIComponent(token)}`;
  }

  /** The channel's events go to `handler`, and to those of `on`. */
  subscribe(channel: Channel, handler?: Handler): Subscription {
    const name = keyOf(channel);
    // One of its own, though the handler may have other subscriptions.
    const one: Handler = (frame) => handler?.(frame);
    this._channels.set(name, (this._channels.get(name) ?? new Listeners()).add(one));
    const ready = this._promise((command, now) => this._link.want(name, command, now));
    // Refusals are reported by `$denied`, too: nobody has to look at the promise.
    ready.catch(() => {});
    return {
      ready,
      unsubscribe: () => {
        const all = this._channels.get(name);
        if (all?.delete(one) && !all.size) this.unsubscribe(name);
      },
    };
  }

  /** Leaves a channel, whoever in this page wanted it. */
  unsubscribe(channel: Channel): void {
    const name = keyOf(channel);
    this._channels.delete(name);
    this._run((now) => this._link.unwant(name, now));
  }

  /** Publishes where the channel's rule lets clients do so. Not repeated when the connection is lost before the reply. */
  publish(channel: Channel, event: { type: string; [member: string]: any }): Promise<any> {
    return this._about('publish', channel, { event }, false);
  }

  /** Who is in a channel. */
  presence(channel: Channel): Promise<{ users: string[]; count: number; channelKey: string }> {
    return this._about('presence', channel);
  }

  /** Events of the past, oldest first. */
  history(channel: Channel, options?: { limit?: number; before?: number }): Promise<{ events: Frame[]; epoch: string; channelKey: string }> {
    return this._about('history', channel, options);
  }

  /** The time to the server and back, in milliseconds. */
  async ping(): Promise<number> {
    const began = performance.now();
    await this._command({ type: 'ping' });
    return performance.now() - began;
  }

  /**
   * Calls back for every event or message of this type (`*`: of any), and for what this client
   * tells of itself: `$status`, `$recovered`, `$denied`, `$closed`, each with `data`.
   */
  on(type: string, handler: Handler): () => void {
    this._handlers.set(type, (this._handlers.get(type) ?? new Listeners()).add(handler));
    return () => this.off(type, handler);
  }

  off(type: string, handler: Handler): void {
    this._handlers.get(type)?.delete(handler);
  }

  // ---- within

  private _url(): string {
    if (this._options.url) return this._options.url;
    const base = this._jwt.baseUrl || globalThis.location?.origin || '';
    return `${base.replace(/^http/, 'ws')}/ws`;
  }

  private async _open(fresh: boolean, opening: number): Promise<void> {
    const { _jwt: jwt, _tabs: tabs } = this;
    const renewed = !fresh || !tabs.leads || (await jwt.refresh(this._used));
    const token = renewed ? await jwt.getToken() : null;
    const wire = token && tabs.leads && (await this._way(token));
    if (opening !== this._opening) return;
    if (!jwt.user) this._run(() => this._link.noToken());
    else if (!tabs.leads) tabs.hello();
    else if (wire) {
      this._used = token!;
      tabs.open(wire);
    } else throw new FanfareError('offline');
  }

  /** How to connect: by a WebSocket, unless those do not pass where requests do. */
  private async _way(token: string): Promise<(ears: Ears) => Pick<Wire, 'send' | 'close'>> {
    const url = this._url();
    const connect = (token: string, ears: Ears) => new Wire(url, token, ears);
    try {
      if (this._tabs.shut >= ATTEMPTS || +localStorage.getItem(SHUT_KEY)! > Date.now()) {
        const { way } = await import('./stream.js');
        return await way(url, token, connect);
      }
    } catch {
      // Nothing passes.
    }
    return (ears) => connect(token, ears);
  }

  /** What the reply to a command about a channel says. */
  private async _about(type: string, channel: Channel, rest?: object, harmless?: boolean): Promise<any> {
    // As it is now, without what cannot be sent.
    const frame = JSON.parse(JSON.stringify({ type, channel: keyOf(channel), ...rest }));
    return (await this._command(frame, harmless)).data;
  }

  private _command(frame: Frame, harmless = true): Promise<Frame> {
    return this._promise((command, now) => this._link.command(command, frame, harmless, now));
  }

  private _promise(start: (command: number, now: number) => void): Promise<Frame> {
    return new Promise((resolve, reject) => {
      const command = ++this._last;
      this._commands.set(command, [resolve, reject]);
      this._run((now) => start(command, now));
    });
  }

  private _emit(type: string, frame: Frame): void {
    this._handlers.get(type)?.tell(frame);
  }
}
