// A browser and its network on a clock of their own: tabs that can die and freeze, Web Locks,
// BroadcastChannel, localStorage, WebSocket and fetch, each as slow and as unkind as a seed says.

import { AsyncLocalStorage } from 'node:async_hooks';

const real = { setImmediate, random: Math.random };

/** A tab, or whoever else runs code. */
export class Tab {
  isDead = false;
  isFrozen = false;
  listeners: { type: string; handler: (event: any) => void }[] = [];
  sockets = new Set<FakeSocket | FakeStream>();
  channels = new Set<FakeChannel>();
  constructor(readonly name: string) {}
}

interface Timer {
  at: number;
  order: number;
  work: () => void;
  tab: Tab;
}

interface Lock {
  name: string;
  tab: Tab;
  steal: boolean;
  work: () => Promise<unknown>;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

export type Server = {
  /** A socket has been opened with this token. */
  connect(socket: FakeSocket, token: string): void;
  receive(socket: FakeSocket, frame: any): void;
  gone(socket: FakeSocket | FakeStream): void;
  /** Server-sent events; the status. */
  stream(stream: FakeStream, token: string | null, channels: string[], lastEventId: string): number;
  fetch(method: string, path: string, token: string | null, body: any): { status: number; body: any } | null;
};

/** mulberry32 */
export function dice(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class World {
  now = 1_800_000_000_000;
  readonly outside = new Tab('outside');
  readonly tabs: Tab[] = [];
  /** Whose request the server answers. */
  asking = this.outside;
  server!: Server;
  random: () => number;
  private timers = new Map<number, Timer>();
  private last = 0;
  private who = new AsyncLocalStorage<Tab>();
  private locks = new Map<string, { held: Lock | null; queue: Lock[] }>();
  private store = new Map<string, string>();

  constructor(seed: number) {
    this.random = dice(seed);
  }

  get tab(): Tab {
    return this.who.getStore() ?? this.outside;
  }

  run<T>(tab: Tab, work: () => T): T {
    return this.who.run(tab, work);
  }

  open(name: string): Tab {
    const tab = new Tab(name);
    this.tabs.push(tab);
    return tab;
  }

  /** As a crash would: nothing of its own runs any more. */
  kill(tab: Tab): void {
    tab.isDead = true;
    for (const socket of tab.sockets) this.server.gone(socket);
    for (const { held, queue } of this.locks.values()) {
      queue.splice(0, queue.length, ...queue.filter((lock) => lock.tab !== tab));
      if (held?.tab === tab) this.release(held);
    }
  }

  dispatch(tab: Tab, type: string, event: any = {}): void {
    this.run(tab, () => {
      for (const one of [...tab.listeners]) if (one.type === type) one.handler?.({ type, ...event });
    });
  }

  after(delay: number, work: () => void, tab = this.tab): number {
    const id = ++this.last;
    this.timers.set(id, { at: this.now + Math.max(0, delay), order: id, work, tab });
    return id;
  }

  /** Lets time pass; what frozen tabs would do waits. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.now + milliseconds;
    for (;;) {
      // Promises first: they take no time.
      await new Promise((resolve) => real.setImmediate(resolve));
      let next: [number, Timer] | undefined;
      for (const entry of this.timers) {
        const [id, timer] = entry;
        if (timer.tab.isDead) this.timers.delete(id);
        else if (timer.at <= end && !timer.tab.isFrozen) {
          if (!next || timer.at < next[1].at || (timer.at === next[1].at && timer.order < next[1].order)) next = entry;
        }
      }
      if (!next) break;
      const [id, timer] = next;
      this.timers.delete(id);
      this.now = Math.max(this.now, timer.at);
      this.run(timer.tab, timer.work);
    }
    this.now = end;
  }

  /** Puts itself in the place of what a browser has. */
  install(): void {
    const world = this;
    const set = (name: string, value: unknown) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    Date.now = () => world.now;
    Math.random = () => world.random();
    set('setTimeout', (work: () => void, delay = 0) => world.after(delay, work));
    set('clearTimeout', (id: number) => world.timers.delete(id));
    const listen = {
      addEventListener: (type: string, handler: any, options?: { signal?: AbortSignal }) => {
        const { tab } = world;
        const one = { type, handler };
        tab.listeners.push(one);
        options?.signal?.addEventListener('abort', () => {
          tab.listeners = tab.listeners.filter((other) => other !== one);
        });
      },
    };
    set('addEventListener', listen.addEventListener);
    set('document', { ...listen, hidden: false });
    set('location', { origin: 'http://rt.example' });
    set('localStorage', {
      getItem: (key: string) => world.store.get(key) ?? null,
      setItem: (key: string, value: string) => world.change(key, value),
      removeItem: (key: string) => world.change(key, null),
    });
    set('navigator', {
      locks: {
        request: (name: string, ...rest: any[]) => world.lock(name, rest.length > 1 ? rest[0] : {}, rest[rest.length - 1]),
      },
    });
    set('BroadcastChannel', class extends FakeChannel {
      constructor(name: string) {
        super(world, name);
      }
    });
    set('WebSocket', class extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(world, url, protocols);
      }
    });
    set('fetch', (url: string, options: any) => world.fetch(url, options));
  }

