// A connection for places where WebSockets do not pass: events come as server-sent events, commands
// are answered here as far as that goes (follow.ts). From time to time it tries a WebSocket, and is
// that from then on. A file of its own (fanfare-stream.js), loaded where it is needed.

import { request } from './api.js';
import { Follow, Lines } from './follow.js';
import type { Frame } from './types.js';
import { SHUT_KEY, type Ears, type Wire } from './wire.js';

/** For a WebSocket's first word, where other requests get through. */
export const SOCKET_PATIENCE = 5_000;
/** Until a WebSocket is tried again, in this tab and in others. */
export const SHUT = 5 * 60_000;
/** For the stream's first word; later there is a sign of life every 25 seconds. */
const STREAM_PATIENCE = 10_000;
const SILENCE = 60_000;
/** A page that starts wants one channel after the other. */
const JOIN = 20;
/** There is no hurry to hear less. */
const LEAVE = 1_000;

/** A stream in place of a WebSocket to `url`, which `connect` opens; rejected where not even requests pass. */
export async function way(url: string, token: string, connect: (token: string, ears: Ears) => Wire): Promise<(ears: Ears) => Stream> {
  const answer = await request('GET', new URL('api/auth/wallet', url.replace(/^ws/, 'http')), token).catch((error) => {
    if (error.status !== 401) throw error;
  });
  return (ears) => new Stream(url, token, ears, answer?.userId, connect);
}

class Stream implements Pick<Wire, 'send' | 'close'> {
  private _follow = new Follow();
  private _isOver = false;
  /** The WebSocket, once it has said something, and one that has not yet. */
  private _socket?: Wire;
  private _trial?: Wire;
  private _trialEnd: any;
  private _stream?: AbortController;
  private _opening: any;
  private _watch: any;
  /** When the stream is over: how it ended. */
  private _bye?: { code: number; reason: string };
  private _again = () => this._try();

  /** `user`: whose the token is, as the server says; undefined: nobody's. `connect`: opens a WebSocket. */
  constructor(
    private _url: string,
    private _token: string,
    private _ears: Ears,
    private _user: string | undefined,
    private _connect: (token: string, ears: Ears) => Wire,
  ) {
    globalThis.addEventListener?.('online', this._again);
    // Whoever makes this has to know it before it speaks.
    queueMicrotask(() => {
      if (!_user) this._end(1008, 'Unauthorized');
      else if (shutUntil() > Date.now()) this._begin();
      else this._try();
    });
  }

  send(frame: Frame): void {
    if (this._socket) return this._socket.send(frame);
    const { type, id } = frame;
    if (type === 'ping') void this._ping(id);
    else if (type === 'refresh') {
      this._token = frame.token;
      this._tell([{ type: 'refreshed', id, data: {} }]);
      this._reopen(LEAVE);
    } else {
      this._tell(this._follow.ask(frame));
      if (type === 'unsubscribe') this._reopen(LEAVE);
      else this._refresh();
    }
  }

  close(): void {
    this._isOver = true;
    globalThis.removeEventListener?.('online', this._again);
    this._cut();
    clearTimeout(this._trialEnd);
    this._trial?.close();
    this._socket?.close();
  }

  // ---- within

  /** As if it were a WebSocket that has opened. */
  private _begin(): void {
    if (this._isOver) return;
    this._trialEnd = setTimeout(this._again, Math.max(0, shutUntil() - Date.now()));
    this._tell([{ type: 'connected', data: { userId: this._user, transport: 'sse', message: 'Connected by server-sent events' } }]);
  }

  /** Is it a network where WebSockets pass by now? */
  private _try(): void {
    if (this._isOver || this._trial || this._socket) return;
    const isFirst = !this._trialEnd;
    clearTimeout(this._trialEnd);
    const failed = () => {
      clearTimeout(this._trialEnd);
      this._trial = undefined;
      remember(Date.now() + SHUT);
      if (isFirst) this._begin();
      else this._trialEnd = setTimeout(this._again, SHUT);
    };
    const trial: Wire = this._connect(this._token, {
      frame: (frame, isSocket) => {
        if (!this._socket) {
          clearTimeout(this._trialEnd);
          this._cut();
          remember(0);
          this._socket = trial;
        }
        this._ears.frame(frame, isSocket);
      },
      closed: (code, reason) => {
        if (this._socket) this._end(code, reason);
        else failed();
      },
    });
    this._trial = trial;
    this._trialEnd = setTimeout(() => {
      trial.close();
      failed();
    }, SOCKET_PATIENCE);
  }

