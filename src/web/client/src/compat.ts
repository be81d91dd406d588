// The names that the predecessor's application imports, over this library: its `lib/utils/jwt` and
// `lib/services/websocket`. Change the import, and nothing else: who is signed in stays so, also where
// the server wants wallets to sign, and the socket opens by itself.

import { FanfareSocket, JWTManager, keyOf, type FanfareError, type Frame, type Subscription } from './index.js';

export type SubscriptionChannel =
  | { type: 'creator'; id: string }
  | { type: 'notifications'; userId: string }
  | { type: 'feed'; userId: string }
  | { type: 'post'; postId: string };

export type WebSocketEvent = Frame;

/** Where the predecessor's application remembered the wallet that signs in. */
const WALLET = 'fonana_user_wallet';
/** Where its token manager kept the token: whoever was signed in stays so. */
const TOKEN = 'fonana_jwt_token';

class CompatibleManager {
  private _jwt = JWTManager.getInstance();
  private _asking?: Promise<string | null>;
  /** Whether the server wants wallets to sign, as it has said: a bare address would be one more failure there. */
  private _wantsProof = false;
  /** The wallet whose owner did not want to sign: not asked again in this page. */
  private _declined?: string;

  /** The token; signs in with the remembered wallet if there is none. */
  async getToken(): Promise<string | null> {
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
    item(TOKEN, true);
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
      if (!(await this._adopt(wallet)) && !(await this._name(wallet))) await this._prove(wallet);
      return await this._jwt.getToken();
    } catch (error) {
      console.error('[JWT] Failed to get token:', (error as Error).message);
      return null;
    }
  }

  /** Goes on with the token that the predecessor's manager has left, if the server takes it. */
  private async _adopt(wallet: string): Promise<boolean> {
    const text = item(TOKEN);
    if (!text) return false;
    let left;
    try {
      left = JSON.parse(text);
    } catch {
      // None of theirs.
    }
    const isGood = left?.wallet === wallet && (await this._jwt.verify(left.token));
    if (isGood) this._jwt.setToken(left.token);
    item(TOKEN, true);
    return isGood;
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
function item(key: string, isOver = false): string | null {
  try {
    if (isOver) localStorage.removeItem(key);
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

type Listener = (...args: any[]) => void;

class CompatibleService {
  private _socket = this._open();
  private _listeners = new Map<string, Listener[]>();
  private _channels = new Map<string, { channel: SubscriptionChannel; held: Subscription }>();
  private _attempts = 0;
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
    void jwtManager.getToken().then(() => this._isOn && this._socket.connect());
  }
  disconnect(): void {
    this._isOn = false;
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
    this._begin();
  }
  unsubscribe(channel: SubscriptionChannel): void {
    this._channels.delete(keyOf(channel));
    this._socket.unsubscribe(channel);
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
      this.emit(frame.type, frame);
    });
    socket.on('$closed', () => {
      this._attempts++;
      this.emit('disconnected');
    });
    socket.on('$status', ({ data }) => data === 'stopped' && this.emit('max_reconnect_reached'));
    return socket;
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
