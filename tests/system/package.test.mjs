// The life of an installation, in order: each test goes on where the one before it ended.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { copyFile } from 'node:fs/promises';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import tls from 'node:tls';
import { until } from '../browser/server.mjs';
import { Follower, Publisher, everybodyLeaves, mint, pause, refused, request } from './clients.mjs';
import { Container } from './container.mjs';

const CONFIG = '/etc/fanfare/config.toml';
/** What a client may wait for on a busy machine; what the tests are about has bounds of its own. */
const PATIENCE_MS = 60_000;

const folder = process.env.FANFARE_SYSTEM;
let box;
let apiKey;
let secret;

before(async () => {
  box = await Container.unpack(process.env.FANFARE_ROOT, path.join(folder, 'root'));
  await copyFile(process.env.FANFARE_PACKAGE, path.join(box.root, 'root/first.deb'));
  nextVersion(process.env.FANFARE_PACKAGE, path.join(box.root, 'root/next.deb'));
  await box.boot();
});

after(async () => {
  await box?.end();
});

// Also after a failure, or they would keep this process alive.
afterEach(() => everybodyLeaves());

/** The same package with a greater version and another manual: what an upgrade brings. */
function nextVersion(from, to) {
  const script = `
    set -e
    rm -rf next && dpkg-deb --raw-extract "$1" next
    sed -i 's/^Version: .*/Version: 9.9.9-1/' next/DEBIAN/control
    printf '\\n# A line of the next version.\\n' >>next/etc/fanfare/config.toml
    (cd next && find . -path ./DEBIAN -prune -o -type f -printf '%P\\0' | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-deb --root-owner-group -Znone --build next "$2" && rm -rf next`;
  execFileSync('sh', ['-c', script, '-', from, to], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
}

const answers = (where = '/ready', status = 200) =>
  request('GET', where, { timeoutMs: 2_000 }).then((answer) => answer.status === status, () => false);

const ready = () => until('/ready', PATIENCE_MS, () => answers());

function publish(channel, event, key = apiKey) {
  return request('POST', '/api/publish', { headers: { 'X-API-Key': key }, body: { channel, event } });
}

const mainPid = async () => Number(await box.show('fanfare.service', 'MainPID'));

const journal = () => box.run('journalctl', '--unit', 'fanfare', '--no-pager', '--output', 'cat');

/** The configuration with `from` replaced. */
async function configure(from, to) {
  const text = await box.read(CONFIG);
  assert.ok(text.includes(from), `no ${from} in ${CONFIG}`);
  await box.write(CONFIG, text.replace(from, to));
}

/** All events of a channel that the server has, oldest first. */
async function history(channel) {
  const answer = await request('POST', '/api/history', { headers: { 'X-API-Key': apiKey }, body: { channel, limit: 100 } });
  assert.equal(answer.status, 200, answer.text);
  return answer.json.events;
}

async function eachFollowed(followers, publishers) {
  const lasts = new Map(publishers.map((one) => [one.channel, one.acknowledged]));
  await until('everybody has everything', PATIENCE_MS, () =>
    followers.every((one) => one.faults.length > 0 || one.last === lasts.get(one.channel)),
  );
  const faults = followers.flatMap((one) => one.faults.map((fault) => `${one.user}: ${fault}`));
  assert.deepEqual(faults.slice(0, 10), []);
}

test('a fresh install runs, and says where the API key is', async () => {
  const said = await box.run('dpkg', '--install', '/root/first.deb');
  assert.match(said, /API key .* \/etc\/fanfare\/api_keys/);
  assert.match(said, /fanfare: running/);
  await ready();

  assert.equal(await box.show('fanfare.service', 'ActiveState'), 'active');
  for (const unit of ['fanfare.service', 'fanfare.socket']) {
    assert.equal((await box.run('systemctl', 'is-enabled', unit)).trim(), 'enabled');
  }
  const status = await box.read(`/proc/${await mainPid()}/status`);
  const uid = (await box.run('id', '--user', 'fanfare')).trim();
  assert.match(status, new RegExp(`^Uid:\\t${uid}\\t${uid}\\t`, 'm'));
  assert.match(status, /^CapBnd:\t0+$/m);
  assert.match(status, /^NoNewPrivs:\t1$/m);
  assert.match(await box.run('fanfare', '--version'), /^fanfare /);
});

test('only root and the server may read what is secret', async () => {
  const modes = {
    '/etc/fanfare': '750 root:fanfare',
    [CONFIG]: '640 root:fanfare',
    '/etc/fanfare/api_keys': '640 root:fanfare',
    '/etc/fanfare/credentials': '700 root:root',
    '/var/lib/fanfare': '700 fanfare:fanfare',
    '/var/lib/fanfare/secret': '600 fanfare:fanfare',
    '/var/log/fanfare': '750 fanfare:fanfare',
    '/run/fanfare/control.sock': '660 fanfare:fanfare',
  };
  for (const [file, mode] of Object.entries(modes)) {
    assert.equal((await box.run('stat', '--format', '%a %U:%G', file)).trim(), mode, file);
  }
  apiKey = (await box.read('/etc/fanfare/api_keys')).trim();
  secret = (await box.read('/var/lib/fanfare/secret')).trim();
  assert.match(apiKey, /^[0-9a-f]{64}$/);
  assert.match(secret, /^[0-9a-f]{64}$/);
  assert.notEqual(apiKey, secret);
});

test('the key publishes, tokens of the command line and of backends connect', async () => {
  assert.equal((await publish('post_first', { type: 'tick', n: 1 })).status, 200);
  assert.equal((await publish('post_first', { type: 'tick', n: 1 }, 'not-the-key-of-it')).status, 401);
  for (const token of [(await box.run('fanfare', 'token', '--user', 'ann')).trim(), mint(secret, 'ann')]) {
    const headers = { Authorization: `Bearer ${token}` };
    const { json } = await request('GET', '/api/auth/wallet', { headers });
    assert.equal(json.userId, 'ann');
  }
  const follower = new Follower(secret, 'ann', 'post_first');
  await until('subscribed', PATIENCE_MS, () => follower.opened === 1);
  await publish('post_first', { type: 'tick', n: 2 });
  await until('the event', PATIENCE_MS, () => follower.last === 2);
  follower.stop();
});

test('the units are sound, and the service is confined', async () => {
  const verified = await box.try('systemd-analyze', 'verify', '--man=no', 'fanfare.service', 'fanfare.socket');
  assert.equal(verified.stdout + verified.stderr, '');
  const security = await box.run('systemd-analyze', 'security', '--no-pager', 'fanfare.service');
  const exposure = Number(/exposure level for fanfare.service: ([\d.]+)/.exec(security)[1]);
  assert.ok(exposure <= 1.2, `${exposure}`);
  // Not only on paper.
  const pid = String(await mainPid());
  for (const [file, why] of [['/usr/x', 'strict'], ['/etc/fanfare/x', 'strict'], ['/home/x', 'no home']]) {
    const inside = ['-t', pid, '-m', '--', 'touch', file];
    assert.notEqual((await box.try('nsenter', ...inside)).code, 0, `${file}: ${why}`);
  }
  await box.run('nsenter', '-t', pid, '-m', '--', 'touch', '/var/lib/fanfare/x');
  await box.run('rm', '/var/lib/fanfare/x');
});

test('the manual and the completions are there', async () => {
  await box.run('test', '-e', '/usr/share/bash-completion/completions/fanfare');
  const loaded = await box.run('bash', '-c', '. /usr/share/bash-completion/completions/fanfare && complete -p fanfare');
  assert.match(loaded, /_fanfare/);
  // dpkg leaves manual pages out of small images; the package has them.
  const listed = execFileSync('dpkg-deb', ['--contents', path.join(box.root, 'root/first.deb')], { encoding: 'utf8' });
  for (const file of ['man1/fanfare.1.gz', 'man1/fanfare-check.1.gz', 'vendor-completions/_fanfare', 'nginx/fanfare.conf']) {
    assert.ok(listed.includes(file), file);
  }
});

test('systemd is told: ready, a status, and that it turns', async () => {
  assert.equal(await box.show('fanfare.service', 'Type'), 'notify');
  assert.notEqual(await box.show('fanfare.service', 'StatusText'), '');
  // Who does not turn any more is ended and started again; for the test, sooner.
  await box.run('mkdir', '-p', '/run/systemd/system/fanfare.service.d');
  await box.write(
    '/run/systemd/system/fanfare.service.d/sooner.conf',
    '[Service]\nWatchdogSec=6s\nTimeoutAbortSec=1s\n',
  );
  await box.run('systemctl', 'daemon-reload');
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
  const before = await mainPid();
  await pause(8_000);
  assert.equal(await mainPid(), before, 'it was fed');
  await box.run('kill', '-STOP', String(before));
  await until('another process answers', PATIENCE_MS, async () => (await answers()) && (await mainPid()) !== before);
  assert.match(await journal(), /[Ww]atchdog/);
  await box.run('rm', '-r', '/run/systemd/system/fanfare.service.d');
  await box.run('systemctl', 'daemon-reload');
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
});

test('a setting that is not what the socket unit says is told', async () => {
  await configure('#listen = "127.0.0.1:3002"', 'listen = "127.0.0.1:3999"');
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
  assert.match(await journal(), /server\.listen: the service manager holds another address/);
  await configure('listen = "127.0.0.1:3999"', '#listen = "127.0.0.1:3002"');
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
});

test('what root lays into the folder of credentials, the server can read', async () => {
  await box.write('/etc/fanfare/credentials/tls.key', 'a key');
  await box.run('chmod', '600', '/etc/fanfare/credentials/tls.key');
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
  const name = '/run/credentials/fanfare.service/file_tls.key';
  assert.equal(await box.read(name), 'a key');
  assert.match(await box.run('stat', '--format', '%a %U', name), /^400 fanfare$/m);
  await box.run('rm', '/etc/fanfare/credentials/tls.key');

  // Under the name of a key it is that setting.
  const another = 'a secret that only root may read, 32 bytes at least';
  await box.write('/etc/fanfare/credentials/auth.secret', another);
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
  const headers = { Authorization: `Bearer ${mint(another, 'ann')}` };
  assert.equal((await request('GET', '/api/auth/wallet', { headers })).json.userId, 'ann');
  await box.run('rm', '/etc/fanfare/credentials/auth.secret');
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
});

test('killed, it is back within two seconds with everything acknowledged', async (t) => {
  const took = [];
  let n = 0;
  for (let round = 0; round < 3; round += 1) {
    for (let i = 0; i < 20; i += 1) {
      n += 1;
      assert.equal((await publish('post_killed', { type: 'tick', n })).status, 200);
    }
    const before = await mainPid();
    const began = performance.now();
    await box.run('kill', '-9', String(before));
    await until('another process answers', PATIENCE_MS, async () => (await answers()) && (await mainPid()) !== before);
    took.push(performance.now() - began);
    assert.deepEqual((await history('post_killed')).map((event) => event.n).sort((a, b) => a - b), upTo(n));
  }
  t.diagnostic(`back after ${took.map(Math.round).join(', ')} ms`);
  // The rest of the machine may be in the way of one of three.
  assert.ok(took.toSorted((a, b) => a - b)[1] < 2_000, `${took.map(Math.round)} ms`);
});

test('a good file is reloaded, and nobody notices', async () => {
  const follower = new Follower(secret, 'ann', 'post_reload');
  await until('subscribed', PATIENCE_MS, () => follower.opened === 1);
  const before = await mainPid();
  assert.equal((await publish('post_reload', { type: 'tick', n: 1 }, 'a-second-key-for-backends')).status, 401);
  const keys = await box.read('/etc/fanfare/api_keys');
  await box.write('/etc/fanfare/api_keys', `${keys}a-second-key-for-backends\n`);
  await box.run('systemctl', 'reload', 'fanfare');
  await until('the new key', PATIENCE_MS, async () =>
    (await publish('post_reload', { type: 'tick', n: 1 }, 'a-second-key-for-backends')).status === 200);
  await until('the event', PATIENCE_MS, () => follower.last === 1);
  assert.equal(await mainPid(), before);
  assert.equal(follower.opened, 1);
  follower.stop();
});

test('a bad file is refused with its mistakes, and changes nothing', async () => {
  const before = await mainPid();
  await configure('#shutdown_grace = "10s"', 'shutdown_grase = "10s"');
  const { code } = await box.try('systemctl', 'reload', 'fanfare');
  assert.notEqual(code, 0);
  assert.match(await journal(), /server\.shutdown_grase/);
  assert.equal(await box.show('fanfare.service', 'ActiveState'), 'active');
  assert.equal(await mainPid(), before);
  assert.ok(await answers());
  await configure('shutdown_grase = "10s"', '#shutdown_grace = "10s"');
  await box.run('systemctl', 'reload', 'fanfare');
});

test('a certificate of Let\'s Encrypt is served, and a renewed one without a restart', async () => {
  const live = '/etc/letsencrypt/live/rt.example.com';
  const renew = async () => {
    await box.run('mkdir', '-p', live);
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
      '-subj', '/CN=rt.example.com', '-addext', 'subjectAltName=DNS:rt.example.com',
      '-keyout', path.join(box.root, live, 'privkey.pem'), '-out', path.join(box.root, live, 'fullchain.pem'),
    ], { stdio: 'ignore' });
    await box.run('env', `RENEWED_LINEAGE=${live}`, 'sh', '/usr/share/doc/fanfare/examples/letsencrypt/deploy-hook');
    return new X509Certificate(await box.read(`${live}/fullchain.pem`)).fingerprint256;
  };
  const served = () => new Promise((resolve) => {
    const socket = tls.connect({ host: '127.0.0.1', port: 3002, servername: 'rt.example.com', rejectUnauthorized: false });
    socket.on('secureConnect', () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.on('error', () => resolve(null));
  });
  const first = await renew();
  const none = '[server.tls]\n#cert = ""\n#key = ""';
  const some = '[server.tls]\ncert = "/etc/fanfare/tls/fullchain.pem"\nkey = "/etc/fanfare/tls/privkey.pem"';
  await configure(none, some);
  await box.run('systemctl', 'restart', 'fanfare');
  await until('the certificate', PATIENCE_MS, async () => (await served()) === first);
  const before = await mainPid();
  const second = await renew();
  assert.notEqual(second, first);
  await until('the renewed certificate', PATIENCE_MS, async () => (await served()) === second);
  assert.equal(await mainPid(), before);
  await configure(some, none);
  await box.run('systemctl', 'restart', 'fanfare');
  await ready();
});

