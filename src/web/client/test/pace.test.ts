// A server whose limits.commands_per_second is low.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JWTManager } from '../src/jwt.js';
import { FanfareSocket } from '../src/socket.js';
import { FakeServer } from './server.js';
import { World } from './world.js';

const CHANNELS = 128;

for (const pace of [1, 4, 20]) {
  test(`${CHANNELS} channels at ${pace} commands a second: it takes its time, and is not sent away`, async () => {
    const world = new World(pace);
    world.install();
    const server = new FakeServer(world, 24 * 3_600_000, 10);
    server.pace = pace;
    world.server = server;
    const tab = world.open('tab');
    const socket = world.run(tab, () => {
      const jwt = new (JWTManager as any)();
      jwt.setToken(server.issue('u1').token);
      const socket = new FanfareSocket({ jwt });
      for (let n = 0; n < CHANNELS; n++) socket.subscribe(`post_${n}`);
      socket.on('$status', ({ data }) => assert.notEqual(data, 'stopped'));
      socket.connect();
      return socket;
    });
    const held = () => [...server.sockets.values()][0]!.channels.size;
    await world.pass(500);
    for (let seconds = 0; held() < CHANNELS; seconds++) {
      assert.ok(seconds < (8 * CHANNELS) / pace, `${held()} channels after ${seconds} s`);
      await world.pass(1_000);
    }
    assert.equal(socket.status, 'open');
  });
}
