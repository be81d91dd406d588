/** A channel, as an object, or by its key (`post_42`, or `notifications` and `feed` for one's own). */
export type Channel = string | {
	type: "creator";
	id: string;
} | {
	type: "notifications" | "feed";
	userId: string;
} | {
	type: "post";
	postId: string;
} | {
	type: string;
	id: string;
};
/** Where a channel that keeps history stands. */
export interface Position {
	epoch: string;
	offset: number;
}
/** Any message; events have the members that were published. */
export interface Frame {
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
/** A user, as sign-in tells of them. */
export interface User {
	id: string;
	wallet?: string | null;
	nickname?: string | null;
}
/** What is told when a command failed, a channel was refused or a request was. */
export declare class FanfareError extends Error {
	/** For programs: a code of the server's, or `offline`, `queue_full`, `connection_lost`, `timeout`, `needs_websocket`, `stopped`, .. */
	readonly code: string;
	/** The HTTP status, if it was a request. */
	readonly status?: number | undefined;
	constructor(
	/** For programs: a code of the server's, or `offline`, `queue_full`, `connection_lost`, `timeout`, `needs_websocket`, `stopped`, .. */
	code: string, message?: string, 
	/** The HTTP status, if it was a request. */
	status?: number | undefined);
}
/** The key of a channel; `notifications` and `feed` stay as they are. */
export declare function keyOf(channel: Channel): string;
/** An address, and a way to sign with its key: one of the two. */
export interface Signer {
	address: string;
	/** The signature's 64 bytes, or them as base58 or base64. */
	signMessage?(message: Uint8Array): Promise<Uint8Array | string>;
	/** `solana:signIn` of the wallet standard, or `signIn` of a wallet adapter; where it is there, it is used. */
	signIn?(input: any): Promise<{
		signedMessage: Uint8Array;
		signature: Uint8Array;
	}>;
}
/** For `JWTManager.getInstance` and `configure`. */
export interface JWTOptions {
	/** Where Fanfare is, such as `https://rt.example`; by default the page's own origin. */
	baseUrl?: string;
	/** The application's own way to get a token, in place of sign-in and refresh tokens; null: nobody is signed in. */
	getToken?: () => Promise<string | null>;
}
export declare class JWTManager {
	private static _instance?;
	/** The only one there is. */
	static getInstance(options?: JWTOptions): JWTManager;
	private _options;
	private _core;
	private _run;
	private _listeners;
	private _waiting;
	private _unlock?;
	/** The application is asked; whether it ever answered. */
	private _asking?;
	private _isAsked;
	/** What localStorage does not take. */
	private _memory;
	private constructor();
	configure(options: JWTOptions): this;
	get baseUrl(): string;
	/** Who is signed in. */
	get user(): User | null;
	/** When the token ends, in milliseconds of this browser's clock. */
	get expiresAt(): number | null;
	isAuthenticated(): boolean;
	/** The token, renewed before if it has ended; null if nobody is signed in or it cannot be renewed now. */
	getToken(): Promise<string | null>;
	/** Gets a new token, unless there is another than `old` already. Never two at a time, whatever the number of tabs. */
	refresh(old?: string): Promise<boolean>;
	/** Renews the token at once if its time has come and only an earlier failure is waited for. */
	hurry(): void;
	/**
	 * Signs in: with the page's wallet, with a signer of the application's, or with a bare address
	 * where the server asks for no proof.
	 */
	signIn(who?: Signer | string): Promise<User>;
	/** Goes on with a token that the application has got itself. */
	setToken(token: string, refreshToken?: string): void;
	/** Whether the server takes the token. */
	verify(token?: string | undefined): Promise<boolean>;
	/** Signs out here at once; the server, if it can be reached, is told, and revokes the tokens and closes their sockets. */
	logout(): Promise<void>;
	/** Signs out without telling the server; with a token, only if it is still that one. */
	forget(token?: string): void;
	/** Calls back when there is another token, or none; `anew`: somebody has signed in or out. */
	onChange(listener: (user: User | null, anew: boolean) => void): () => void;
	private _post;
	/**
	 * `from`: before it was asked for; the answer may have waited long for a page that slept. How old a
	 * token is that nobody asked for here cannot be told but by the two clocks.
	 */
	private _session;
	/** The application's token: asked for once at a time, and not waited for for ever. */
	private _ask;
	private _fetch;
	private get _key();
	/** At what is stored. */
	private _look;
	private _read;
	private _write;
}
/**
 * `idle`: not asked to connect, or nobody is signed in. `stopped`: the server wants no more of
 * this client, until `connect` is called or somebody signs in anew.
 */
export type Phase = "idle" | "waiting" | "opening" | "open" | "stopped";
/** For `new FanfareSocket`. */
export interface SocketOptions {
	/** The socket's address; by default `/ws` where the sessions come from. */
	url?: string;
	/** Where tokens come from. */
	jwt?: JWTManager;
	/** One socket for all tabs; true by default. */
	shared?: boolean;
}
export type Handler = (frame: any) => void;
/** A wanted channel. */
export interface Subscription {
	/** When the server has agreed, with its `subscribed`; rejected if it refuses. */
	ready: Promise<Frame>;
	/** Ends it; the channel is left when nobody else in this page wants it. */
	unsubscribe(): void;
}
export declare class FanfareSocket {
	private _options;
	private _link;
	private _run;
	private _tabs;
	private _jwt;
	private _handlers;
	private _channels;
	private _commands;
	private _last;
	private _opening;
	/** The token that the connection has. */
	private _used?;
	private _off?;
	constructor(_options?: SocketOptions);
	/** `idle`, `waiting` (for the next attempt), `opening`, `open` or `stopped` (the server wants no more of this client). */
	get status(): Phase;
	isConnected(): boolean;
	/** Whether this tab holds the socket. */
	get isLeader(): boolean;
	/** Connects, and stays connected until `disconnect`; needs somebody signed in, and waits for that. */
	connect(): void;
	disconnect(): void;
	/** The address with the token in its query; null if nobody is signed in. */
	getWebSocketUrlWithAuth(): Promise<string | null>;
	/** The channel's events go to `handler`, and to those of `on`. */
	subscribe(channel: Channel, handler?: Handler): Subscription;
	/** Leaves a channel, whoever in this page wanted it. */
	unsubscribe(channel: Channel): void;
	/** Publishes where the channel's rule lets clients do so. Not repeated when the connection is lost before the reply. */
	publish(channel: Channel, event: {
		type: string;
		[member: string]: any;
	}): Promise<any>;
	/** Who is in a channel. */
	presence(channel: Channel): Promise<{
		users: string[];
		count: number;
		channelKey: string;
	}>;
	/** Events of the past, oldest first. */
	history(channel: Channel, options?: {
		limit?: number;
		before?: number;
	}): Promise<{
		events: Frame[];
		epoch: string;
		channelKey: string;
	}>;
	/** The time to the server and back, in milliseconds. */
	ping(): Promise<number>;
	/**
	 * Calls back for every event or message of this type (`*`: of any), and for what this client
	 * tells of itself: `$status`, `$recovered`, `$denied`, `$closed`, each with `data`.
	 */
	on(type: string, handler: Handler): () => void;
	off(type: string, handler: Handler): void;
	private _url;
	private _open;
	/** How to connect: by a WebSocket, unless those do not pass where requests do. */
	private _way;
	/** What the reply to a command about a channel says. */
	private _about;
	private _command;
	private _promise;
	private _emit;
}
interface Notification$1 {
	id: string;
	userId: string;
	type: string;
	title: string;
	message: string;
	isRead: boolean;
	metadata: any;
	createdAt: string;
}
/** Never changed in place: another state is another object. */
export interface InboxState {
	/** Newest first, as far as they were loaded. */
	notifications: readonly Notification$1[];
	unreadCount: number;
	/** Where the older ones go on; null: there are none. */
	nextCursor: string | null;
	isLoading: boolean;
	/** Why the last request failed. */
	error: Error | null;
}
export declare const EMPTY: InboxState;
export declare class Notifications {
	private _socket;
	private _jwt;
	private _state;
	private _listeners;
	private _ends;
	private _subscription?;
	/** The load that is under way, and whether something was heard meanwhile. */
	private _loading?;
	private _isStale;
	/** How much was heard. */
	private _heard;
	/** Counts users: what was asked for an earlier one is not taken. */
	private _era;
	constructor(_socket: FanfareSocket, _jwt?: JWTManager);
	/** What is known now. */
	get state(): InboxState;
	/** Calls back when `state` is another one. */
	onChange(listener: () => void): () => void;
	/** Follows the user's notifications and loads the newest. */
	start(): void;
	stop(): void;
	/** Loads what is shown anew. */
	reload(): Promise<void>;
	/** Loads older ones. */
	more(): Promise<void>;
	markRead(id: string, isRead?: boolean): Promise<void>;
	markAllRead(): Promise<void>;
	remove(id: string): Promise<void>;
	/** Deletes those that are read. */
	clear(): Promise<void>;
	private _set;
	private _hear;
	/** Until nothing was heard while it was asked: an answer may be older than an event. */
	private _load;
	/** Asks for a change. If something was heard meanwhile, the answer may be older: this change is, or will be, heard of, too. */
	private _change;
	/** The answer, unless somebody else has signed in meanwhile. */
	private _ask;
}

export {
	Notification$1 as Notification,
};

export {};
