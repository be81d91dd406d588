// Who is signed in: keeps the tokens, renews them in time, once for all tabs.

import { PATIENCE, request } from './api.js';
import { claimsOf } from './claims.js';
import { drive, Listeners } from './drive.js';
import { onPage } from './page.js';
import { Renewal, type Session } from './renewal.js';
import { FanfareError, type User } from './types.js';
import type { Signer } from './wallet.js';

/** For `JWTManager.getInstance` and `configure`. */
export interface JWTOptions {
  /** Where Fanfare is, such as `https://rt.example`; by default the page's own origin. */
  baseUrl?: string;
  /** The application's own way to get a token, in place of sign-in and refresh tokens; null: nobody is signed in. */
  getToken?: () => Promise<string | null>;
}

/** So long before its end a token is not handed out any more: it has to arrive, too. */
const ARRIVAL = 1_500;
/** So long after the lock's owner wrote, other processes of the browser may still read what was there before. */
const SPREADING = 1_000;

export class JWTManager {
  private static _instance?: JWTManager;

  /** The only one there is. */
  static getInstance(options?: JWTOptions): JWTManager {
    const one = (JWTManager._instance ??= new JWTManager());
    return options ? one.configure(options) : one;
  }

  private _options: JWTOptions = {};
  private _core = new Renewal(Math.random);
  private _run = drive(this._core, {
    lock: () => {
      const work = () =>
        new Promise<void>((unlock) => {
          this._unlock = unlock;
          this._run(() => this._core.locked(this._read()));
        });
      // There may be no locks, or none for this page.
      (async () => navigator.locks.request(this._key, work))().catch(work);
    },
    fetch: (session) => void this._fetch(session),
    store: (session) => this._write(session),
    unlock: () => void setTimeout(this._unlock!, SPREADING),
    tell: (session, anew) => this._listeners.tell(session?.user ?? null, anew),
    settle: (renewed) => {
      for (const resolve of this._waiting.splice(0)) resolve(renewed);
    },
  });
  private _listeners = new Listeners<[user: User | null, anew: boolean]>();
  private _waiting: ((renewed: boolean) => void)[] = [];
  private _unlock?: () => void;
  /** The application is asked; whether it ever answered. */
  private _asking?: Promise<string | null>;
  private _isAsked = false;
  /** What localStorage does not take. */
  private _memory: string | null = null;

  private constructor() {
    this._look();
    globalThis.addEventListener?.('storage', ({ key }) => {
      if ((key ?? this._key) === this._key) this._look();
    });
    onPage(() => this.hurry());
  }

  configure(options: JWTOptions): this {
    Object.assign(this._options, options);
    // Another server's sessions are other ones.
    this._look();
    return this;
  }

  get baseUrl(): string {
    return (this._options.baseUrl ?? '').replace(/\/$/, '');
  }

  /** Who is signed in. */
  get user(): User | null {
    return this._core.session?.user ?? null;
  }

  /** When the token ends, in milliseconds of this browser's clock. */
  get expiresAt(): number | null {
    return this._core.session?.until ?? null;
  }

  isAuthenticated(): boolean {
    return (this.expiresAt ?? 0) > Date.now();
  }

  /** The token, renewed before if it has ended; null if nobody is signed in or it cannot be renewed now. */
  async getToken(): Promise<string | null> {
    if (this._options.getToken && !(this._isAsked && this._core.session)) {
      // Whoever is stored may not be who is signed in to the application by now.
      const token = await this._ask().catch(() => {});
      if (token) {
        this._isAsked = true;
        this.setToken(token);
      } else if (token === null) this.forget();
    }
    const { session } = this._core;
    if (session && session.until - Math.min(ARRIVAL, (session.until - session.from) / 8) < Date.now()) await this.refresh(session.token);
    return this.isAuthenticated() ? this._core.session!.token : null;
  }

  /** Gets a new token, unless there is another than `old` already. Never two at a time, whatever the number of tabs. */
  refresh(old?: string): Promise<boolean> {
    return new Promise((resolve) => {
      this._waiting.push(resolve);
      this._run(() => this._core.refresh(old));
    });
  }

  /** Renews the token at once if its time has come and only an earlier failure is waited for. */
  hurry(): void {
    this._run((now) => this._core.wake(now));
  }