test('an upgrade under traffic keeps the edited file and loses nothing', async () => {
  await configure('#shutdown_grace = "10s"', 'shutdown_grace = "3s"');
  const edited = await box.read(CONFIG);
  await box.run('systemctl', 'reload', 'fanfare');
  const publishers = Array.from({ length: 10 }, (_, i) => new Publisher(apiKey, `post_u${i}`, 100));
  const followers = Array.from({ length: 50 }, (_, i) => new Follower(secret, `u${i}`, `post_u${i % 10}`));
  await until('all follow', PATIENCE_MS, () => followers.every((one) => one.opened && one.last));
  const before = await mainPid();
  refused.count = 0;

  // Without an answer to give, dpkg would ask whose file it is to be.
  await box.run('dpkg', '--force-confdef', '--force-confold', '--install', '/root/next.deb');
  await until('all are back', PATIENCE_MS, () => followers.every((one) => one.opened > 1 || one.faults.length));
  await Promise.all(publishers.map((one) => one.stop()));
  await eachFollowed(followers, publishers);
  for (const one of followers) one.stop();
  assert.equal(refused.count, 0, 'connections were refused');
  assert.notEqual(await mainPid(), before);
  assert.match(await box.run('dpkg-query', '--show', 'fanfare'), /\t9\.9\.9-1$/m);
  assert.equal(await box.read(CONFIG), edited);
  assert.match(await box.read(`${CONFIG}.dpkg-dist`), /A line of the next version/);
  assert.equal((await box.read('/etc/fanfare/api_keys')).split('\n')[0], apiKey);
});