  /** Milliseconds that something is under way. */
  delay(): number {
    return Math.floor(this.random() ** 3 * 60);
  }

  stored(key: string): any {
    const text = this.store.get(key);
    return text ? JSON.parse(text) : null;
  }

  private change(key: string, value: string | null): void {
    if (value === null) this.store.delete(key);
    else this.store.set(key, value);
    const writer = this.tab;
    for (const tab of this.tabs) {
      if (tab !== writer && !tab.isDead) this.after(this.delay(), () => this.dispatch(tab, 'storage', { key }), tab);
    }
  }

  private lock(name: string, options: { steal?: boolean; signal?: AbortSignal }, work: () => Promise<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const lock: Lock = { name, tab: this.tab, steal: !!options.steal, work, resolve, reject };
      const slot = this.locks.get(name) ?? { held: null, queue: [] };
      this.locks.set(name, slot);
      if (lock.steal) {
        const before = slot.held;
        slot.held = null;
        if (before) this.after(0, () => before.reject(new Error('AbortError: stolen')), before.tab);
        slot.queue.unshift(lock);
      } else slot.queue.push(lock);
      options.signal?.addEventListener('abort', () => {
        if (!slot.queue.includes(lock)) return;
        slot.queue = slot.queue.filter((one) => one !== lock);
        reject(new Error('AbortError'));
      });
      this.after(this.delay() / 20, () => this.grant(name), this.outside);
    });
  }

  private grant(name: string): void {
    const slot = this.locks.get(name)!;
    if (slot.held) return;
    const next = slot.queue.shift();
    if (!next) return;
    slot.held = next;
    // A frozen tab has what it was granted, and does not know.
    this.after(0, () => {
      if (slot.held !== next) return;
      Promise.resolve(next.work()).then(
        (value) => {
          next.resolve(value);
          this.release(next);
        },
        (error) => {
          next.reject(error);
          this.release(next);
        },
      );
    }, next.tab);
  }

  private release(lock: Lock): void {
    const slot = this.locks.get(lock.name)!;
    if (slot.held !== lock) return;
    slot.held = null;
    this.after(this.delay() / 20, () => this.grant(lock.name), this.outside);
  }

  private fetch(url: string, options: any): Promise<any> {
    return new Promise((resolve, reject) => {
      const tab = this.tab;
      this.after(this.delay(), () => {
        const bearer = options.headers.Authorization?.slice(7) ?? null;
        this.asking = tab;
        const { pathname, searchParams } = new URL(url, 'http://rt.example');
        if (pathname === '/sse') {
          if (options.signal.aborted || tab.isDead) return;
          const stream = new FakeStream(this, tab, options.signal);
          const status = this.server.stream(stream, bearer, searchParams.getAll('channel'), options.headers['Last-Event-ID'] ?? '');
          this.after(this.delay(), () => {
            if (!status) return reject(new TypeError('network'));
            resolve({ status, headers: new Headers(), json: async () => ({}), body: { getReader: () => stream } });
          }, tab);
          return;
        }
        const answer = this.server.fetch(options.method, pathname, bearer, options.body && JSON.parse(options.body));
        this.after(this.delay(), () => {
          if (answer) resolve({ status: answer.status, ok: answer.status < 300, headers: new Headers(), json: async () => answer.body });
          else reject(new TypeError('network'));
        }, tab);
      }, this.outside);
    });
  }
}

