// What is shipped for watching a server, with the real programs: every rule and every query of the
// dashboard in a Prometheus that scraped a server of its own and one on Redis with TLS; the event log
// through rsyslog; traces at an OpenTelemetry collector.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse as parseToml } from 'smol-toml';
import WebSocket from 'ws';
import { parse as parseYaml } from 'yaml';
import { API_KEY, ask, asBackend, startServer, target, until } from '../browser/server.mjs';
import { mint, pause } from './clients.mjs';

const PATIENCE_MS = 60_000;
const SECRET = 'a secret for the tests of the monitoring';
const examples = fileURLToPath(new URL('../../packaging/examples/', import.meta.url));
const example = (name) => readFile(path.join(examples, name), 'utf8');

let home;
let server;
/** A node on a Redis, with TLS. */
let node;
/** Settings of a server on the same Redis. */
let onRedis;
/** What the rule `backend` asks; it fails. */
let application;
const started = [];

before(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'fanfare-monitoring-'));
  application = http.createServer((_, answer) => answer.writeHead(500).end());
  await new Promise((done) => application.listen(0, '127.0.0.1', done));
  const nobody = `http://127.0.0.1:${application.address().port}/`;
  const same = { 'limits.sign_in_per_minute': 1, 'alerts.canary_interval': '1s', 'auth.wallet_proof': 'none' };
  server = await serve({
    ...same, 'channels.asked.subscribe': 'backend', 'channels.backend.url': nobody, 'alerts.auth_failures_per_minute': 1,
  });

  const redis = await freePort();
  start('redis-server', ['--port', String(redis), '--bind', '127.0.0.1', '--save', '', '--maxmemory', '1gb', '--dir', home]);
  onRedis = { 'broker.backend': 'redis', 'broker.redis.url': `redis://127.0.0.1:${redis}` };
  const { cert, key } = await certificate();
  node = await serve({
    ...same, ...onRedis, 'server.tls.cert': cert, 'server.tls.key': key, 'limits.dry_run': true,
    'auth.token_ttl': '30m:1,5m:1', 'auth.issuers.other.issuer': 'https://other.example', 'auth.issuers.other.jwks_url': nobody,
  }, await readFile(cert, 'utf8'));
});

after(async () => {
  for (const child of started) {
    child.kill('SIGKILL');
    await child.ended;
  }
  await server?.stop();
  await node?.stop();
  application?.close();
  if (home) await rm(home, { recursive: true, force: true });
});

/** A server with these settings. */
function serve(settings, ca) {
  return startServer({
    args: [
      'serve', '--listen', '127.0.0.1:0', '--metrics-listen', '127.0.0.1:0', '--workers', '2',
      ...Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]),
    ],
    env: { FANFARE_AUTH__SECRET: SECRET, FANFARE_AUTH__API_KEYS: API_KEY, FANFARE_CHANNELS__BACKEND__SECRET: SECRET },
    ca,
  });
}

/** A program that lives until the tests are over. */
function start(program, args, cwd = home) {
  const child = spawn(program, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  child.output = '';
  child.stdout.on('data', (data) => (child.output += data));
  child.stderr.on('data', (data) => (child.output += data));
  child.ended = new Promise((resolve) => child.on('close', resolve));
  started.push(child);
  return child;
}

async function freePort() {
  const one = createServer();
  await new Promise((done) => one.listen(0, '127.0.0.1', done));
  const { port } = one.address();
  await new Promise((done) => one.close(done));
  return port;
}

/** A certificate for 127.0.0.1 and its key, as files. */
async function certificate() {
  const [cert, key] = ['cert.pem', 'key.pem'].map((name) => path.join(home, name));
  await promisify(execFile)('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '90',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost', '-keyout', key, '-out', cert,
  ]);
  return { cert, key };
}

/** A little of everything that is counted. */
async function traffic(server) {
  const publish = (channel) => asBackend(server, 'POST', '/api/publish', { channel, event: { type: 'tick' } });
  const open = (token) => new WebSocket(`${server.url.replace('http', 'ws')}/ws?token=${token}`, { ca: server.ca });
  const socket = open(mint(SECRET, 'ann'));
  let messages = 0;
  socket.on('message', () => (messages += 1));
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  for (const command of ['{"type":"subscribe","channel":"post_1"}', '{"type":"subscribe","channel":"asked_1"}', '{"type":"ping"}', 'nonsense']) {
    socket.send(command);
  }
  await until('answers', PATIENCE_MS, () => messages >= 5);
  await publish('post_1');
  await asBackend(server, 'POST', '/api/user/notifications', { userId: 'ann', type: 'like', title: 't', message: 'm' });
  await until('the event', PATIENCE_MS, () => messages >= 6);
  socket.close();
  await new Promise((resolve) => socket.on('close', resolve));
  // Refused: by no token, by a foreign key, by a limit.
  const refused = open('rubbish');
  await new Promise((resolve) => refused.on('close', resolve));
  await ask(server, 'POST', '/api/publish', { headers: { 'X-API-Key': 'not-the-key-of-it' } });
  for (let i = 0; i < 3; i += 1) {
    await ask(server, 'POST', '/api/auth/wallet', { body: { wallet: '4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T' } });
  }
  server.signal('SIGHUP');
}

