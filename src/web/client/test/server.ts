// What the client may expect of the server, as the contract says it, in a few lines.

import type { FakeSocket, FakeStream, Tab, World } from './world.js';

/** What a client is connected by. */
export type Connection = FakeSocket | FakeStream;

interface Channel {
  offset: number;
  events: { offset: number; event: any }[];
}

interface Session {
  user: string;
  channels: Map<string, number>;
  expires: number;
  /** Commands that it may send at `at`, and those refused since one was not. */
  allowed: number;
  at: number;
  refused: number;
}

const b64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

export class FakeServer {
  epoch = 'e1';
  isDown = false;
  /** What a proxy does to WebSockets. */
  shut: 'no' | 'refused' | 'swallowed' = 'no';
  sockets = new Map<Connection, Session>();
  channels = new Map<string, Channel>();
  /** Refresh tokens: what they gave, and to whom. */
  refreshTokens = new Map<string, { user: string; answer?: any; by?: Tab }>();
  revoked = new Set<string>();
  reuses = 0;
  refreshes = 0;
  inBand = 0;
  streams = 0;
  /** `limits.commands_per_second`. */
  pace = Infinity;
  /** `auth.wallet_proof`, and how often a wallet came. */
  wantsProof = false;
  signIns = 0;
  /** What clients have published or asked for, and as whom. */
  said: { user: string; event: any }[] = [];
  private issued = 0;

  constructor(
    private world: World,
    readonly tokenLife: number,
    private history: number,
  ) {}

  issue(user: string): any {
    const n = ++this.issued;
    const now = Math.floor(this.world.now / 1_000);
    const token = `${b64({ alg: 'HS256' })}.${b64({ userId: user, jti: `j${n}`, iat: now, exp: now + this.tokenLife / 1_000 })}.x`;
    const refreshToken = `r${n}`;
    this.refreshTokens.set(refreshToken, { user });
    return { token, refreshToken, user: { id: user, wallet: `w-${user}`, nickname: null } };
  }

  fetch(method: string, path: string, token: string | null, body: any): { status: number; body: any } | null {
    if (this.isDown) return null;
    if (path === '/api/auth/wallet' && method === 'POST') {
      this.signIns++;
      if (this.wantsProof) return { status: 401, body: { error: 'Wallet signature required', code: 'signature_required' } };
      return { status: 200, body: this.issue(body.wallet.slice(2)) };
    }
    if (path === '/api/user/notifications') {
      if (!token) return { status: 401, body: { error: 'Authentication required', code: 'unauthorized' } };
      const { userId, exp, jti } = this.claims(token);
      if (exp * 1_000 <= this.world.now || this.revoked.has(jti)) return { status: 401, body: { error: 'Token expired', code: 'token_expired' } };
      if (method === 'PATCH') this.said.push({ user: userId, event: { n: Number(body.notificationId) } });
      return { status: 200, body: { notifications: [], unreadCount: 0, nextCursor: null } };
    }
    if (path === '/api/auth/wallet') {
      const { userId, exp } = this.claims(token!);
      return exp * 1_000 > this.world.now ? { status: 200, body: { valid: true, userId } } : { status: 401, body: { error: 'Token expired', code: 'token_expired' } };
    }
    if (path === '/api/auth/logout') return { status: 200, body: { success: true } };
    if (path === '/api/auth/refresh') {
      const known = this.refreshTokens.get(body.refreshToken);
      if (!known) return { status: 401, body: { error: 'Invalid refresh token', code: 'invalid_refresh_token' } };
      this.refreshes++;
      // A tab that died had asked, and nobody knows the answer: the next gets the same successor again (auth.refresh_grace).
      if (known.answer && !known.by!.isDead && !this.world.asking.isDead) this.reuses++;
      known.by = this.world.asking;
      return { status: 200, body: (known.answer ??= this.issue(known.user)) };
    }
    return { status: 404, body: { error: 'Not found', code: 'not_found' } };
  }