  private _tell(frames: Frame[]): void {
    for (const frame of frames) queueMicrotask(() => this._isOver || this._socket || this._ears.frame(frame));
  }

  private _end(code: number, reason: string): void {
    if (this._isOver) return;
    this.close();
    this._ears.closed(code, reason);
  }

  /** No more of this stream. */
  private _cut(): void {
    this._stream?.abort();
    clearTimeout(this._opening);
    clearTimeout(this._watch);
    this._opening = undefined;
  }

  /** Opens another stream, if this one is not of what is wanted: nothing more is taken from it. */
  private _refresh(): void {
    if (!this._follow.isStale) return;
    this._stream?.abort();
    this._reopen(JOIN);
  }

  private _reopen(delay: number): void {
    if (this._opening && delay === LEAVE) return;
    clearTimeout(this._opening);
    this._opening = setTimeout(() => {
      this._cut();
      this._follow.isStale = false;
      if (!this._follow.isEmpty) void this._read((this._stream = new AbortController()));
    }, delay);
  }

  private async _read({ signal }: AbortController): Promise<void> {
    const { lastEventId, query } = this._follow;
    const lines = new Lines();
    const decoder = new TextDecoder();
    this._patience(STREAM_PATIENCE);
    try {
      const answer = await this._fetch(`sse?${query}`, signal, { Accept: 'text/event-stream', ...(lastEventId && { 'Last-Event-ID': lastEventId }) });
      if (signal.aborted) return;
      if (answer.status !== 200) return await this._refused(answer);
      const reader = answer.body!.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done || signal.aborted) break;
        this._patience(SILENCE);
        for (const message of lines.feed(decoder.decode(value, { stream: true }))) {
          if (message.type === 'disconnect' && !message._meta) this._bye = message.data;
          for (const frame of this._follow.heard(message)) if (!signal.aborted) this._ears.frame(frame);
        }
        if (!signal.aborted) this._refresh();
      }
    } catch {
      // The network.
    }
    if (!signal.aborted) this._end(this._bye?.code ?? 4000, this._bye?.reason ?? 'the stream has ended');
  }

  private async _refused(answer: Response): Promise<void> {
    const { status } = answer;
    const { code, error } = await answer.json().catch(() => ({}));
    if (this._isOver) return;
    const replies = status === 400 ? this._follow.refuse(code, error) : [];
    if (replies.length) {
      this._tell(replies);
      return this._reopen(JOIN);
    }
    const after = answer.headers.get('Retry-After');
    if (after) this._ears.frame({ type: 'disconnect', data: { code: 4000, reason: error, reconnect: true, retryAfterMs: +after * 1_000 } });
    // Not even this gets through: perhaps the other does.
    if (status !== 401 && !after) remember(0);
    this._end(status === 401 ? 1008 : 4000, error ?? `status ${status}`);
  }

  /** A round trip; and whether the token still holds. */
  private async _ping(id: Frame['id']): Promise<void> {
    const answer = await this._fetch('api/auth/wallet', AbortSignal.timeout(STREAM_PATIENCE)).catch(() => null);
    if (answer?.ok) this._tell([{ type: 'pong', id }]);
    else if (answer?.status === 401 && !this._socket) this._end(1008, 'Unauthorized');
  }

  private _fetch(path: string, signal: AbortSignal, headers = {}): Promise<Response> {
    return fetch(String(new URL(path, this._url.replace(/^ws/, 'http'))), {
      method: 'GET',
      headers: { Authorization: `Bearer ${this._token}`, ...headers },
      cache: 'no-store',
      signal,
    });
  }

  private _patience(delay: number): void {
    clearTimeout(this._watch);
    this._watch = setTimeout(() => this._end(4000, 'no answer'), delay);
  }
}

function shutUntil(): number {
  try {
    return Number(localStorage.getItem(SHUT_KEY));
  } catch {
    return 0;
  }
}

/** Also a tab that comes later knows. */
function remember(until: number): void {
  try {
    localStorage.setItem(SHUT_KEY, String(until));
  } catch {
    // Then it finds out itself.
  }
}
