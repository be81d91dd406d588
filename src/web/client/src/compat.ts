// The names that the predecessor's application imports, over this library: its `lib/utils/jwt` and
// `lib/services/websocket`. Change the import, and nothing else.

import { FanfareSocket, JWTManager, type Frame } from './index.js';

export type SubscriptionChannel =
  | { type: 'creator'; id: string }
  | { type: 'notifications'; userId: string }
  | { type: 'feed'; userId: string }
  | { type: 'post'; postId: string };

export type WebSocketEvent = Frame;

/** Where the predecessor's application remembered the wallet that signs in without proof. */
const WALLET = 'fonana_user_wallet';

class CompatibleManager {
  private _jwt = JWTManager.getInstance();

  /** The token; signs in with the remembered wallet if there is none. */
  async getToken(): Promise<string | null> {
    const token = await this._jwt.getToken();
    const wallet = token ? null : remembered();
    return wallet ? this.requestNewToken(wallet) : token;
  }
  async requestNewToken(wallet: string): Promise<string | null> {
    try {
      await this._jwt.signIn(wallet);
      return await this._jwt.getToken();
    } catch (error) {
      console.error('[JWT] Failed to get token:', (error as Error).message);
      return null;
    }
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
}

function remembered(): string | null {
  try {
    return localStorage.getItem(WALLET);
  } catch {
    return null;
  }
}

type Listener = (...args: any[]) => void;

class CompatibleService {
  private _socket = new FanfareSocket();
  private _listeners = new Map<string, Map<Listener, () => void>>();

  connect(url?: string): void {
    if (url && !this.isConnected()) {
      this._socket.disconnect();
      const before = this._listeners;
      this._socket = new FanfareSocket({ url });
      this._listeners = new Map();
      for (const [event, all] of before) for (const listener of all.keys()) this.on(event, listener);
    }
    void jwtManager.getToken().then(() => this._socket.connect());
  }
  disconnect(): void {
    this._socket.disconnect();
  }
  isConnected(): boolean {
    return this._socket.isConnected();
  }
  getWebSocketUrlWithAuth(url?: string): Promise<string | null> {
    return url ? Promise.resolve(url) : this._socket.getWebSocketUrlWithAuth();
  }
  on(event: string, listener: Listener): void {
    const all = this._listeners.get(event) ?? new Map<Listener, () => void>();
    this._listeners.set(event, all);
    if (all.has(listener)) return;
    const end =
      event === 'disconnected'
        ? this._socket.on('$closed', () => listener())
        : this._socket.on(event, (frame) => listener(frame));
    all.set(listener, end);
  }
  off(event: string, listener: Listener): void {
    this._listeners.get(event)?.get(listener)?.();
    this._listeners.get(event)?.delete(listener);
  }
  removeAllListeners(event?: string): void {
    for (const one of event ? [event] : [...this._listeners.keys()]) {
      for (const end of this._listeners.get(one)?.values() ?? []) end();
      this._listeners.delete(one);
    }
  }
  subscribe(channel: SubscriptionChannel): void {
    this._socket.subscribe(channel);
  }
  unsubscribe(channel: SubscriptionChannel): void {
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
