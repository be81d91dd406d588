// The names that the predecessor's application imports, over this library: its `lib/utils/jwt` and
// `lib/services/websocket`. Change the import, and nothing else: who is signed in stays so, also where
// the server wants wallets to sign, and the socket opens by itself.

import { claimsOf } from './claims.js';
import { FanfareSocket, JWTManager, keyOf, type FanfareError, type Frame, type Subscription } from './index.js';

export type SubscriptionChannel =
  | { type: 'creator'; id: string }
  | { type: 'notifications'; userId: string }
  | { type: 'feed'; userId: string }
  | { type: 'post'; postId: string };

export type WebSocketEvent = Frame;

/** Where the predecessor's application remembered the wallet that signs in. */
const WALLET = 'fonana_user_wallet';
/** Where its token manager kept the token, and where the application looks for it, and puts one that it has got itself. */
const TOKEN = 'fonana_jwt_token';
/** Between attempts to sign in for the socket; half of it at least. */
const RETRY_FIRST = 1_000;
const RETRY_MAX = 30_000;
/** So long a channel that was left is kept: the application's hooks leave and come again at every change. */
const LINGER = 100;

/** What is kept there. */
interface StoredToken {
  token: string;
  /** In milliseconds. */
  expiresAt: number;
  userId: string;
  wallet: string;
}

class CompatibleManager {
  private _jwt = JWTManager.getInstance();
  private _asking?: Promise<string | null>;
  /** Until the server has said what it thinks of a token that was found. */
  private _proving?: Promise<unknown>;
  /** Why there was no token the last time. */
  private _trouble?: string;
  /** Whether the server wants wallets to sign, as it has said: a bare address would be one more failure there. */
  private _wantsProof = false;
  /** The wallet whose owner did not want to sign: not asked again in this page. */
  private _declined?: string;

  constructor() {
    this._adopt();
    if (this._jwt.user) void this._mirror();
    this._jwt.onChange(() => void this._mirror());
  }

  /** The token; signs in with the remembered wallet if there is none. */
  async getToken(): Promise<string | null> {
    this._adopt();
    await this._proving;
    const token = await this._jwt.getToken();
    const wallet = token ? null : item(WALLET);
    return wallet ? this.requestNewToken(wallet) : token;
  }
  /** Signs in; where the server wants a signature, the page's wallet is asked for it, once. */
  requestNewToken(wallet: string): Promise<string | null> {
    return (this._asking ??= this._signIn(wallet).finally(() => (this._asking = undefined)));
  }
  async refresh(): Promise<boolean> {
    return this._jwt.user ? this._jwt.refresh() : (await this.getToken()) !== null;
  }
  verifyToken(token?: string): Promise<boolean> {
    return this._jwt.verify(token).catch(() => false);
  }
  logout(): void {
    void this._jwt.logout();
  }
  isAuthenticated(): boolean {
    return this._jwt.isAuthenticated();
  }
  getCurrentUserId(): string | null {
    return this._jwt.user?.id ?? null;
  }
  getCurrentWallet(): string | null {
    return this._jwt.user?.wallet ?? null;
  }
  getStats() {
    return {
      userId: this.getCurrentUserId(),
      wallet: this.getCurrentWallet(),
      expiresAt: this._jwt.expiresAt ?? 0,
      isAuthenticated: this.isAuthenticated(),
    };
  }

  private async _signIn(wallet: string): Promise<string | null> {
    try {
      if (!(await this._name(wallet))) await this._prove(wallet);
      this._trouble = undefined;
      return await this._jwt.getToken();
    } catch (error) {
      const { message } = error as Error;
      if (message !== this._trouble) console.error('[JWT] Failed to get token:', message);
      this._trouble = message;
      return null;
    }
  }

  /**
   * Goes on with a token that the predecessor's manager has left, or that the application has got
   * for another wallet since; whether it holds is asked meanwhile.
   */
  private _adopt(): void {
    try {
      const { token, wallet } = JSON.parse(item(TOKEN)!) as StoredToken;
      if (wallet !== item(WALLET) || wallet === this.getCurrentWallet() || claimsOf(token).exp * 1_000 < Date.now()) return;
      this._jwt.setToken(token);
      // A server that is away has not refused it.
      this._proving = this._jwt.verify(token).then((holds) => holds || this._jwt.forget(token), () => {});
    } catch {
      // None, or none of theirs.
    }
  }