test('a restart under 2,000 clients and 200 events a second: nobody refused, no gap', async () => {
  const publishers = Array.from({ length: 100 }, (_, i) => new Publisher(apiKey, `post_r${i}`, 500));
  const followers = [];
  for (let i = 0; i < 2_000; i += 1) {
    // A proxy's clients, each with an address of its own.
    followers.push(new Follower(secret, `r${i}`, `post_r${i % 100}`, `10.0.${i >> 8}.${i & 255}`));
    if (i % 50 === 49) await pause(50);
  }
  await until('all follow', PATIENCE_MS, () => followers.every((one) => one.opened && one.last));
  refused.count = 0;
  await box.run('systemctl', 'restart', 'fanfare');
  await until('all are back', PATIENCE_MS, () => followers.every((one) => one.opened > 1 || one.faults.length));
  await Promise.all(publishers.map((one) => one.stop()));
  await eachFollowed(followers, publishers);
  const events = publishers.reduce((sum, one) => sum + one.acknowledged, 0);
  console.log(`${followers.length} clients came back, ${events} events, ${refused.count} connections refused`);
  for (const one of followers) one.stop();
  assert.equal(refused.count, 0, 'connections were refused');
  assert.ok(followers.every((one) => one.recovered >= 1));
});

test('a log that is moved away is begun anew', async () => {
  const names = () => box.run('ls', '/var/log/fanfare').then((text) => text.trim().split('\n'));
  const today = (await names()).findLast((name) => name.endsWith('.log'));
  await box.run('mv', `/var/log/fanfare/${today}`, '/var/log/fanfare/moved');
  const pid = await mainPid();
  await box.run('systemctl', 'kill', '--signal', 'USR1', 'fanfare');
  await until('the file is back', PATIENCE_MS, async () => (await names()).includes(today));
  assert.equal(await mainPid(), pid);
  assert.match(await journal(), /the event log was opened anew/);
  await box.run('rm', '/var/log/fanfare/moved');
});