  private claims(token: string): any {
    return JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString());
  }

  connect(socket: FakeSocket, token: string): void {
    if (this.shut === 'swallowed') return;
    if (this.isDown || this.shut === 'refused') return socket.end(1006, '', true);
    socket.accept();
    const { userId, exp, jti } = this.claims(token);
    if (exp * 1_000 <= this.world.now || this.revoked.has(jti)) {
      socket.push({ type: 'disconnect', data: { code: 1008, reason: 'Unauthorized', reconnect: false, retryAfterMs: 0 } });
      return socket.end(1008, 'Unauthorized', false);
    }
    this.greet(socket, userId, exp * 1_000);
  }

  stream(stream: FakeStream, token: string | null, channels: string[], lastEventId: string): number {
    if (this.isDown) return 0;
    const { userId, exp, jti } = this.claims(token!);
    if (exp * 1_000 <= this.world.now || this.revoked.has(jti)) return 401;
    this.streams++;
    stream.accept();
    this.greet(stream, userId, exp * 1_000);
    const positions = new Map(
      lastEventId.split(',').map((entry) => {
        const [key, epoch, offset] = entry.split(/[@:]/);
        return [decodeURIComponent(key!), { epoch, offset: Number(offset) }];
      }),
    );
    for (const channel of channels) this.receive(stream, { type: 'subscribe', channel, recover: positions.get(channel) });
    return 200;
  }

  private greet(socket: Connection, userId: string, expires: number): void {
    const session = { user: userId, channels: new Map(), expires, allowed: 5 * this.pace, at: this.world.now, refused: 0 };
    this.sockets.set(socket, session);
    socket.push({ type: 'connected', data: { userId, connectionId: `c${Math.random()}`, node: 'n', expiresAt: new Date(session.expires).toISOString() } });
    this.expire(socket);
    this.warn(socket);
  }

  /** A minute before the end, and for short tokens that is always. */
  private warn(socket: Connection): void {
    const session = this.sockets.get(socket)!;
    this.world.after(session.expires - 60_000 - this.world.now, () => {
      if (this.sockets.get(socket) === session && session.expires - 60_000 <= this.world.now) socket.push({ type: 'token_expiring', data: {} });
    }, this.world.outside);
  }

  private expire(socket: Connection): void {
    const session = this.sockets.get(socket)!;
    this.world.after(session.expires - this.world.now, () => {
      if (this.sockets.get(socket) !== session) return;
      if (session.expires > this.world.now) this.expire(socket);
      else this.close(socket, 4101, 'token expired', true, 0);
    }, this.world.outside);
  }

  close(socket: Connection, code: number, reason: string, reconnect: boolean, retryAfterMs: number): void {
    if (!this.sockets.delete(socket)) return;
    socket.push({ type: 'disconnect', data: { code, reason, reconnect, retryAfterMs } });
    socket.end(code, reason, false);
  }

  cut(socket: Connection): void {
    if (this.sockets.delete(socket)) socket.end(1006, '', true);
  }

  gone(socket: Connection): void {
    this.sockets.delete(socket);
    socket.isAccepted = false;
  }

  private channel(key: string): Channel {
    let channel = this.channels.get(key);
    if (!channel) this.channels.set(key, (channel = { offset: 0, events: [] }));
    return channel;
  }

  publish(key: string, event: any): number {
    const channel = this.channel(key);
    const offset = ++channel.offset;
    channel.events.push({ offset, event });
    if (channel.events.length > this.history) channel.events.shift();
    for (const [socket, session] of this.sockets) {
      if (!session.channels.has(key)) continue;
      session.channels.set(key, offset);
      socket.push(this.frame(key, offset, event));
    }
    return offset;
  }

  private frame(key: string, offset: number, event: any) {
    return { _meta: { channel: key, offset, epoch: this.epoch }, ...event };
  }

  private allows(session: Session): boolean {
    if (this.pace === Infinity) return true;
    const { now } = this.world;
    session.allowed = Math.min(5 * this.pace, session.allowed + ((now - session.at) / 1_000) * this.pace);
    session.at = now;
    const isAllowed = session.allowed >= 1;
    if (isAllowed) session.allowed--;
    session.refused = isAllowed ? 0 : session.refused + 1;
    return isAllowed;
  }

  receive(socket: Connection, frame: any): void {
    const session = this.sockets.get(socket);
    if (!session) return;
    const { type, id, channel: key } = frame;
    const reply = (type: string, data?: any) => socket.push({ type, id, data });
    if (!this.allows(session)) {
      if (session.refused >= 100) return this.close(socket, 4303, 'too many errors', false, 0);
      return reply('error', { message: 'Rate limit exceeded', code: 'rate_limited' });
    }
    if (type === 'ping') reply('pong');
    else if (type === 'refresh') {
      const { userId, exp } = this.claims(frame.token);
      if (userId !== session.user) return reply('error', { message: 'Invalid token', code: 'invalid_token' });
      this.inBand++;
      session.expires = exp * 1_000;
      reply('refreshed', { expiresAt: '' });
      this.warn(socket);
    } else if (type === 'unsubscribe') {
      session.channels.delete(key);
      reply('unsubscribed', { channel: key, channelKey: key });
    } else if (type === 'publish') {
      this.said.push({ user: session.user, event: frame.event });
      reply('published', { channelKey: key, epoch: this.epoch, offset: this.publish(key, frame.event) });
    } else if (type === 'subscribe') {
      if (key.startsWith('secret_')) return reply('error', { message: 'Access denied to channel', channel: key, code: 'access_denied' });
      const { offset, events } = this.channel(key);
      const { recover } = frame;
      if (!recover) {
        if (!session.channels.has(key)) session.channels.set(key, offset);
        return reply('subscribed', { channel: key, channelKey: key, epoch: this.epoch, offset: session.channels.get(key) });
      }
      const oldest = events[0]?.offset ?? offset + 1;
      const reason =
        recover.epoch !== this.epoch || recover.offset > offset ? 'epoch_changed' : recover.offset + 1 < oldest ? 'too_far' : undefined;
      session.channels.set(key, offset);
      reply('subscribed', { channel: key, channelKey: key, epoch: this.epoch, offset, recovered: !reason, reason });
      if (!reason) for (const one of events) if (one.offset > recover.offset) socket.push(this.frame(key, one.offset, one.event));
    } else reply('error', { message: 'Unknown message type', code: 'unknown_type' });
  }
}
