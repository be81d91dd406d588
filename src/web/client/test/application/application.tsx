// What an application writes that has the package: not run, but passed by the compiler against the types in
// dist/, by the package's own name.

import { EMPTY, FanfareError, FanfareSocket, JWTManager, Notifications, keyOf, type Channel, type Frame, type InboxState, type Phase, type Signer, type User } from 'fanfare-client';
import { getJWTToken, jwtManager, subscribeToPost, wsService, type SubscriptionChannel, type WebSocketEvent } from 'fanfare-client/compat';
import { useChannel, useNotifications, useStatus } from 'fanfare-client/react';
import { findWallet } from 'fanfare-client/wallet';
import { useState } from 'react';

const jwt: JWTManager = JWTManager.getInstance({ baseUrl: 'https://rt.example' });
const socket = new FanfareSocket({ jwt });
const inbox = new Notifications(socket, jwt);

export function Inbox({ channel }: { channel: Channel | null }) {
  const { notifications, unreadCount }: InboxState = useNotifications(inbox);
  const status: Phase = useStatus(socket);
  const [last, hear] = useState<Frame>();
  useChannel(socket, channel, hear);
  return (
    <ul title={`${status} ${unreadCount} ${last?.type}`}>
      {notifications.map((one) => (
        <li key={one.id} onClick={() => void inbox.markRead(one.id)}>
          {one.title}
        </li>
      ))}
    </ul>
  );
}

export async function signIn(): Promise<User> {
  const found: Signer = await findWallet();
  const user = await jwt.signIn(found);
  socket.connect();
  const post = socket.subscribe({ type: 'post', postId: '42' }, ({ type, _meta }: Frame) => console.log(type, _meta?.offset));
  try {
    await post.ready;
    const { events } = await socket.history(keyOf({ type: 'post', postId: '42' }), { limit: 10 });
    console.log(events.length, (await socket.presence('post_42')).count, EMPTY.unreadCount);
  } catch (error) {
    if (error instanceof FanfareError) console.log(error.code, error.status);
  }
  return user;
}

/** With the predecessor's names. */
export async function asBefore(): Promise<string | null> {
  const channel: SubscriptionChannel = { type: 'creator', id: '7' };
  const hear = (event: WebSocketEvent) => event.type === 'notification_read' && console.log(event.userId, event.notificationId);
  wsService.on('notification_read', hear);
  wsService.subscribe(channel);
  subscribeToPost('42');
  wsService.off('notification_read', hear);
  const { userId, expiresAt } = jwtManager.getStats();
  console.log(userId, new Date(expiresAt), wsService.getStats().listeners);
  return getJWTToken();
}

// @ts-expect-error a channel has a type
socket.subscribe({ id: '42' });
// @ts-expect-error only what there is
jwt.signUp();