  /** Lets the application see the token where it looks. */
  private async _mirror(): Promise<void> {
    const token = this._jwt.user && (await this._jwt.getToken());
    const { user, expiresAt } = this._jwt;
    if (!user) keep(TOKEN, null);
    else if (token) keep(TOKEN, JSON.stringify({ token, expiresAt, userId: user.id, wallet: user.wallet }));
  }

  /** Signs in with the bare address, unless the server wants more. */
  private async _name(wallet: string): Promise<boolean> {
    if (this._wantsProof) return false;
    try {
      await this._jwt.signIn(wallet);
    } catch (error) {
      this._wantsProof = (error as FanfareError).code === 'signature_required';
      if (!this._wantsProof) throw error;
    }
    return !this._wantsProof;
  }

  private async _prove(wallet: string): Promise<void> {
    if (this._declined === wallet) throw new Error('the wallet did not sign');
    const { findWallet } = await import('./wallet.js');
    try {
      const signer = await findWallet();
      if (signer.address !== wallet) throw new Error('the wallet of this page is another one');
      await this._jwt.signIn(signer);
    } catch (error) {
      // One that the page does not have yet may still come.
      if ((error as FanfareError).code !== 'no_wallet') this._declined = wallet;
      throw error;
    }
  }
}

/** What localStorage has, if it may be looked at. */
function item(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function keep(key: string, value: string | null): void {
  try {
    if (value) localStorage.setItem(key, value);
    else localStorage.removeItem(key);
  } catch {
    // Not allowed, or full.
  }
}

type Listener = (...args: any[]) => void;

class CompatibleService {
  private _socket = this._open();
  private _listeners = new Map<string, Listener[]>();
  private _channels = new Map<string, { channel: SubscriptionChannel; held: Subscription }>();
  /** Those that were left just now. */
  private _left = new Map<string, Subscription>();
  private _attempts = 0;
  private _retry?: ReturnType<typeof setTimeout>;
  /** What was said last, by `connect` or `disconnect`; undefined: nothing yet. */
  private _isOn?: boolean;

  /** Not needed: it connects by itself when it is first used. */
  connect(url?: string): void {
    this._isOn = true;
    if (url && !this.isConnected()) {
      this._socket.disconnect();
      this._socket = this._open(url);
      for (const one of this._channels.values()) one.held = this._socket.subscribe(one.channel);
    }
    this._try(RETRY_FIRST);
  }
  disconnect(): void {
    this._isOn = false;
    clearTimeout(this._retry);
    this._socket.disconnect();
    for (const { channel } of [...this._channels.values()]) this.unsubscribe(channel);
    this._attempts = 0;
  }
  isConnected(): boolean {
    return this._socket.isConnected();
  }
  getWebSocketUrlWithAuth(url?: string): Promise<string | null> {
    return url ? Promise.resolve(url) : this._socket.getWebSocketUrlWithAuth();
  }

  /** Events by their type, and `connected`, `disconnected`, `max_reconnect_reached` (the server wants no more of this client). */
  on(event: string, listener: Listener): void {
    this._listeners.set(event, [...(this._listeners.get(event) ?? []), listener]);
    this._begin();
  }
  off(event: string, listener: Listener): void {
    const left = (this._listeners.get(event) ?? []).filter((one) => one !== listener);
    if (left.length) this._listeners.set(event, left);
    else this._listeners.delete(event);
  }
  emit(event: string, ...args: any[]): void {
    for (const listener of this._listeners.get(event) ?? []) {
      try {
        listener(...args);
      } catch (error) {
        // Takes nothing from the others.
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
  removeAllListeners(event?: string): void {
    if (event) this._listeners.delete(event);
    else this._listeners.clear();
  }
  getListenerCount(event?: string): number {
    if (event) return this._listeners.get(event)?.length ?? 0;
    return [...this._listeners.values()].reduce((sum, all) => sum + all.length, 0);
  }
  getEvents(): string[] {
    return [...this._listeners.keys()];
  }
  getStats() {
    const listeners = Object.fromEntries(this.getEvents().map((event) => [event, this.getListenerCount(event)]));
    return {
      connected: this.isConnected(),
      reconnectAttempts: this._attempts,
      subscribedChannels: this._channels.size,
      queuedMessages: 0,
      listeners,
    };
  }

  subscribe(channel: SubscriptionChannel): void {
    const key = keyOf(channel);
    const before = this._channels.get(key);
    // Asked again: it may have been refused, and be allowed by now.
    this._channels.set(key, { channel, held: this._socket.subscribe(channel) });
    before?.held.unsubscribe();
    this._leave(key);
    this._begin();
  }
  unsubscribe(channel: SubscriptionChannel): void {
    const key = keyOf(channel);
    const one = this._channels.get(key);
    if (!one) return;
    this._channels.delete(key);
    this._leave(key);
    this._left.set(key, one.held);
    setTimeout(() => this._left.get(key) === one.held && this._leave(key), LINGER);
  }
  subscribeToCreator(creatorId: string): void {
    this.subscribe({ type: 'creator', id: creatorId });
  }
  unsubscribeFromCreator(creatorId: string): void {
    this.unsubscribe({ type: 'creator', id: creatorId });
  }
  subscribeToNotifications(userId: string): void {
    this.subscribe({ type: 'notifications', userId });
  }
  unsubscribeFromNotifications(userId: string): void {
    this.unsubscribe({ type: 'notifications', userId });
  }
  subscribeToFeed(userId: string): void {
    this.subscribe({ type: 'feed', userId });
  }
  unsubscribeFromFeed(userId: string): void {
    this.unsubscribe({ type: 'feed', userId });
  }
  subscribeToPost(postId: string): void {
    this.subscribe({ type: 'post', postId });
  }
  unsubscribeFromPost(postId: string): void {
    this.unsubscribe({ type: 'post', postId });
  }

  private _open(url?: string): FanfareSocket {
    const socket = new FanfareSocket({ url });
    socket.on('*', (frame) => {
      if (frame.type === 'connected') this._attempts = 0;
      if (!this._left.has(frame._meta?.channel)) this.emit(frame.type, frame);
    });
    socket.on('$denied', ({ data }) => this.emit('error', { type: 'error', data }));
    socket.on('$closed', () => {
      this._attempts++;
      this.emit('disconnected');
    });
    socket.on('$status', ({ data }) => data === 'stopped' && this.emit('max_reconnect_reached'));
    return socket;
  }

  /** Connects; until it is known as whom, asks again: the server may be away, or the wallet not there yet. */
  private _try(delay: number): void {
    clearTimeout(this._retry);
    void jwtManager.getToken().then((token) => {
      if (!this._isOn) return;
      this._socket.connect();
      if (!token) this._retry = setTimeout(() => this._try(Math.min(RETRY_MAX, delay * 2)), delay * (0.5 + Math.random() / 2));
    });
  }

  private _leave(key: string): void {
    this._left.get(key)?.unsubscribe();
    this._left.delete(key);
  }

  /** The predecessor connected as soon as it was imported; on a server that renders pages, nothing does. */
  private _begin(): void {
    if (this._isOn === undefined && globalThis.document) this.connect();
  }
}

export const jwtManager = new CompatibleManager();
export const wsService = new CompatibleService();

export const getJWTToken = () => jwtManager.getToken();
export const refreshJWTToken = () => jwtManager.refresh();
export const logoutJWT = () => jwtManager.logout();
export const isJWTAuthenticated = () => jwtManager.isAuthenticated();
export const subscribeToCreator = (creatorId: string) => wsService.subscribeToCreator(creatorId);
export const unsubscribeFromCreator = (creatorId: string) => wsService.unsubscribeFromCreator(creatorId);
export const subscribeToNotifications = (userId: string) => wsService.subscribeToNotifications(userId);
export const unsubscribeFromNotifications = (userId: string) => wsService.unsubscribeFromNotifications(userId);
export const subscribeToFeed = (userId: string) => wsService.subscribeToFeed(userId);
export const unsubscribeFromFeed = (userId: string) => wsService.unsubscribeFromFeed(userId);
export const subscribeToPost = (postId: string) => wsService.subscribeToPost(postId);
export const unsubscribeFromPost = (postId: string) => wsService.unsubscribeFromPost(postId);