  /**
   * Signs in: with the page's wallet, with a signer of the application's, or with a bare address
   * where the server asks for no proof.
   */
  async signIn(who?: Signer | string): Promise<User> {
    const proof = typeof who === 'string' ? { wallet: who } : await (await import('./wallet.js')).prove(who, (wallet) => this._post('challenge', { wallet }));
    const from = Date.now();
    const session = this._session(await this._post('wallet', proof), from);
    this._run(() => this._core.signedIn(session));
    return session.user;
  }

  /** Goes on with a token that the application has got itself. */
  setToken(token: string, refreshToken?: string): void {
    this._run(() => this._core.signedIn(this._session({ token, refreshToken })));
  }

  /** Whether the server takes the token. */
  async verify(token = this._core.session?.token): Promise<boolean> {
    try {
      return !!token && (await request('GET', `${this.baseUrl}/api/auth/wallet`, token)).valid;
    } catch (error) {
      if ((error as FanfareError).status === 401) return false;
      throw error;
    }
  }

  /** Signs out here at once; the server, if it can be reached, is told, and revokes the tokens and closes their sockets. */
  async logout(): Promise<void> {
    const session = this._core.session;
    this.forget();
    if (!session) return;
    const { token, refreshToken } = session;
    await this._post('logout', { refreshToken }, token).catch(() => {});
  }

  /** Signs out without telling the server; with a token, only if it is still that one. */
  forget(token?: string): void {
    if (!token || token === this._core.session?.token) this._run(() => this._core.signedIn(null));
  }

  /** Calls back when there is another token, or none; `anew`: somebody has signed in or out. */
  onChange(listener: (user: User | null, anew: boolean) => void): () => void {
    return this._listeners.listen(listener);
  }

  // ---- within

  private _post(what: string, body: unknown, token?: string): Promise<any> {
    return request('POST', `${this.baseUrl}/api/auth/${what}`, token, body);
  }

  /**
   * `from`: before it was asked for; the answer may have waited long for a page that slept. How old a
   * token is that nobody asked for here cannot be told but by the two clocks.
   */
  private _session(answer: any, from?: number): Session {
    const { token, refreshToken, user } = answer;
    const { exp, iat, userId, sub, wallet, nickname } = claimsOf(token);
    from ??= (iat ?? Date.now() / 1_000) * 1_000;
    const until = from + (exp - (iat ?? from / 1_000)) * 1_000;
    return { token, refreshToken, user: user ?? { id: userId ?? sub, wallet, nickname }, from, until };
  }

  /** The application's token: asked for once at a time, and not waited for for ever. */
  private _ask(): Promise<string | null> {
    return (this._asking ??= Promise.race([
      (async () => this._options.getToken!())(),
      new Promise<never>((_, fail) => setTimeout(fail, PATIENCE)),
    ]).finally(() => (this._asking = undefined)));
  }

  private async _fetch({ refreshToken, user, until }: Session): Promise<void> {
    const from = Date.now();
    let final = false;
    try {
      let answer;
      if (this._options.getToken) {
        answer = { token: await this._ask() };
        final = true;
      } else {
        // Without a refresh token it is good until its end, whatever is said to its wallet.
        final = !!refreshToken || until < from;
        if (refreshToken) answer = await this._post('refresh', { refreshToken });
        else if (user.wallet) answer = await this._post('wallet', { wallet: user.wallet });
      }
      if (!answer?.token) throw true;
      const session = this._session({ refreshToken, ...answer }, from);
      this._run(() => this._core.renewed(session, this._read()));
    } catch (error) {
      const status = (error as FanfareError | undefined)?.status;
      const refused = final && (error === true || status === 400 || status === 401);
      this._run((now) => this._core.failed(now, refused, this._read()));
    }
  }

  private get _key(): string {
    return `fanfare-session${this.baseUrl}`;
  }

  /** At what is stored. */
  private _look(): void {
    this._run(() => this._core.stored(this._read()));
  }

  private _read(): Session | null {
    try {
      const session = JSON.parse(this._memory ?? localStorage.getItem(this._key)!);
      if (session.user.id) return session;
    } catch {
      // Not there, not allowed, or none of ours.
    }
    return null;
  }

  private _write(session: Session | null): void {
    const text = session && JSON.stringify(session);
    this._memory = null;
    try {
      if (text) localStorage.setItem(this._key, text);
      else localStorage.removeItem(this._key);
    } catch {
      // Then this tab alone knows.
      this._memory = text;
    }
  }
}
