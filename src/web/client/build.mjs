// Builds what the server serves and the package holds, into dist/. The files are committed: building
// the server needs no Node.
//
//   node build.mjs                 type-checks, writes dist/, type-checks an application that has it
//   node build.mjs --check         type-checks; fails if dist/ is not what a build gives, or is too large
//   node build.mjs --tests FOLDER  bundles test/*.test.ts for `node --test`

import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { minify } from 'terser';

const here = path.dirname(fileURLToPath(import.meta.url));
const at = (...parts) => path.join(here, ...parts);
/** Of fanfare.js, and of the classic script, gzipped: 8 KB, however they are counted. */
const MOST_BYTES = 8_000;

/**
 * Names that are neither the application's nor the wire's, nor used by one file of another (`frame`, `closed`,
 * `send`, `close`): a page that was opened before the server's upgrade loads its other parts after it.
 */
const INTERNAL = [
  ...['recovering', 'retryAt', 'harmless', 'waiting', 'member', 'tries', 'held', 'due'],
  ...['effects', 'deadline', 'command', 'names', 'fresh', 'anew', 'renewed', 'session'],
  ...['fromServer', 'fromTab', 'greeting', 'isTrying', 'moved', 'leads', 'lost', 'gone'],
  ...['signedOut', 'signedIn', 'noToken', 'unwant', 'hello', 'stored', 'locked', 'failed', 'want', 'wake', 'tick'],
  ...['phase', 'position', 'stage', 'shut', 'hurry', 'leave', 'enter', 'listen'],
];

/**
 * Short names for these and for private members, the same from build to build. Members of different classes may
 * have the same one, as long as no file knows both: the fewer names there are, the better they pack.
 */
