// What goes over the wire, as far as the client looks into it.

/** A channel, as an object, or by its key (`post_42`, or `notifications` and `feed` for one's own). */
export type Channel =
  | string
  | { type: 'creator'; id: string }
  | { type: 'notifications' | 'feed'; userId: string }
  | { type: 'post'; postId: string }
  | { type: string; id: string };

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
  _meta?: { channel: string; offset?: number; epoch?: string };
  [member: string]: any;
}

/** A user, as sign-in tells of them. */
export interface User {
  id: string;
  wallet?: string | null;
  nickname?: string | null;
}

/** What is told when a command failed, a channel was refused or a request was. */
export class FanfareError extends Error {
  constructor(
    /** For programs: a code of the server's, or `offline`, `queue_full`, `connection_lost`, `timeout`, `needs_websocket`, `stopped`, .. */
    readonly code: string,
    message?: string,
    /** The HTTP status, if it was a request. */
    readonly status?: number,
  ) {
    super(message ?? code.replace(/_/g, ' '));
    this.name = 'FanfareError';
  }
}

/** The key of a channel; `notifications` and `feed` stay as they are. */
export function keyOf(channel: Channel): string {
  if (typeof channel === 'string') return channel;
  const { type, id, userId, postId } = channel as Record<string, string>;
  return `${type}_${id ?? userId ?? postId}`;
}
