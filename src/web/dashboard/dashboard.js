// The dashboard: the last hour from /hour, what there is now from /stats, drawn anew every five seconds.
'use strict';

const HOUR_MS = 3_600_000;
/** What the charts show: as much as there is, an hour at most. In minutes. */
const WINDOWS = [5, 15, 30, 60];
const REQUEST_TIMEOUT_MS = 8_000;
const RETRY_MS = 5_000;
const ROWS = 10;
const SVG = 'http://www.w3.org/2000/svg';
const KEY = 'fanfare-metrics-token';

const $ = (id) => document.getElementById(id);

/** Samples as objects, oldest first; `next` is the number of the one to ask for. */
let samples = [];
let next = 0;
/** The last figures, and when they came. */
let figures;
let token = sessionStorage.getItem(KEY) ?? '';
let timer;

// ---- numbers

const count = (value) => Math.round(value).toLocaleString('en-GB');
const several = (number, what) => `${count(number)} ${what}${number === 1 ? '' : 's'}`;
const clock = (at) => new Date(at).toLocaleTimeString('en-GB');
const rate = (value) => (value < 10 ? value.toFixed(1) : count(value));
const percent = (value) => `${value.toFixed(value < 10 ? 1 : 0)} %`;
function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
function micros(value) {
  if (value >= 1_000_000) return `${(value / 1_000_000).toFixed(1)} s`;
  return value < 1_000 ? `${Math.round(value)} µs` : `${(value / 1_000).toFixed(value < 10_000 ? 1 : 0)} ms`;
}

// ---- what is shown

/** What a total grew by in a second, from one sample to the next. */
const perSecond = (name, scale = 1) => (now, before) =>
  before && now.at > before.at ? (Math.max(0, now[name] - before[name]) / (now.at - before.at)) * 1_000 * scale : null;
const level = (name) => (now) => now[name];
/** Zero: there was nothing to measure. */
const measured = (name) => (now) => now[name] || null;

const CHARTS = [
  { title: 'Connections', format: count, series: [['open', level('connections')]] },
  { title: 'Messages and deliveries a second', format: rate, series: [['messages', perSecond('messagesTotal')], ['deliveries', perSecond('deliveriesTotal')], ['published', perSecond('publicationsTotal')]] },
  { title: 'From publication to the sockets', format: micros, series: [['p50', measured('deliveryP50')], ['p90', measured('deliveryP90')], ['p99', measured('deliveryP99')]] },
  { title: 'Wait of an event for its worker', format: micros, series: [['p50', level('latencyP50')], ['p90', level('latencyP90')], ['p99', level('latencyP99')]] },
  { title: 'Authentication failures a minute', format: rate, series: [['refused', perSecond('authFailuresTotal', 60)], ['server faults', perSecond('errorsTotal', 60)]] },
  { title: 'Queues', format: count, series: [['for workers', level('queuedEvents')], ['for the store', level('queuedWrites')]] },
  { title: 'Answers of Redis', format: micros, needs: 'redis', series: [['p50', measured('redisP50')], ['p99', measured('redisP99')]] },
  { title: 'Store', format: bytes, without: 'redis', base: 1024, series: [['used', level('storeBytes')]] },
  { title: 'Memory', format: bytes, base: 1024, series: [['resident', level('residentBytes')]] },
  { title: 'CPU, of one core', format: percent, series: [['user and system', perSecond('cpuMillisecondsTotal', 0.1)]] },
];

const TABLES = [
  ['Authentication failures by check', (stats) => stats.server.authFailuresByCheck],
  ['Channels by subscribers', (stats) => stats.connectionsByChannel],
  ['Messages by type', (stats) => stats.messagesByType],
  ['Closed connections by reason', (stats) => stats.server.closesByReason],
  ['Refused by limit', (stats) => stats.server.limited],
  ['Published by', (stats) => stats.server.publications],
];

