// Fanfare's client: who is signed in, live events, notifications.

export { JWTManager, type JWTOptions } from './jwt.js';
export { FanfareSocket, type Handler, type SocketOptions, type Subscription } from './socket.js';
export { Notifications } from './notifications.js';
export { EMPTY, type InboxState, type Notification } from './inbox.js';
export type { Phase } from './link.js';
export { FanfareError, keyOf, type Channel, type Frame, type Position, type User } from './types.js';
export type { Signer } from './wallet.js';