test('a reboot brings it back with its data', async () => {
  const before = await history('post_killed');
  await box.reboot();
  await ready();
  assert.deepEqual(await history('post_killed'), before);
});

test('a full disk refuses writes, and nothing else', async () => {
  await box.run('systemctl', 'stop', 'fanfare.socket', 'fanfare.service');
  await box.run('mount', '-t', 'tmpfs', '-o', 'size=192M', 'small', '/mnt');
  await box.run('cp', '-a', '/var/lib/fanfare/.', '/mnt/');
  await box.run('chown', 'fanfare:', '/mnt');
  await box.run('mount', '--move', '/mnt', '/var/lib/fanfare').catch(() =>
    box.run('sh', '-c', 'mount --bind /mnt /var/lib/fanfare'));
  await box.run('mount', '-t', 'tmpfs', '-o', 'size=64k,uid=fanfare,mode=750', 'small-log', '/var/log/fanfare');
  await box.run('systemctl', 'start', 'fanfare.socket', 'fanfare.service');
  await ready();
  const follower = new Follower(secret, 'ann', 'notifications_ann');
  await until('subscribed', PATIENCE_MS, () => follower.opened === 1);
  await box.run('sh', '-c', 'head -c 150M /dev/zero >/var/lib/fanfare/filler; head -c 1M /dev/zero >/var/log/fanfare/filler || true');

  await until('507', PATIENCE_MS, async () => (await publish('post_full', { type: 'tick', n: 1 })).status === 507);
  const another = new Follower(secret, 'bob', 'notifications_bob');
  await until('a line too many', PATIENCE_MS, async () => /less than logs\.free_bytes/.test(await journal()));
  another.stop();
  // Reads go on, sockets stay, and /ready says what is the matter.
  assert.ok((await history('post_killed')).length > 0);
  assert.ok(await answers('/health'));
  assert.equal(follower.socket.readyState, 1);
  const before = await mainPid();

  await box.run('rm', '/var/lib/fanfare/filler', '/var/log/fanfare/filler');
  await until('room again', PATIENCE_MS, async () => (await publish('post_full', { type: 'tick', n: 1 })).status === 200);
  await ready();
  assert.equal(await mainPid(), before);
  follower.stop();
  await until('lines again', PATIENCE_MS, async () => /the disk has room again/.test(await journal()));
  await box.run('systemctl', 'stop', 'fanfare.socket', 'fanfare.service');
  await box.run('sh', '-c', 'umount /var/log/fanfare; umount /var/lib/fanfare; umount /mnt 2>/dev/null || true');
  await box.run('systemctl', 'start', 'fanfare.socket', 'fanfare.service');
  await ready();
});