/** Of a broker that is a Redis: what, and how it is now. */
const REDIS = [
  ['state', ({ broker }) => broker.state + (broker.reason ? `: ${broker.reason}` : '')],
  ['connections made', ({ redis }) => count(redis.connections)],
  ['commands under way', ({ redis }) => count(redis.commandsInFlight)],
  ['failed commands', ({ redis }) => count(redis.failures)],
  ['events read again', ({ redis }) => count(redis.holes)],
  ['channels with a gap', ({ redis }) => count(redis.gaps)],
  ['writes without replica', ({ redis }) => count(redis.unreplicatedWrites)],
];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawing(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

for (const chart of CHARTS) {
  chart.now = element('div', { className: 'now' });
  chart.moment = element('time');
  chart.svg = drawing('svg', { viewBox: '0 0 720 100', preserveAspectRatio: 'none', role: 'img' });
  chart.top = element('span', { className: 'top', ariaHidden: 'true' });
  chart.lines = chart.series.map(() => drawing('path', { class: 'series' }));
  chart.cross = drawing('line', { class: 'cross', y1: 0, y2: 100 });
  for (const y of [0, 50, 100]) chart.svg.append(drawing('line', { class: 'grid', x1: 0, x2: 720, y1: y, y2: y }));
  chart.svg.append(...chart.lines, chart.cross);
  chart.times = ['', '', 'now'].map((textContent) => element('span', { textContent }));
  const times = element('div', { className: 'times', ariaHidden: 'true' }, ...chart.times);
  const plot = element('div', { className: 'plot' }, chart.svg, chart.top);
  plot.onpointermove = (event) => {
    const box = chart.svg.getBoundingClientRect();
    point(chart, Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  plot.onpointerleave = () => show(chart, chart.values?.length - 1);
  chart.article = element('article', { hidden: !!chart.needs }, element('h2', {}, chart.title, ' ', chart.moment), chart.now, plot, times);
  $('charts').append(chart.article);
}

const lists = TABLES.map(([title]) => {
  const body = element('div');
  $('tables').append(element('article', {}, element('h2', { textContent: title }), body));
  return body;
});

/** The values of one moment, and when that was unless it is the last. */
function show(chart, index) {
  const values = chart.values?.[index];
  const told = chart.series.map(([name], n) => [name, values?.of[n] == null ? null : chart.format(values.of[n])]);
  // The spaces are for those who hear it or copy it.
  chart.now.replaceChildren(...told.flatMap(([name, value]) => [element('span', {}, element('b', { textContent: value ?? '–' }), ' ', name), ' ']));
  const isLast = !values || index === chart.values.length - 1;
  chart.moment.textContent = isLast ? '' : clock(values.at);
  if (!isLast) return;
  const words = told.map(([name, value]) => (value === null ? `${name} not measured` : `${value} ${name}`));
  chart.svg.setAttribute('aria-label', `${chart.title}, ${chart.times[2].textContent}: ${words.join(', ')}`);
}

/** `where` from 0 (the left end) to 1 (now). */
function point(chart, where) {
  if (!chart.values?.length) return;
  const at = chart.end - chart.span * (1 - where);
  let nearest = 0;
  chart.values.forEach((value, n) => {
    if (Math.abs(value.at - at) < Math.abs(chart.values[nearest].at - at)) nearest = n;
  });
  const x = 720 * (1 - (chart.end - chart.values[nearest].at) / chart.span);
  chart.cross.setAttribute('x1', x);
  chart.cross.setAttribute('x2', x);
  show(chart, nearest);
}

/** A round number not below `value`; of bytes, a power of two. */
function roof(value, base) {
  if (!(value > 0)) return 1;
  if (base) return 2 ** Math.ceil(Math.log2(value));
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function draw(chart) {
  chart.end = samples.length ? samples[samples.length - 1].at : Date.now();
  const age = samples.length ? chart.end - samples[0].at : 0;
  const minutes = WINDOWS.find((minutes) => minutes * 60_000 >= age) ?? 60;
  chart.span = minutes * 60_000;
  chart.times[0].textContent = `−${minutes} min`;
  chart.times[1].textContent = `−${minutes / 2} min`;
  chart.times[2].textContent = isStale() ? `at ${clock(chart.end)}` : 'now';
  chart.values = samples.map((now, n) => ({ at: now.at, of: chart.series.map(([, value]) => value(now, samples[n - 1])) }));
  const top = roof(Math.max(0, ...chart.values.flatMap(({ of }) => of)), chart.base);
  chart.top.textContent = chart.format(top);
  chart.lines.forEach((line, n) => {
    const points = chart.values
      .filter(({ of }) => of[n] != null)
      .map(({ at, of }) => `${(720 * (1 - (chart.end - at) / chart.span)).toFixed(1)} ${(100 - (100 * of[n]) / top).toFixed(1)}`);
    const isPoint = points.length === 1;
    line.classList.toggle('point', isPoint);
    line.setAttribute('d', points.length ? `M${points.join('L')}${isPoint ? 'h0' : ''}` : '');
  });
  show(chart, chart.values.length - 1);
}

function fill(list, title, counts) {
  const entries = Object.entries(counts ?? {}).sort((a, b) => b[1] - a[1]);
  if (!entries.length) {
    list.replaceChildren(element('p', { className: 'none', textContent: 'none' }));
    return;
  }
  const rows = entries.slice(0, ROWS).map(([name, number]) => [name, count(number)]);
  const more = entries.length - rows.length;
  const rest = more > 0 ? [element('p', { className: 'none', textContent: `and ${count(more)} more` })] : [];
  list.replaceChildren(table(title, rows), ...rest);
}

function table(title, rows) {
  const cells = ([name, value]) => element('tr', {}, head(name), element('td', { textContent: value, title: value }));
  return element('table', { ariaLabel: title }, element('tbody', {}, ...rows.map(cells)));
}

const head = (name) => element('th', { scope: 'row', textContent: name, title: name });

/** The Redis in detail, if there is one. */
function describeRedis({ server }) {
  const { redis } = server;
  $('redis').hidden = !redis;
  for (const { article, needs, without } of CHARTS) article.hidden = !!(needs && !server[needs]) || !!(without && server[without]);
  if (!redis) return;
  const servers = redis.servers.flatMap((one) => [
    [one.server, one.role],
    ['memory', bytes(one.usedBytes) + (one.maxBytes ? ` of ${bytes(one.maxBytes)}` : ', no limit')],
    ['evicted keys', count(one.evictedKeys)],
  ]);
  $('redis-rows').replaceChildren(table('Redis', [...REDIS.map(([name, value]) => [name, value(server)]), ...servers]));
}

function describe(stats) {
  const { server } = stats;
  $('about').textContent = `node ${server.node}, version ${server.version}, up ${stats.uptime}, ${several(server.channels, 'channel')}, ${several(server.subscriptions, 'subscription')}`;
  const states = [
    ['broker', server.broker.state, server.broker.reason],
    ['store', server.store.state, server.store.reason],
  ].map(([name, state, reason]) => [`${name} ${state}${reason ? `: ${reason}` : ''}`, { up: 'good', unknown: 'unknown' }[state] ?? 'bad']);
  if (server.draining) states.push(['draining', 'bad']);
  for (const alert of server.alerts) states.push([`alert: ${alert.replaceAll('_', ' ')}`, 'bad']);
  const items = states.map(([textContent, state]) => {
    const item = element('li', { textContent });
    item.dataset.state = state;
    return item;
  });
  // It is read out whenever it is written: only if there is something new.
  if ($('states').textContent !== items.map((item) => item.textContent).join('')) $('states').replaceChildren(element('ul', { ariaLabel: 'State' }, ...items));
}

/** The figures without what only an answer can tell: how it is now. */
function withoutState({ server, ...rest }) {
  return { ...rest, server: { ...server, broker: { state: 'unknown' }, store: { state: 'unknown' }, draining: false, alerts: [] } };
}

const isStale = () => 'stale' in document.body.dataset;

/** Draws what is known; `isNow` if the server has just told it. */
function showAll(isNow) {
  if (isNow) delete document.body.dataset.stale;
  else document.body.dataset.stale = '';
  const stats = isNow ? figures.stats : withoutState(figures.stats);
  describe(stats);
  describeRedis(stats);
  CHARTS.forEach(draw);
  TABLES.forEach(([title, counts], n) => fill(lists[n], title, counts(stats)));
  $('updated').textContent = `as of ${clock(figures.at)}`;
}

// ---- who is connected: asked when somebody wants to know, not every five seconds

let following = 0;

function filters() {
  const entries = ['user', 'address', 'channel'].map((name) => [name, $(`by-${name}`).value.trim()]);
  return new URLSearchParams(entries.filter(([, value]) => value));
}

/** The first page, or the one behind number `after`. */
async function list(after) {
  const query = filters();
  if (after) query.set('after', after);
  const mine = ++following;
  const told = (text) => {
    $('roster-told').textContent = text;
  };
  try {
    const { connections, next } = await ask(`/connections?${query}`);
    if (mine !== following) return;
    const cells = ({ userId, address, connectedAt, transport, channels, connectionId }) => [
      head(userId),
      ...[address, new Date(connectedAt).toLocaleString('en-GB'), transport, count(channels), connectionId].map((textContent) => element('td', { textContent, title: textContent })),
    ];
    const rows = connections.map((one) => element('tr', {}, ...cells(one)));
    if (after) $('roster-rows').append(...rows);
    else $('roster-rows').replaceChildren(...rows);
    const shown = $('roster-rows').children.length;
    // The button goes: who pressed it goes on with what it brought.
    if (!next && document.activeElement === $('roster-more')) {
      if (rows[0]) rows[0].tabIndex = -1;
      (rows[0] ?? $('roster-table')).focus();
    }
    told(shown ? `${count(shown)} shown${next ? '' : ', no more'}` : 'Nobody fits.');
    $('roster-table').hidden = !shown;
    $('roster-more').hidden = !next;
    $('roster-more').onclick = () => void list(next);
  } catch (error) {
    if (mine !== following) return;
    told(error.message);
    // What is there answers another question.
    if (!after) for (const id of ['roster-table', 'roster-more']) $(id).hidden = true;
  }
}

$('roster').ontoggle = () => $('roster').open && list();
$('roster-filter').onsubmit = (event) => {
  event.preventDefault();
  void list();
};

// ---- asking

function fail() {
  throw new Error('The server cannot be reached.');
}

async function ask(path) {
  const answer = await fetch(path, {
    cache: 'no-store',
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  }).catch(fail);
  if (answer.status === 401) throw Object.assign(new Error('The token is missing or wrong.'), { isToken: true });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({}));
    throw new Error(error ? `${error}.` : `${path} was answered ${answer.status}.`);
  }
  return answer.json().catch(fail);
}

async function update() {
  clearTimeout(timer);
  let pause = RETRY_MS;
  try {
    const [hour, stats] = await Promise.all([ask(`/hour/${next}`), ask('/stats')]);
    // Another number than expected: the server was started anew.
    if (hour.first !== next) samples = [];
    const fresh = hour.samples.map((sample) => Object.fromEntries(hour.columns.map((name, n) => [name, sample[n]])));
    samples = [...samples, ...fresh].slice(-HOUR_MS / hour.intervalMs);
    next = hour.next;
    pause = hour.intervalMs;
    figures = { stats, at: Date.now() };
    showAll(true);
    $('notice').hidden = true;
    $('entry').hidden = true;
    // A link cannot bring the token along.
    $('raw').hidden = !!token;
  } catch (error) {
    if (figures) showAll(false);
    const from = figures ? ` What is shown is from ${clock(figures.at)}.` : '';
    const text = error.isToken ? error.message : `${error.message} Trying again.${from}`;
    // It is read out whenever it is written.
    if ($('notice').textContent !== text || $('notice').hidden) $('notice').textContent = text;
    $('notice').hidden = false;
    if (error.isToken) {
      $('entry').hidden = false;
      $('raw').hidden = true;
      $('notice').hidden = !token;
      $('token').focus();
      return;
    }
  }
  timer = setTimeout(update, pause);
}

$('entry').onsubmit = (event) => {
  event.preventDefault();
  token = $('token').value.trim();
  sessionStorage.setItem(KEY, token);
  void update();
};
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && update());
void update();
