// One socket for all tabs of a browser that have the same user. The tab that has the lock holds it;
// the others speak through a BroadcastChannel. Where there are no locks (an insecure page, an old
// browser) every tab has a socket of its own.

import { Hub } from './hub.js';
import type { Frame } from './types.js';
import type { Ears, Wire } from './wire.js';

/** How long the tab with the socket may take to answer before another takes the lock from it. */
const HELLO_PATIENCE = 3_000;

/** What a tab is told of its connection. */
export interface Owner extends Ears {
  /** Another tab has the socket now, or this one. */
  moved(): void;
  /** Whether this tab wants a connection and has hope. */
  isTrying(): boolean;
}

interface Down {
  from: string;
  to?: string;
  except?: string;
  down: Frame;
}

type Note =
  | { from: string; ask: true }
  | { from: string; to: string; ack: Frame | null }
  | { from: string; up: Frame }
  | { from: string; bye: true }
  | Down
  | { from: string; closed: [number, string] };

export class Tabs {
  leads = true;
  /** Attempts in which no WebSocket said anything, since one did. */
  shut = 0;
  private _me = `fanfare-tab-${Math.random()}`;
  private _group?: string;
  private _hub = new Hub();
  private _wire?: Pick<Wire, 'send' | 'close'>;
  private _channel?: BroadcastChannel;
  private _release?: () => void;
  private _seeking?: AbortController;
  private _hello: any;
  private _pace: any;
  private _life?: Promise<void>;
  private _known = new Set<string>();

  constructor(
    /** Of those that share a socket. */
    private _name: () => string,
    shared: boolean,
    private _owner: Owner,
  ) {
    try {
      // Without it nobody knows who is signed in in another tab; it and the locks are refused together.
      this.leads = !(shared && localStorage && navigator.locks && globalThis.BroadcastChannel);
    } catch {
      // Alone, then.
    }
  }

  /** Takes part from now on, in the group that it is of by now. */
  enter(): void {
    const group = this._name();
    if (this._channel && group !== this._group) this.leave();
    if (this.leads || this._channel) return;
    this._channel = new BroadcastChannel((this._group = group));
    this._channel.onmessage = ({ data }) => this._hear(data);
    // Held for as long as this tab lives: so the others know when it does not.
    this._life ??= navigator.locks.request(this._me, () => new Promise<void>(() => {}));
    this._seek();
  }

  /** Leaves the socket to the others. */
  leave(): void {
    if (!this._channel) return this.close();
    this._post({ from: this._me, bye: true });
    this._step();
    this._channel.close();
    this._channel = undefined;
  }

  /** Whoever has the socket says whether it is there; alone or in front: it is to be opened. */
  hello(): void {
    clearTimeout(this._hello);
    if (!this._channel) return;
    this._post({ from: this._me, ask: true });
    this._hello = setTimeout(() => this._seek(true), HELLO_PATIENCE);
  }

  open(wire: (ears: Ears) => Pick<Wire, 'send' | 'close'>): void {
    this._wire?.close();
    this.shut++;
    this._wire = wire({
      frame: (frame, isSocket) => {
        if (isSocket) this.shut = 0;
        this._hub.fromServer(frame, Date.now());
        this._pump();
      },
      closed: (code, reason) => {
        this._gone(code, reason);
        this._owner.closed(code, reason);
      },
    });
  }

  send(frame: Frame): void {
    if (!this.leads) return this._post({ from: this._me, up: frame });
    this._hub.fromTab(this._me, frame, Date.now());
    this._pump();
  }

  /** The connection is of no more use. */
  close(): void {
    clearTimeout(this._hello);
    if (!this._wire) return;
    this._wire.close();
    this._gone(4000, 'closed');
  }

  // ---- within

  private _post(note: Note): void {
    this._channel?.postMessage(note);
  }

  private _gone(code: number, reason: string): void {
    this._wire = undefined;
    this._hub.lost();
    this._post({ from: this._me, closed: [code, reason] });
  }

  private _pump(): void {
    for (const frame of this._hub.send.splice(0)) this._wire?.send(frame);
    for (const { to, except, frame } of this._hub.out.splice(0)) {
      const note = { from: this._me, to, except, down: frame };
      if (to !== this._me) this._post(note);
      this._take(note);
    }
    clearTimeout(this._pace);
    if (this._hub.deadline === Infinity) return;
    this._pace = setTimeout(() => {
      this._hub.tick(Date.now());
      this._pump();
    }, this._hub.deadline - Date.now());
  }

  /** A frame, if it is for this tab. */
  private _take({ to, except, down }: Down): void {
    if ((!to || to === this._me) && except !== this._me) this._owner.frame(down);
  }

  /** Waits for the lock, or takes it. */
  private _seek(steal = false): void {
    this._seeking?.abort();
    const seeking = (this._seeking = new AbortController());
    const hold = () =>
      new Promise<void>((release) => {
        // Left meanwhile.
        if (this._seeking !== seeking) return release();
        this._release = release;
        this.leads = true;
        clearTimeout(this._hello);
        this._owner.moved();
      });
    navigator.locks
      .request(this._group!, steal ? { steal } : { signal: seeking.signal }, hold)
      // Given up, or taken by another tab.
      .catch(() => {})
      .then(() => {
        if (this._seeking !== seeking) return;
        this._step();
        if (!this._channel) return;
        this._seek();
        this._owner.moved();
      });
  }

  /** Steps back. */
  private _step(): void {
    this._seeking?.abort();
    this._seeking = undefined;
    this.close();
    this.leads = false;
    this._known.clear();
    this._release?.();
    this._release = undefined;
  }

  private _hear(note: Note): void {
    const { from } = note;
    if (this.leads) {
      if ('bye' in note) this._hub.gone(from, Date.now());
      else if ('ask' in note) {
        if (!this._owner.isTrying()) {
          // Let somebody else: this tab does not want to, or may not.
          this._step();
          this._seek();
          return;
        }
        this._watch(from);
        this._post({ from: this._me, to: from, ack: this._hub.greeting ?? null });
      } else if ('up' in note) {
        this._watch(from);
        if (this._hub.greeting) this._hub.fromTab(from, note.up, Date.now());
      } else return;
      this._pump();
    } else if ('ack' in note) {
      if (note.to !== this._me) return;
      clearTimeout(this._hello);
      if (note.ack) this._owner.frame(note.ack);
    } else if ('down' in note) this._take(note);
    else if ('closed' in note) this._owner.closed(...note.closed);
  }

  /** Notices when that tab is no more. */
  private _watch(tab: string): void {
    if (this._known.has(tab)) return;
    this._known.add(tab);
    void navigator.locks.request(tab, () => {
      this._known.delete(tab);
      this._hub.gone(tab, Date.now());
      this._pump();
    });
  }
}