test('removed, it stops and leaves everything; reinstalled, it goes on', async () => {
  const before = await history('post_killed');
  await box.run('dpkg', '--remove', 'fanfare');
  await assert.rejects(request('GET', '/ready'));
  assert.equal((await box.try('systemctl', 'is-active', 'fanfare.service')).stdout.trim(), 'inactive');
  assert.equal((await box.run('ss', '-Hltn')).trim(), '');
  await box.run('test', '-e', '/var/lib/fanfare/fanfare.redb');
  await box.run('test', '-e', CONFIG);

  await box.run('dpkg', '--force-confdef', '--force-confold', '--install', '/root/next.deb');
  await ready();
  assert.equal((await box.run('systemctl', 'is-enabled', 'fanfare.service')).trim(), 'enabled');
  assert.equal((await box.read('/etc/fanfare/api_keys')).split('\n')[0], apiKey);
  assert.deepEqual(await history('post_killed'), before);
});

test('purged, nothing of it is left but the number of its user', async () => {
  await box.run('dpkg', '--purge', 'fanfare');
  const left = await box.run(
    'find', '/etc', '/usr', '/var/lib', '/var/log', '/run/systemd', '-name', '*fanfare*', '-not', '-path', '/var/lib/dpkg/*',
  );
  assert.equal(left, '');
  assert.equal((await box.run('ss', '-Hltn')).trim(), '');
  await box.run('getent', 'passwd', 'fanfare');
  const failed = await box.run('systemctl', 'list-units', '--failed', '--no-legend', '--plain');
  assert.equal(failed, '');
});

function upTo(n) {
  return Array.from({ length: n }, (_, i) => i + 1);
}