function shortNames() {
  const files = readdirSync(at('src')).map((file) => readFileSync(at('src', file), 'utf8'));
  const places = new Map(INTERNAL.map((name) => [name, { everywhere: true, files: new Set() }]));
  const uses = new Map();
  files.forEach((text, file) => {
    for (const [name] of text.matchAll(/(?<![\w'"$])[_a-z]\w*/g)) {
      if (/^_[a-z]/.test(name) && name !== '_meta' && !places.has(name)) places.set(name, { files: new Set() });
      if (!places.has(name)) continue;
      places.get(name).files.add(file);
      uses.set(name, (uses.get(name) ?? 0) + 1);
    }
  });
  const letters = [...'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ$'];
  const free = [...letters, ...letters.flatMap((one) => letters.map((two) => one + two))]
    // Members that have such a name already.
    .filter((name) => !/^(at|id|ok|on|to|up)$/.test(name));
  const short = {};
  const meet = (one, other) => one.everywhere || other.everywhere || [...one.files].some((file) => other.files.has(file));
  for (const name of [...uses.keys()].sort((a, b) => uses.get(b) - uses.get(a) || (a < b ? -1 : 1))) {
    const taken = new Set(Object.keys(short).filter((other) => meet(places.get(name), places.get(other))).map((other) => short[other]));
    short[name] = free.find((one) => !taken.has(one));
  }
  return short;
}

const common = {
  bundle: true,
  minify: true,
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  mangleProps: new RegExp(`^(_[a-z].*|${INTERNAL.join('|')})$`),
  reserveProps: /^_meta$/,
  mangleCache: shortNames(),
  write: false,
  absWorkingDir: here,
  tsconfigRaw: { compilerOptions: { useDefineForClassFields: false } },
};

const TERSER = { module: true, ecma: 2022, compress: { passes: 3, reduce_funcs: false, lhs_constants: false } };

async function scripts() {
  const one = async (entry, options) => {
    const made = await build({ ...common, entryPoints: [`src/${entry}.ts`], ...options });
    // What esbuild has left; the names that it gave to members stay.
    const { code } = await minify(made.outputFiles[0].text, TERSER);
    return `${code}\n`;
  };
  const beside = {
    name: 'beside',
    setup(build) {
      build.onResolve({ filter: /^\.\/index\.js$/ }, () => ({ path: './fanfare.js', external: true }));
      build.onResolve({ filter: /^\.\/stream\.js$/ }, () => ({ path: './fanfare-stream.js', external: true }));
      build.onResolve({ filter: /^\.\/wallet\.js$/ }, () => ({ path: './fanfare-wallet.js', external: true }));
    },
  };
  const library = await one('index', { format: 'esm', plugins: [beside] });
  return {
    'fanfare.js': library,
    'fanfare-stream.js': await one('stream', { format: 'esm' }),
    'fanfare-wallet.js': await one('wallet', { format: 'esm' }),
    'fanfare.classic.js': classic(library),
    'fanfare-compat.js': await one('compat', { format: 'esm', plugins: [beside] }),
    'fanfare-react.js': await one('react', { format: 'esm', plugins: [beside], external: ['react'] }),
  };
}

/** The same for a page without modules: `Fanfare` has what the module exports. */
function classic(library) {
  const exported = /export\{([^}]*)\};\s*$/.exec(library);
  const members = exported[1].split(',').map((one) => one.split(' as ').reverse().join(':'));
  return `var Fanfare=(()=>{${library.slice(0, exported.index)}return{${members}}})();\n`;
}

function node(script, ...parameters) {
  execFileSync(process.execPath, [at('node_modules', script), ...parameters], { cwd: here, stdio: ['ignore', 2, 'inherit'] });
}

function types() {
  const folder = mkdtempSync(path.join(tmpdir(), 'fanfare-types-'));
  try {
    const library = path.join(folder, 'fanfare.d.ts');
    node('dts-bundle-generator/dist/bin/dts-bundle-generator.js', '--silent', '--no-banner', '--no-check', '--export-referenced-types=false', '--project', 'tsconfig.json', '-o', library, 'src/index.ts');
    const made = { 'fanfare.d.ts': readFileSync(library, 'utf8') };
    // The others speak of the library's own types: a copy of a class with private members is another class.
    node('typescript/bin/tsc', '--project', '.', '--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', folder);
    for (const entry of ['compat', 'wallet', 'react']) {
      const text = readFileSync(path.join(folder, 'src', `${entry}.d.ts`), 'utf8');
      made[`fanfare-${entry}.d.ts`] = text.replaceAll("'./index.js'", "'./fanfare.js'");
    }
    return made;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** That an application that uses the package as its README says passes the compiler, however this finds modules. */
function applications() {
  for (const [module, resolution] of [['NodeNext', 'NodeNext'], ['ESNext', 'Bundler']]) {
    node('typescript/bin/tsc', '--project', 'test/application', '--module', module, '--moduleResolution', resolution);
  }
}

async function tests(folder) {
  const entries = readdirSync(at('test')).filter((name) => name.endsWith('.test.ts'));
  await build({
    entryPoints: entries.map((name) => at('test', name)),
    outdir: path.resolve(folder),
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node18',
    sourcemap: 'inline',
    absWorkingDir: here,
  });
}

const [mode, folder] = process.argv.slice(2);
if (mode === '--tests') {
  await tests(folder);
} else {
  node('typescript/bin/tsc', '--project', '.');
  const made = { ...(await scripts()), ...types() };
  for (const name of ['fanfare.js', 'fanfare.classic.js']) {
    const packed = gzipSync(made[name], { level: 9 }).length;
    console.log(`${name}: ${made[name].length} bytes, ${packed} gzipped (at most ${MOST_BYTES})`);
    if (packed > MOST_BYTES) throw new Error(`${name} is too large: ${packed} bytes gzipped`);
  }
  if (mode === '--check') {
    const there = readdirSync(at('dist')).sort();
    const expected = Object.keys(made).sort();
    if (String(there) !== String(expected)) throw new Error(`dist/ has ${there}, a build gives ${expected}`);
    for (const [name, text] of Object.entries(made)) {
      if (readFileSync(at('dist', name), 'utf8') !== text) throw new Error(`dist/${name} is not what a build gives: run "node build.mjs" in src/web/client`);
    }
  } else {
    mkdirSync(at('dist'), { recursive: true });
    for (const [name, text] of Object.entries(made)) writeFileSync(at('dist', name), text);
  }
  applications();
}
