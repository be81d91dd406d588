import { type Frame } from './fanfare.js';
export type SubscriptionChannel = {
    type: 'creator';
    id: string;
} | {
    type: 'notifications';
    userId: string;
} | {
    type: 'feed';
    userId: string;
} | {
    type: 'post';
    postId: string;
};
export type WebSocketEvent = Frame;
declare class CompatibleManager {
    private _jwt;
    private _asking?;
    /** Until the server has said what it thinks of a token that was found. */
    private _proving?;
    /** Why there was no token the last time. */
    private _trouble?;
    /** Whether the server wants wallets to sign, as it has said: a bare address would be one more failure there. */
    private _wantsProof;
    /** The wallet whose owner did not want to sign: not asked again in this page. */
    private _declined?;
    constructor();
    /** The token; signs in with the remembered wallet if there is none. */
    getToken(): Promise<string | null>;
    /** Signs in; where the server wants a signature, the page's wallet is asked for it, once. */
    requestNewToken(wallet: string): Promise<string | null>;
    refresh(): Promise<boolean>;
    verifyToken(token?: string): Promise<boolean>;
    logout(): void;
    isAuthenticated(): boolean;
    getCurrentUserId(): string | null;
    getCurrentWallet(): string | null;
    getStats(): {
        userId: string | null;
        wallet: string | null;
        expiresAt: number;
        isAuthenticated: boolean;
    };
    private _signIn;
    /**
     * Goes on with a token that the predecessor's manager has left, or that the application has got
     * for another wallet since; whether it holds is asked meanwhile.
     */
    private _adopt;
    /** Lets the application see the token where it looks. */
    private _mirror;
    /** Signs in with the bare address, unless the server wants more. */
    private _name;
    private _prove;
}
type Listener = (...args: any[]) => void;
declare class CompatibleService {
    private _socket;
    private _listeners;
    private _channels;
    /** Those that were left just now. */
    private _left;
    private _attempts;
    private _retry?;
    /** What was said last, by `connect` or `disconnect`; undefined: nothing yet. */
    private _isOn?;
    /** Not needed: it connects by itself when it is first used. */
    connect(url?: string): void;
    disconnect(): void;
    isConnected(): boolean;
    getWebSocketUrlWithAuth(url?: string): Promise<string | null>;
    /** Events by their type, and `connected`, `disconnected`, `max_reconnect_reached` (the server wants no more of this client). */
    on(event: string, listener: Listener): void;
    off(event: string, listener: Listener): void;
    emit(event: string, ...args: any[]): void;
    removeAllListeners(event?: string): void;
    getListenerCount(event?: string): number;
    getEvents(): string[];
    getStats(): {
        connected: boolean;
        reconnectAttempts: number;
        subscribedChannels: number;
        queuedMessages: number;
        listeners: {
            [k: string]: number;
        };
    };
    subscribe(channel: SubscriptionChannel): void;
    unsubscribe(channel: SubscriptionChannel): void;
    subscribeToCreator(creatorId: string): void;
    unsubscribeFromCreator(creatorId: string): void;
    subscribeToNotifications(userId: string): void;
    unsubscribeFromNotifications(userId: string): void;
    subscribeToFeed(userId: string): void;
    unsubscribeFromFeed(userId: string): void;
    subscribeToPost(postId: string): void;
    unsubscribeFromPost(postId: string): void;
    private _open;
    /** Connects; until it is known as whom, asks again: the server may be away, or the wallet not there yet. */
    private _try;
    private _leave;
    /** The predecessor connected as soon as it was imported; on a server that renders pages, nothing does. */
    private _begin;
}
export declare const jwtManager: CompatibleManager;
export declare const wsService: CompatibleService;
export declare const getJWTToken: () => Promise<string | null>;
export declare const refreshJWTToken: () => Promise<boolean>;
export declare const logoutJWT: () => void;
export declare const isJWTAuthenticated: () => boolean;
export declare const subscribeToCreator: (creatorId: string) => void;
export declare const unsubscribeFromCreator: (creatorId: string) => void;
export declare const subscribeToNotifications: (userId: string) => void;
export declare const unsubscribeFromNotifications: (userId: string) => void;
export declare const subscribeToFeed: (userId: string) => void;
export declare const unsubscribeFromFeed: (userId: string) => void;
export declare const subscribeToPost: (postId: string) => void;
export declare const unsubscribeFromPost: (postId: string) => void;
export {};
