// One connection to the server, from opening to its end.

import type { Frame } from './types.js';

export interface Ears {
  /** `isSocket`: it came over a WebSocket, so that those pass. */
  frame(frame: Frame, isSocket?: boolean): void;
  /** Once, unless `close` was called before. */
  closed(code: number, reason: string): void;
}

/** In localStorage: until when it is known that WebSockets do not pass here. */
export const SHUT_KEY = 'fanfare-shut';

export class Wire {
  private _socket: WebSocket;

  constructor(url: string, token: string, ears: Ears) {
    // Not in the address: proxies write that into their logs.
    const socket = (this._socket = new WebSocket(url, ['fanfare', `bearer.${token}`]));
    socket.onmessage = ({ data }) => {
      let frame;
      try {
        frame = JSON.parse(data);
      } catch {
        return;
      }
      ears.frame(frame, true);
    };
    socket.onclose = ({ code, reason }) => ears.closed(code, reason);
  }

  send(frame: Frame): void {
    if (this._socket.readyState === 1) this._socket.send(JSON.stringify(frame));
  }

  close(): void {
    this._socket.onmessage = this._socket.onclose = null;
    this._socket.close(1000);
  }
}