class FakeChannel {
  onmessage: ((event: { data: any }) => void) | null = null;
  private tab: Tab;
  private until = new Map<FakeChannel, number>();
  static all = new Set<FakeChannel>();
  constructor(private world: World, readonly name: string) {
    this.tab = world.tab;
    this.tab.channels.add(this);
  }
  postMessage(data: any): void {
    const copy = structuredClone(data);
    for (const tab of this.world.tabs) {
      for (const other of tab.channels) {
        if (other === this || other.name !== this.name) continue;
        // In order, and a channel that was closed hears nothing.
        const at = Math.max(this.until.get(other) ?? 0, this.world.now + this.world.delay() / 10);
        this.until.set(other, at);
        this.world.after(at - this.world.now, () => tab.channels.has(other) && other.onmessage?.({ data: copy }), tab);
      }
    }
  }
  close(): void {
    this.tab.channels.delete(this);
  }
}

export class FakeSocket {
  readyState = 0;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly tab: Tab;
  readonly token: string;
  private inbound = 0;
  private outbound = 0;
  /** The server's side of it is open. */
  isAccepted = false;

  constructor(readonly world: World, readonly url: string, protocols: string[]) {
    this.tab = world.tab;
    this.tab.sockets.add(this);
    this.token = protocols[1]!.slice('bearer.'.length);
    world.after(world.delay(), () => !this.tab.isDead && this.readyState === 0 && world.server.connect(this, this.token), world.outside);
  }

  // ---- the server's side

  accept(): void {
    this.isAccepted = true;
    this.later(() => (this.readyState = 1));
  }
  push(frame: any): void {
    const data = JSON.stringify(frame);
    this.later(() => this.readyState === 1 && this.onmessage?.({ data }));
  }
  /** `cut`: what was under way is lost. */
  end(code: number, reason: string, cut: boolean): void {
    this.isAccepted = false;
    if (cut) this.readyState = 3;
    this.later(() => {
      this.readyState = 3;
      this.tab.sockets.delete(this);
      this.onclose?.({ code, reason });
    });
  }

  // ---- the page's side

  send(text: string): void {
    const at = Math.max(this.outbound, this.world.now + this.world.delay());
    this.outbound = at;
    this.world.after(at - this.world.now, () => this.isAccepted && this.world.server.receive(this, JSON.parse(text)), this.world.outside);
  }
  close(): void {
    this.readyState = 3;
    this.tab.sockets.delete(this);
    this.world.after(this.world.delay(), () => this.world.server.gone(this), this.world.outside);
  }

  private later(work: () => void): void {
    const at = Math.max(this.inbound, this.world.now + this.world.delay());
    this.inbound = at;
    this.world.after(at - this.world.now, work, this.tab);
  }
}

/** The body of an answer that goes on: server-sent events, cut anywhere. */
export class FakeStream {
  readonly isStream = true;
  isAccepted = false;
  private chunks: Uint8Array[] = [];
  private isOver = false;
  private wake?: () => void;
  private inbound = 0;

  constructor(readonly world: World, readonly tab: Tab, private signal: AbortSignal) {
    tab.sockets.add(this);
    signal.addEventListener('abort', () => {
      this.wake?.();
      tab.sockets.delete(this);
      world.after(world.delay(), () => world.server.gone(this), world.outside);
    });
  }

  // ---- the server's side

  accept(): void {
    this.isAccepted = true;
  }
  push(frame: any): void {
    const bytes = new TextEncoder().encode(`event: message\ndata: ${JSON.stringify(frame)}\n\n`);
    const cut = Math.floor(this.world.random() * bytes.length);
    for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) this.later(() => this.chunks.push(part));
  }
  end(_code: number, _reason: string, cut: boolean): void {
    this.isAccepted = false;
    if (cut) this.chunks = [];
    this.later(() => (this.isOver = true));
    this.tab.sockets.delete(this);
  }

  // ---- the page's side

  async read(): Promise<{ value?: Uint8Array; done: boolean }> {
    for (;;) {
      if (this.signal.aborted) throw new Error('AbortError');
      const value = this.chunks.shift();
      if (value) return { value, done: false };
      if (this.isOver) return { done: true };
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }

  private later(work: () => void): void {
    const at = Math.max(this.inbound, this.world.now + this.world.delay());
    this.inbound = at;
    this.world.after(at - this.world.now, () => {
      work();
      this.wake?.();
    }, this.tab);
  }
}
