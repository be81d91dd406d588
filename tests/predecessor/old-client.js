// How the predecessor's application used its socket, as a browser runs it: token in the query of
// /ws, object-form channels, `connected` awaited before anything is sent, handlers by `type`.
'use strict';

class OldSocketClient {
  constructor(url, getToken) {
    this.url = url;
    this.getToken = getToken;
    this.handlers = new Map();
    this.received = [];
  }

  on(type, handler) {
    const known = this.handlers.get(type) ?? [];
    this.handlers.set(type, [...known, handler]);
  }

  async connect() {
    const token = await this.getToken();
    this.socket = new WebSocket(`${this.url}?token=${encodeURIComponent(token)}`);
    this.socket.addEventListener('message', (message) => {
      const event = JSON.parse(message.data);
      this.received.push(event);
      for (const handler of this.handlers.get(event.type) ?? []) handler(event);
    });
    return new Promise((resolve, reject) => {
      this.on('connected', (event) => resolve(event.data));
      this.socket.addEventListener('close', ({ code, reason }) => reject(new Error(`${code} ${reason}`)));
    });
  }

  subscribeToCreator(creatorId) {
    this.send({ type: 'subscribe', channel: { type: 'creator', id: creatorId } });
  }

  subscribeToNotifications(userId) {
    this.send({ type: 'subscribe', channel: { type: 'notifications', userId } });
  }

  subscribeToFeed(userId) {
    this.send({ type: 'subscribe', channel: { type: 'feed', userId } });
  }

  subscribeToPost(postId) {
    this.send({ type: 'subscribe', channel: { type: 'post', postId } });
  }

  unsubscribeFromPost(postId) {
    this.send({ type: 'unsubscribe', channel: { type: 'post', postId } });
  }

  ping() {
    this.send({ type: 'ping' });
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }
}
