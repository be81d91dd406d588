import { type Channel, type FanfareSocket, type Frame, type InboxState, type Notifications, type Phase } from './fanfare.js';
/** The user's notifications, followed while a component uses them. */
export declare function useNotifications(notifications: Notifications): InboxState;
/** Calls `handler` for every event of the channel while the component is there; null: none. */
export declare function useChannel(socket: FanfareSocket, channel: Channel | null, handler: (event: Frame) => void): void;
/** The state of the connection. */
export declare function useStatus(socket: FanfareSocket): Phase;
