// What is known of the user's notifications, and how it changes: pure.

import type { Frame } from './types.js';

export interface Notification {
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
  notifications: readonly Notification[];
  unreadCount: number;
  /** Where the older ones go on; null: there are none. */
  nextCursor: string | null;
  isLoading: boolean;
  /** Why the last request failed. */
  error: Error | null;
}

export const EMPTY: InboxState = { notifications: [], unreadCount: 0, nextCursor: null, isLoading: false, error: null };

/** Adds what is not there yet, newest first. */
export function merge(known: readonly Notification[], more: readonly Notification[]): Notification[] {
  const byId = new Map(known.map((one) => [one.id, one]));
  for (const one of more) byId.set(one.id, one);
  // The ids hold the order, within a millisecond, too.
  return [...byId.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
}

export function marked(state: InboxState, id: string | null, isRead: boolean, unreadCount: number): InboxState {
  const notifications = state.notifications.map((one) => (id === null || one.id === id ? { ...one, isRead } : one));
  return { ...state, notifications, unreadCount };
}

/** Without those that are read. */
export function unread(state: InboxState): InboxState {
  return { ...state, notifications: state.notifications.filter((one) => !one.isRead) };
}

/** The state after a live event, the same if it is about something else; null: only the server knows it. */
export function heard(state: InboxState, frame: Frame): InboxState | null {
  const { type, data, unreadCount } = frame;
  switch (type) {
    case 'notification':
      return { ...state, notifications: merge(state.notifications, [frame.notification]), unreadCount };
    case 'notification_read':
      return marked(state, frame.notificationId, frame.isRead ?? true, unreadCount);
    case 'unread_notifications':
      return { ...state, notifications: merge(state.notifications, data.notifications), unreadCount: data.count };
    case 'notifications_cleared':
      return null;
    default:
      return state;
  }
}
