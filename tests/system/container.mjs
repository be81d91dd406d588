// A Debian that boots a real systemd beside this process, in the same network.

import { execFile, spawn } from 'node:child_process';
import { readdir, readFile, rm, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { until } from '../browser/server.mjs';

const exec = promisify(execFile);
const BOOT_PATIENCE_MS = 60_000;

export class Container {
  /** Unpacks the archive into `root`, in place of what was there. */
  static async unpack(archive, root) {
    await rm(root, { recursive: true, force: true });
    await mkdir(root, { recursive: true });
    await exec('tar', ['-C', root, '-xf', archive]);
    return new Container(root);
  }

  constructor(root) {
    this.root = root;
    this.console = '';
  }

  /** Starts it; resolves when systemd says that everything is started. */
  async boot() {
    this.nspawn = spawn(
      'setpriv',
      [
        // It must not outlive the tests, however they end.
        '--pdeathsig', 'KILL', '--', 'systemd-nspawn', '--quiet', '--boot', '--register=no',
        '--keep-unit', '--console=pipe', '--resolv-conf=off', '--timezone=off', `--network-namespace-path=/proc/${process.pid}/ns/net`,
        '--machine=fanfare-test', '--directory', this.root,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    this.nspawn.stdout.on('data', (data) => (this.console += data));
    this.nspawn.stderr.on('data', (data) => (this.console += data));
    this.ended = new Promise((resolve) => this.nspawn.on('close', resolve));
    let ended = false;
    this.ended.then(() => (ended = true));
    try {
      await until('the container is up', BOOT_PATIENCE_MS, async () => {
        if (ended) throw new Error('the container ended');
        this.leader = (await children(this.nspawn.pid))[0];
        if (!this.leader) return false;
        const { stdout } = await this.try('systemctl', 'is-system-running');
        return /^(running|degraded)$/.test(stdout.trim());
      });
    } catch (error) {
      throw new Error(`${error.message}; its console:\n${this.console}`);
    }
  }

  /** Runs a command in it; throws what it said if it fails; else its stdout. */
  async run(...command) {
    const { code, stdout, stderr } = await this.try(...command);
    if (code !== 0) {
      throw new Error(`${command.join(' ')}: exit code ${code}\n${stdout}${stderr}`);
    }
    return stdout;
  }

  /** Runs a command in it. */
  try(...command) {
    return this.#spawn(command, 'ignore');
  }

  /** Puts `text` into a file in it; owner and mode of one that is there stay. */
  async write(file, text) {
    const { code, stderr } = await this.#spawn(['sh', '-c', 'cat >"$0"', file], 'pipe', text);
    if (code !== 0) throw new Error(`${file}: ${stderr}`);
  }

  read(file) {
    return this.run('cat', file);
  }

  /** A property of a unit. */
  async show(unit, property) {
    return (await this.run('systemctl', 'show', '--value', '--property', property, unit)).trim();
  }

  /** Asks it to reboot, and does what a machine would do then. */
  async reboot() {
    await this.try('systemctl', 'reboot');
    const code = await this.ended;
    // systemd-nspawn(1): of a reboot, when it is not to do that itself.
    if (code !== 133) throw new Error(`not a reboot: ${code}\n${this.console}`);
    await this.boot();
  }

  /** Ends it, whatever it does. */
  async end() {
    if (!this.nspawn || this.nspawn.exitCode !== null) return;
    await this.try('systemctl', 'poweroff', '--force');
    const late = setTimeout(() => this.nspawn.kill('SIGKILL'), 10_000);
    await this.ended;
    clearTimeout(late);
  }

  #spawn(command, stdin, input) {
    return new Promise((resolve, reject) => {
      const child = spawn('nsenter', ['-t', String(this.leader), '-a', '--', ...command], {
        stdio: [stdin, 'pipe', 'pipe'],
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' },
      });
      let stdout = '';
      let stderr = '';
      child.stdout.on('data', (data) => (stdout += data));
      child.stderr.on('data', (data) => (stderr += data));
      child.on('error', reject);
      child.on('close', (code) => resolve({ code, stdout, stderr }));
      if (input !== undefined) child.stdin.end(input);
    });
  }
}

/** The processes that this one started. */
async function children(pid) {
  const found = [];
  for (const task of await readdir(`/proc/${pid}/task`).catch(() => [])) {
    const text = await readFile(path.join('/proc', String(pid), 'task', task, 'children'), 'utf8').catch(() => '');
    found.push(...text.split(' ').filter(Boolean));
  }
  return found;
}
