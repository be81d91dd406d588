// The server under test: the real binary, on free loopback ports, in folders of its own.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const START_PATIENCE_MS = 20_000;
const repository = fileURLToPath(new URL('../..', import.meta.url));
/** Cargo's output folder, absolute. */
export const target = path.resolve(repository, process.env.CARGO_TARGET_DIR ?? 'target');
const binary = process.env.FANFARE_TEST_BINARY ?? path.join(target, 'debug', 'fanfare');

export const API_KEY = 'an-api-key-for-tests-alone';

/**
 * Starts `fanfare` with these arguments and environment variables, and nothing inherited that it
 * would read; resolves when it is ready. `ca` is who signed its certificate, if it speaks TLS.
 */
export async function startServer({ args = [], env = {}, ca } = {}) {
  const home = await mkdtemp(path.join(tmpdir(), 'fanfare-'));
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(FANFARE_.*|NEXTAUTH_SECRET|WS_PORT|METRICS_PORT|REDIS_URL|RUST_LOG)$/.test(name),
  );
  let output = '';
  let stdout = '';
  let child;
  let failure;
  let ended;
  const run = (args) => {
    child = spawn(binary, args, {
      cwd: home,
      // What it leaves in TMPDIR when it is killed goes with its home.
      env: { ...Object.fromEntries(inherited), TMPDIR: home, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.on('data', (data) => {
      output += data;
      stdout += data;
    });
    child.stderr.on('data', (data) => (output += data));
    child.on('error', (error) => (failure = error));
    ended = new Promise((resolve) => child.on('close', resolve));
  };

  const server = {
    home,
    url: '',
    metricsUrl: '',
    ca,
    output: () => output,
    stdout: () => stdout,
    signal: (name) => child.kill(name),
    /** kill -9, and gone. */
    async kill() {
      child.kill('SIGKILL');
      if (!failure) await ended;
    },
    /** Starts it again after a kill: the same address, the same data. */
    async restart() {
      const at = { 'server.listen': server.url, 'metrics.listen': server.metricsUrl };
      const same = Object.entries(at).flatMap(([key, url]) => ['--set', `${key}=${new URL(url).host}`]);
      run([...args, ...same]);
      await ready();
    },
    /** Kills it if it still runs and removes its folders; throws if it panicked. */
    async stop() {
      await server.kill();
      await rm(home, { recursive: true, force: true });
      if (output.includes('panicked at')) throw new Error(`the server panicked:\n${output}`);
    },
  };
  const ready = () =>
    until('the server is ready', START_PATIENCE_MS, async () => {
      if (failure) throw failure;
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
      server.url ||= /^listening on (https?:\/\/\S+)$/m.exec(stdout)?.[1] ?? '';
      server.metricsUrl ||= /^metrics on (http:\/\/\S+)$/m.exec(stdout)?.[1] ?? '';
      if (!server.url || !server.metricsUrl) return false;
      const answer = await ask(server, 'GET', '/ready').catch(() => null);
      return answer?.status === 200;
    });
  try {
    run(args);
    await ready();
  } catch (error) {
    await server.stop().catch(() => {});
    throw new Error(`${error.message}\n--- the server said:\n${output}---`);
  }
  return server;
}

/** Starts the server as on a laptop: `--dev`, an API key, free ports, and these settings. */
export function startDevServer(...settings) {
  return startServer({
    args: [
      'serve',
      '--dev',
      '--set', 'server.listen=127.0.0.1:0',
      '--set', 'metrics.listen=127.0.0.1:0',
      '--set', 'limits.sign_in_per_minute=1000',
      ...settings.flatMap((setting) => ['--set', setting]),
    ],
    env: { FANFARE_AUTH__API_KEYS: API_KEY },
  });
}

/** A request as the application's backend makes it; the answer's JSON. */
export async function asBackend(server, method, where, body, headers = {}) {
  const { status, text } = await ask(server, method, where, { headers: { 'X-API-Key': API_KEY, ...headers }, body });
  if (status < 200 || status > 299) throw new Error(`${method} ${where}: ${status} ${text}`);
  return JSON.parse(text);
}

/** One request, over TLS if the server speaks it; resolves with {status, text}. */
export function ask(server, method, where, { headers = {}, body } = {}) {
  const { request } = server.ca ? https : http;
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const more = sent === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(sent) };
  return new Promise((resolve, reject) => {
    const asked = request(server.url + where, { method, ca: server.ca, headers: { ...more, ...headers } }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (data) => (text += data));
      answer.on('error', reject);
      answer.on('end', () => resolve({ status: answer.statusCode, text }));
    });
    asked.on('error', reject);
    asked.end(sent);
  });
}

/** Asks every 25 ms until the answer is truthy, and returns it. */
export async function until(what, patienceMs, ask) {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > deadline) throw new Error(`still not after ${patienceMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
