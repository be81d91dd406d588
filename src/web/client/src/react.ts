'use client';
// Hooks for React 18 and later. Nothing here but the ends of the library.

import { useEffect, useRef, useSyncExternalStore } from 'react';
import { EMPTY, type Channel, type FanfareSocket, type Frame, type InboxState, type Notifications, type Phase } from './index.js';

/** Components that follow them. */
const followers = new WeakMap<Notifications, number>();

function count(notifications: Notifications, change: number): number {
  const number = (followers.get(notifications) ?? 0) + change;
  followers.set(notifications, number);
  return number;
}

/** The user's notifications, followed while a component uses them. */
export function useNotifications(notifications: Notifications): InboxState {
  useEffect(() => {
    count(notifications, 1);
    notifications.start();
    return () => {
      if (!count(notifications, -1)) notifications.stop();
    };
  }, [notifications]);
  return useSyncExternalStore(
    (listener) => notifications.onChange(listener),
    () => notifications.state,
    () => EMPTY,
  );
}

/** Calls `handler` for every event of the channel while the component is there; null: none. */
export function useChannel(socket: FanfareSocket, channel: Channel | null, handler: (event: Frame) => void): void {
  const latest = useRef(handler);
  useEffect(() => {
    latest.current = handler;
  });
  const key = channel && JSON.stringify(channel);
  useEffect(() => {
    if (!key) return;
    const subscription = socket.subscribe(JSON.parse(key), (event) => latest.current(event));
    return () => subscription.unsubscribe();
  }, [socket, key]);
}

/** The state of the connection. */
export function useStatus(socket: FanfareSocket): Phase {
  return useSyncExternalStore(
    (listener) => socket.on('$status', listener),
    () => socket.status,
    () => 'idle' as const,
  );
}
