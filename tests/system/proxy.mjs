// nginx and haproxy with the example configurations, on free ports and with a certificate of their own.

import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { until } from '../browser/server.mjs';

const exec = promisify(execFile);
const examples = fileURLToPath(new URL('../../packaging/examples/', import.meta.url));
export const NAME = 'rt.example.com';

export const example = (name) => readFile(path.join(examples, name), 'utf8');

/** The text with each of the pairs replaced, every one of which has to be there. */
export function replaced(text, pairs) {
  for (const [from, to] of pairs) {
    if (!text.includes(from)) throw new Error(`the example has no ${JSON.stringify(from)}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/** The part of an nginx or haproxy configuration that begins with `start`, to the next empty line or the end. */
export function part(text, start) {
  const at = text.indexOf(`\n${start}`) + 1;
  if (at === 0) throw new Error(`no ${start}`);
  const end = text.indexOf('\n\n', at);
  return text.slice(at, end < 0 ? undefined : end + 1);
}

export class Proxy {
  /** `nginx` with this text as what Debian includes in its section `http`. */
  static nginx(text) {
    return Proxy.#start(({ file, plain, tls }) => {
      const http = replaced(text, [
        ['/etc/letsencrypt/live/rt.example.com/fullchain.pem', file('cert.pem')],
        ['/etc/letsencrypt/live/rt.example.com/privkey.pem', file('key.pem')],
        ['/var/log/nginx/fanfare.log', file('log')],
        ['listen 80;', `listen 127.0.0.1:${plain};`],
        ['listen 443 ssl;', `listen 127.0.0.1:${tls} ssl;`],
      ]);
      const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
      const temporary = folders.map((name) => `${name}_temp_path ${file(name)};`).join('\n');
      const whole = `pid ${file('pid')};\ndaemon off;\nevents {}\nhttp {\naccess_log off;\n${temporary}\n${http}\n}\n`;
      const options = ['-e', 'stderr', '-c', file('configuration')];
      return { whole, program: 'nginx', run: options, check: ['-t', ...options] };
    });
  }

  static haproxy(text) {
    return Proxy.#start(({ file, plain, tls }) => {
      const whole = replaced(text, [
        ['/etc/haproxy/rt.example.com.pem', file('both.pem')],
        ['log /dev/log local0', 'log stdout format raw local0'],
        ['maxconn 100000', 'maxconn 1000'],
        ['bind :80', `bind 127.0.0.1:${plain}`],
        ['bind :443', `bind 127.0.0.1:${tls}`],
      ]);
      const options = ['-f', file('configuration')];
      return { whole, program: 'haproxy', run: ['-db', ...options], check: ['-c', ...options] };
    });
  }

  static async #start(fit) {
    const proxy = new Proxy();
    proxy.home = await mkdtemp(path.join(tmpdir(), 'fanfare-proxy-'));
    const file = (name) => path.join(proxy.home, name);
    await exec('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
      '-subj', `/CN=${NAME}`, '-addext', `subjectAltName=DNS:${NAME}`, '-keyout', file('key.pem'), '-out', file('cert.pem'),
    ]);
    proxy.ca = await readFile(file('cert.pem'), 'utf8');
    await writeFile(file('both.pem'), proxy.ca + (await readFile(file('key.pem'), 'utf8')));
    await writeFile(file('log'), '');
    [proxy.plainPort, proxy.port] = await freePorts(2);
    const { whole, program, run, check } = fit({ file, plain: proxy.plainPort, tls: proxy.port });
    await writeFile(file('configuration'), whole);
    const { stdout, stderr } = await exec(program, check);
    proxy.checked = stdout + stderr;
    proxy.output = '';
    proxy.process = spawn(program, run, { stdio: ['ignore', 'pipe', 'pipe'] });
    proxy.process.stdout.on('data', (data) => (proxy.output += data));
    proxy.process.stderr.on('data', (data) => (proxy.output += data));
    proxy.ended = new Promise((resolve) => proxy.process.on('close', resolve));
    await until('the proxy answers', 20_000, async () => {
      if (proxy.process.exitCode !== null) throw new Error(`${program} ended:\n${proxy.output}`);
      return proxy.get('/', {}).then(() => true, () => false);
    });
    return proxy;
  }

  /** A request over TLS; resolves with {status, headers, text}. */
  get(where, { method = 'GET', headers = {}, body, plain = false } = {}) {
    return new Promise((resolve, reject) => {
      const outgoing = (plain ? http : https).request(
        {
          host: '127.0.0.1', port: plain ? this.plainPort : this.port, path: where, method, ca: this.ca,
          servername: NAME, agent: false, timeout: 10_000, headers: { Host: NAME, ...headers },
        },
        (answer) => {
          let text = '';
          answer.on('data', (data) => (text += data));
          answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text }));
        },
      );
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer in 10 s')));
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }

  /** Server-sent events; resolves with {headers, next, close}: `next` waits for the next message. */
  async stream(where, headers) {
    const answer = await new Promise((resolve, reject) => {
      https.get({
        host: '127.0.0.1', port: this.port, path: where, ca: this.ca, servername: NAME, agent: false, headers: { Host: NAME, ...headers },
      }, resolve).on('error', reject);
    });
    let text = '';
    const next = async () => {
      const deadline = setTimeout(() => answer.destroy(new Error('no message in 10 s')), 10_000);
      try {
        for (;;) {
          const [block, ...rest] = text.split('\n\n');
          if (rest.length) {
            text = rest.join('\n\n');
            const data = block.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6));
            if (data.length) return JSON.parse(data.join('\n'));
            continue;
          }
          const chunk = answer.read();
          if (chunk) text += chunk;
          else if (answer.readableEnded || answer.destroyed) throw new Error('the stream has ended');
          else await new Promise((resolve, reject) => answer.once('readable', resolve).once('error', reject));
        }
      } finally {
        clearTimeout(deadline);
      }
    };
    return { headers: answer.headers, next, close: () => answer.destroy() };
  }

  /** A WebSocket; resolves with {socket, next, cookie}, or rejects with the status that refused it. */
  connect(token, { headers = {}, from } = {}) {
    const socket = new WebSocket(`wss://127.0.0.1:${this.port}/ws?token=${token}`, {
      ca: this.ca, servername: NAME, localAddress: from, headers: { Host: NAME, ...headers },
    });
    const arrived = [];
    let wake = () => {};
    socket.on('message', (data) => {
      arrived.push(JSON.parse(data));
      wake();
    });
    const next = async () => {
      if (arrived.length === 0) {
        await new Promise((resolve, reject) => {
          const late = setTimeout(() => reject(new Error('no message in 10 s')), 10_000);
          wake = () => {
            clearTimeout(late);
            resolve();
          };
        });
      }
      return arrived.shift();
    };
    return new Promise((resolve, reject) => {
      let cookie = '';
      socket.on('upgrade', (answer) => (cookie = (answer.headers['set-cookie'] ?? []).join('; ').split(';')[0]));
      socket.on('open', () => resolve({ socket, next, cookie }));
      socket.on('unexpected-response', (_, answer) => reject(new Error(`status ${answer.statusCode}`)));
      socket.on('error', reject);
    });
  }

  /** What it wrote about the requests. */
  async log() {
    return this.output + (await readFile(path.join(this.home, 'log'), 'utf8'));
  }

  async stop() {
    this.process.kill('SIGTERM');
    const late = setTimeout(() => this.process.kill('SIGKILL'), 5_000);
    await this.ended;
    clearTimeout(late);
    await rm(this.home, { recursive: true, force: true });
  }
}

/** Ports that were free a moment ago. */
export async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer());
  await Promise.all(servers.map((one) => new Promise((done) => one.listen(0, '127.0.0.1', done))));
  const ports = servers.map((one) => one.address().port);
  await Promise.all(servers.map((one) => new Promise((done) => one.close(done))));
  return ports;
}
