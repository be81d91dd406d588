// Many WebSockets of one process, over bare TCP: frames are counted, not understood, so that the
// server under test has most of the machine.
import { connect } from "node:net";

const MASK = Buffer.from([0, 0, 0, 0]);

/** A masked text frame of up to 64 KiB. */
function frame(text) {
    const payload = Buffer.from(text);
    const head =
        payload.length < 126
            ? Buffer.from([0x81, 0x80 | payload.length])
            : Buffer.from([0x81, 0x80 | 126, payload.length >> 8, payload.length & 255]);
    return Buffer.concat([head, MASK, payload]);
}

/** Opens a socket and says what the peer wants to hear until it is subscribed; then `counts(frames)`. */
function subscriber(port, peer, number, counts) {
    return new Promise((resolve, reject) => {
        const socket = connect({ port, host: "127.0.0.1", noDelay: true });
        let [upgraded, ready, rest] = [false, false, null];
        socket.on("error", reject);
        socket.on("close", () => reject(new Error(`${peer.name} closed a socket`)));
        socket.on("connect", () =>
            socket.write(
                `GET ${peer.path(number)} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ),
        );
        const becomeReady = () => {
            ready = true;
            resolve(socket);
        };
        socket.on("data", (data) => {
            if (rest) data = Buffer.concat([rest, data]);
            let at = 0;
            if (!upgraded) {
                const end = data.indexOf("\r\n\r\n");
                if (end < 0) return void (rest = data);
                if (!data.subarray(0, 16).includes(" 101 ")) return reject(new Error(data.toString()));
                upgraded = true;
                at = end + 4;
                if (!peer.says) becomeReady();
            }
            let frames = 0;
            while (at + 2 <= data.length) {
                let [length, head] = [data[at + 1], 2];
                if (length === 126) {
                    if (at + 4 > data.length) break;
                    [length, head] = [data.readUInt16BE(at + 2), 4];
                } else if (length === 127) throw new Error("a long frame");
                if (at + head + length > data.length) break;
                if (ready) {
                    // Text that is an event; a ping of the protocol's or of Engine.IO's is not.
                    if (data[at] === 0x81 && length > 64) frames += 1;
                } else {
                    const said = data.toString("utf8", at + head, at + head + length);
                    const answer = peer.says(said);
                    if (answer === true) becomeReady();
                    else if (answer) socket.write(frame(answer));
                }
                at += head + length;
            }
            rest = at < data.length ? data.subarray(at) : null;
            if (frames) counts(frames);
        });
    });
}

/** All subscribers, so many handshakes at a time. */
export async function fleet(port, peer, size, counts) {
    const sockets = [];
    let next = 0;
    const lane = async () => {
        while (next < size) sockets.push(await subscriber(port, peer, next++, counts));
    };
    await Promise.all(Array.from({ length: 50 }, lane));
    return sockets;
}

/** A connection that publishes; `publish()` resolves when it was answered. */
export function publisher(port, peer) {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    const waiting = [];
    let text = "";
    socket.on("data", (data) => {
        text += data.toString("latin1");
        for (;;) {
            const end = text.indexOf("\r\n\r\n");
            if (end < 0) return;
            const head = text.slice(0, end);
            const length = Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0);
            if (text.length < end + 4 + length) return;
            text = text.slice(end + 4 + length);
            const { resolve, reject } = waiting.shift();
            if (/^HTTP\/1.1 20\d/.test(head)) resolve();
            else reject(new Error(head));
        }
    });
    const { path, headers, body } = peer.publication;
    const request =
        `POST ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}Content-Type: application/json\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
    return {
        publish: () =>
            new Promise((resolve, reject) => {
                waiting.push({ resolve, reject });
                socket.write(request);
            }),
        end: () => socket.destroy(),
    };
}