test('Prometheus answers every query of the dashboard and evaluates every rule', async () => {
  const port = await freePort();
  const scraped = [server, node].map((one) => new URL(one.metricsUrl).host);
  // The example, faster and with the addresses of here; rates over a minute need no longer than seconds.
  const configuration = parseYaml(await example('prometheus/prometheus.yml'));
  configuration.global = { scrape_interval: '500ms', evaluation_interval: '500ms' };
  const [job] = configuration.scrape_configs;
  job.scrape_interval = '500ms';
  job.scrape_timeout = '400ms';
  job.static_configs[0].targets = scraped;
  delete configuration.alerting;
  await writeFile(path.join(home, 'prometheus.yml'), JSON.stringify(configuration));
  await copyFile(path.join(examples, 'prometheus/fanfare.rules.yml'), path.join(home, 'fanfare.rules.yml'));
  const prometheus = start('prometheus', [
    '--config.file=prometheus.yml', `--storage.tsdb.path=${home}/tsdb`, `--web.listen-address=127.0.0.1:${port}`,
  ]);
  const ask = async (where, parameters = {}) => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/${where}?${new URLSearchParams(parameters)}`);
    const json = await answer.json();
    assert.equal(json.status, 'success', `${JSON.stringify(parameters)}: ${json.error}`);
    return json.data;
  };
  await until('Prometheus scrapes', PATIENCE_MS, async () => {
    if (prometheus.exitCode !== null) throw new Error(prometheus.output);
    const data = await ask('query', { query: 'up{job="fanfare"} == 1' }).catch(() => null);
    return data?.result.length === 2;
  });
  for (let i = 0; i < 6; i += 1) {
    await Promise.all([traffic(server), traffic(node)]);
    await pause(600);
  }

  const dashboard = JSON.parse(await example('grafana/fanfare.json'));
  const queries = dashboard.panels.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => [panel.title, expr]));
  assert.ok(queries.length > 80);
  const of = (expr) => expr.replaceAll('$__rate_interval', '1m').replaceAll('$job', '.*').replaceAll('$instance', '.*');
  for (const [title, expr] of queries) {
    await until(`${title}: ${expr} has an answer`, PATIENCE_MS, async () => {
      const now = Date.now() / 1000;
      const data = await ask('query_range', { query: of(expr), start: now - 5, end: now, step: 1 });
      return data.result.length > 0;
    });
  }
  // Annotations and variables: starts are none here, labels are some.
  for (const { expr } of dashboard.annotations.list) await ask('query', { query: of(expr) });
  for (const { query } of dashboard.templating.list.filter((one) => one.type === 'query')) {
    const [, of_, label] = /^label_values\((.+), (\w+)\)$/.exec(query.query);
    const data = await ask(`label/${label}/values`, { 'match[]': of(of_) });
    assert.ok(data.length > 0, query.query);
  }

  await until('every rule is evaluated', PATIENCE_MS, async () => {
    const { groups } = await ask('rules');
    const rules = groups.flatMap((group) => group.rules);
    for (const rule of rules) assert.notEqual(rule.health, 'err', `${rule.name}: ${rule.lastError}`);
    return rules.length >= 47 && rules.every((rule) => rule.health === 'ok');
  });
  const { groups } = await ask('rules');
  for (const rule of groups.flatMap((group) => group.rules).filter((one) => one.type === 'recording')) {
    assert.ok((await ask('query', { query: rule.name })).result.length > 0, rule.name);
  }
  // An alert that names a metric which the server does not have would never fire.
  const known = new Set(await ask('label/__name__/values'));
  for (const rule of groups.flatMap((group) => group.rules)) {
    for (const [name] of rule.query.matchAll(/(?<![:\w])fanfare_[a-z_]+/g)) assert.ok(known.has(name), `${rule.name}: ${name}`);
  }
  // Whatever is measured is shown, and whatever is recorded or alerted about is tried.
  const family = (name) => name.replace(/_(bucket|sum|count)$/, '');
  const named = JSON.stringify([dashboard.panels, dashboard.annotations, dashboard.templating]).match(/\bfanfare_[a-z_]+/g);
  const shown = new Set(named.map(family));
  for (const name of known) if (name.startsWith('fanfare_')) assert.ok(shown.has(family(name)), `${name} is on no panel`);
  const tried = await example('prometheus/fanfare.rules.test.yml');
  for (const { name } of groups.flatMap((group) => group.rules)) assert.ok(tried.includes(name), `${name} is in no test`);
});

test('rsyslog reads every line of the event log as JSON', async () => {
  await traffic(server);
  const binary = await realpath(path.join(target, 'tools/rsyslogd.d')).catch(() => '');
  const out = path.join(home, 'shipped');
  let text = await example('logs/rsyslog.conf');
  const replace = (from, to) => {
    assert.ok(text.includes(from), from);
    text = text.replaceAll(from, to);
  };
  replace('/var/log/fanfare/ws-*.log', path.join(server.home, 'logs/ws-*.log'));
  replace('freshStartTail="on"', 'freshStartTail="off"');
  replace('/var/log/fanfare-refused.log', path.join(home, 'refused'));
  const forwards = /action\(type="omfwd"[^)]*\)/.exec(text)[0];
  const listening = createServer();
  await new Promise((done) => listening.listen(0, '127.0.0.1', done));
  let shipped = '';
  listening.on('connection', (socket) => socket.on('data', (data) => (shipped += data)));
  text = text.replace(forwards, forwards.replace('logs.example.com', '127.0.0.1').replace('"6514"', `"${listening.address().port}"`));
  await writeFile(path.join(home, 'rsyslog.conf'), `global(workDirectory="${home}")\n${text}`);
  const modules = binary ? ['-M', `${binary}/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/rsyslog`] : [];
  const rsyslog = start('rsyslogd', ['-n', '-f', `${home}/rsyslog.conf`, '-i', `${home}/rsyslog.pid`, ...modules]);

  const folder = path.join(server.home, 'logs');
  const day = new Date().toISOString().slice(0, 10);
  try {
    await until('all lines are shipped', PATIENCE_MS, async () => {
      if (rsyslog.exitCode !== null) throw new Error(rsyslog.output);
      const written = (await readFile(path.join(folder, `ws-${day}.log`), 'utf8')).split('\n').length - 1;
      return written > 20 && shipped.split('\n').length - 1 >= written;
    });
  } finally {
    listening.close();
  }
  const lines = shipped.split('\n').slice(0, -1).map((line) => JSON.parse(line));
  const types = new Set(lines.map((line) => line.event.type));
  for (const type of ['connection', 'disconnect', 'auth_failure', 'message', 'channel_subscribe', 'notification', 'server']) {
    assert.ok(types.has(type), `${type} of ${[...types]}`);
  }
  assert.ok(lines.every((line) => line.host && Date.parse(line.event.timestamp) > 0));
  await assert.rejects(readFile(path.join(home, 'refused')), 'a line was refused');
  assert.doesNotMatch(rsyslog.output, /error/i);
});

test('the examples for Vector and Filebeat are TOML and YAML, and name the files that are written', async () => {
  const vector = parseToml(await example('logs/vector.toml'));
  assert.deepEqual(vector.sources.fanfare.include, ['/var/log/fanfare/ws-*.log']);
  for (const [name, part] of Object.entries({ ...vector.transforms, ...vector.sinks })) {
    for (const input of part.inputs) {
      const [from] = input.split('.');
      assert.ok(vector.sources[from] || vector.transforms[from], `${name}: ${input}`);
    }
  }
  const filebeat = parseYaml(await example('logs/filebeat.yml'));
  assert.deepEqual(filebeat['filebeat.inputs'][0].paths, ['/var/log/fanfare/ws-*.log']);
});

/** The spans that Rotel has shown so far. */
function spansIn(output) {
  const spans = [];
  let resource = {};
  let attributes;
  for (const line of output.split('\n')) {
    const [, name, value] = /^\s+-> ([\w.]+): \w+\((.*)\)$/.exec(line) ?? [];
    const [, field, text] = /^ {4}(Trace ID|Parent ID|ID|Name|Kind)\s*: ?(.*)$/.exec(line) ?? [];
    if (line.startsWith('ResourceSpans')) attributes = resource = {};
    else if (line.startsWith('Span #')) spans.push({ node: resource['service.instance.id'], service: resource['service.name'], attributes: (attributes = {}) });
    else if (name) attributes[name] = value;
    else if (field && spans.length) spans.at(-1)[field] = text;
  }
  return spans;
}

test('a request that is traced is followed to its subscribers, on every node, by an OpenTelemetry collector', async () => {
  const [http, grpc] = [await freePort(), await freePort()];
  const rotel = start('rotel', [
    'start', '--otlp-http-endpoint', `127.0.0.1:${http}`, '--otlp-grpc-endpoint', `127.0.0.1:${grpc}`,
    '--exporter', 'blackhole', '--debug-log', 'traces', '--debug-log-verbosity', 'detailed',
  ]);
  await until('Rotel listens', PATIENCE_MS, async () => {
    if (rotel.exitCode !== null) throw new Error(rotel.output);
    return fetch(`http://127.0.0.1:${http}/v1/traces`).then(() => true, () => false);
  });
  const traced = { 'traces.otlp_url': `http://127.0.0.1:${http}`, 'traces.sample': '0%', 'channels.live.subscribe': 'any', 'channels.live.history': 0 };
  const alone = await serve({ ...traced, 'traces.service_name': 'alone' });
  const [here, there] = await Promise.all([serve({ ...traced, ...onRedis }), serve({ ...traced, ...onRedis })]);
  const sockets = [];
  let heard = 0;
  const follow = async (server, channel) => {
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/ws?token=${mint(SECRET, 'ann')}`);
    sockets.push(socket);
    await new Promise((resolve, reject) => {
      socket.on('error', reject);
      socket.on('message', (data) => {
        const { type } = JSON.parse(data);
        if (type === 'connected') socket.send(JSON.stringify({ type: 'subscribe', channel }));
        if (type === 'subscribed') resolve();
        if (type === 'tick' || type === 'notification') heard += 1;
      });
    });
  };
  const caller = (flags = '01') => {
    const [trace, parent] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')];
    return { trace, parent, header: { traceparent: `00-${trace}-${parent}-${flags}` } };
  };
  const tick = (server, channel, headers) => asBackend(server, 'POST', '/api/publish', { channel, event: { type: 'tick' } }, headers);
  const of = (trace) => spansIn(rotel.output).filter((span) => span['Trace ID'] === trace);
  const complete = (trace, count) => until(`${count} spans of ${trace}`, PATIENCE_MS, () => of(trace).length >= count && of(trace));
  /** Request, publishing, deliveries: each below the one before it, the first below the caller's. */
  const chain = (spans, { parent }, request, kind) => {
    const one = (name) => spans.filter((span) => span.Name === name);
    const [[top], [publish], deliveries] = [one(request), one(`publish ${kind}`), one(`deliver ${kind}`)];
    assert.equal(top['Parent ID'], parent);
    assert.equal(publish['Parent ID'], top.ID);
    assert.ok(deliveries.every((span) => span['Parent ID'] === publish.ID));
    assert.deepEqual([top.Kind, publish.Kind], ['SPAN_KIND_SERVER', 'SPAN_KIND_PRODUCER']);
    assert.equal(spans.length, 2 + deliveries.length);
    return { top, publish, deliveries };
  };
  try {
    // Four subscribers on two workers.
    for (let i = 0; i < 4; i += 1) await follow(alone, 'post_1');
    await follow(alone, 'notifications');
    const [published, noticed, untraced] = [caller(), caller(), caller('00')];
    await tick(alone, 'post_1', published.header);
    await tick(alone, 'post_1', untraced.header);
    await tick(alone, 'post_1', {});
    await tick(alone, 'post_1', { traceparent: 'nonsense' });
    const notification = { userId: 'ann', type: 'like', title: 't', message: 'm' };
    await asBackend(alone, 'POST', '/api/user/notifications', notification, noticed.header);
    const way = chain(await complete(published.trace, 4), published, 'POST /api/publish', 'post');
    assert.equal(way.top.service, 'alone');
    assert.equal(way.top.attributes['http.response.status_code'], '200');
    assert.equal(way.publish.attributes['messaging.destination.name'], 'post_1');
    assert.equal(way.deliveries.length, 2, 'one for each worker');
    assert.equal(way.deliveries.reduce((sum, span) => sum + Number(span.attributes['fanfare.subscribers']), 0), 4);
    assert.deepEqual(new Set(way.deliveries.map((span) => span.attributes['fanfare.worker'])), new Set(['0', '1']));
    chain(await complete(noticed.trace, 3), noticed, 'POST /api/user/notifications', 'notifications');

    // With Redis between them, with history and without.
    await follow(there, 'post_1');
    await follow(there, 'live_1');
    for (const [channel, kind] of [['post_1', 'post'], ['live_1', 'live']]) {
      const asked = caller();
      await tick(here, channel, asked.header);
      const { publish, deliveries } = chain(await complete(asked.trace, 3), asked, 'POST /api/publish', kind);
      assert.equal(deliveries.length, 1);
      assert.notEqual(deliveries[0].node, publish.node);
    }

    // What waits to be sent goes out before the end.
    const late = caller();
    await tick(alone, 'post_1', late.header);
    await until('everything is heard', PATIENCE_MS, () => heard === 4 * 5 + 1 + 2);
    alone.signal('SIGTERM');
    await complete(late.trace, 4);
    assert.deepEqual(of(untraced.trace), []);
    assert.equal(spansIn(rotel.output).length, 4 + 3 + 2 * 3 + 4);
  } finally {
    for (const socket of sockets) socket.terminate();
    for (const one of [alone, here, there]) await one.stop();
  }
});
