interface Frame {
	type: string;
	id?: number | string;
	data?: any;
	_meta?: {
		channel: string;
		offset?: number;
		epoch?: string;
	};
	[member: string]: any;
}
export type SubscriptionChannel = {
	type: "creator";
	id: string;
} | {
	type: "notifications";
	userId: string;
} | {
	type: "feed";
	userId: string;
} | {
	type: "post";
	postId: string;
};
export type WebSocketEvent = Frame;
declare class CompatibleManager {
	private _jwt;
	/** The token; signs in with the remembered wallet if there is none. */
	getToken(): Promise<string | null>;
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
}
type Listener = (...args: any[]) => void;
declare class CompatibleService {
	private _socket;
	private _listeners;
	connect(url?: string): void;
	disconnect(): void;
	isConnected(): boolean;
	getWebSocketUrlWithAuth(url?: string): Promise<string | null>;
	on(event: string, listener: Listener): void;
	off(event: string, listener: Listener): void;
	removeAllListeners(event?: string): void;
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
