// The log of the test page: every frame and every request, as they pass. It stands between the page and
// the browser's own WebSocket and fetch, so it has to be loaded before anything uses them.

const LINES = 500;
const $ = (id) => document.getElementById(id);

let isPaused = false;
/** Lines since the log was cleared, also those that it no longer has, and those that wait for the end of a pause. */
let arrived = 0;
let waiting = [];

export function log(direction, text) {
  const line = document.createElement('li');
  line.dataset.direction = direction;
  const time = document.createElement('time');
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toTimeString().slice(0, 8) + '.' + String(now.getMilliseconds()).padStart(3, '0');
  const arrow = document.createElement('b');
  arrow.textContent = { in: '↓', out: '↑', error: '!', note: '·' }[direction];
  arrow.title = { in: 'received', out: 'sent', error: 'error', note: 'this page' }[direction];
  const what = document.createElement('span');
  what.textContent = withoutTokens(text);
  line.append(time, arrow, what);
  arrived++;
  waiting.push(line);
  if (waiting.length > LINES) waiting.shift();
  if (isPaused) count();
  else append();
}

/** What waited becomes part of the log. */
function append() {
  const list = $('log');
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  for (const line of waiting) line.hidden = !matches(line);
  list.append(...waiting.splice(0));
  while (list.childElementCount > LINES) list.firstElementChild.remove();
  count();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

export function clearLog() {
  arrived = 0;
  waiting = [];
  $('log').replaceChildren();
  count();
}

/** People copy and photograph the log: tokens are cut short. */
function withoutTokens(text) {
  return text
    .replace(/\b(eyJ[\w-]{5})[\w-]*\.[\w-]+\.[\w-]+/g, '$1…')
    .replace(/("(?:refreshToken|signature)":"[^"]{0,8})[^"]*/g, '$1…');
}

const words = () => $('filter').value.toLowerCase().split(/\s+/);
const matches = (line) => words().every((word) => line.textContent.toLowerCase().includes(word));

function count() {
  const lines = [...$('log').children];
  const shown = lines.filter((line) => !line.hidden).length;
  const number = (value) => value.toLocaleString('en-GB');
  const lost = arrived > lines.length;
  let text = `${number(arrived)} line${arrived === 1 ? '' : 's'}`;
  if (shown < lines.length) text = `${number(shown)} of ${number(lines.length)} lines${lost ? ` (${number(arrived)} in all)` : ''}`;
  else if (lost) text = `${number(shown)} of ${text}`;
  $('log-count').textContent = isPaused ? `${text}, paused` : text;
}

$('filter').addEventListener('input', () => {
  for (const line of $('log').children) line.hidden = !matches(line);
  count();
});
$('pause-log').addEventListener('click', () => {
  isPaused = !isPaused;
  $('pause-log').setAttribute('aria-pressed', String(isPaused));
  if (isPaused) count();
  else append();
});

// ---- what passes

window.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols);
    log('note', `Connecting to ${url}`);
    this.addEventListener('message', ({ data }) => log('in', String(data)));
    this.addEventListener('close', ({ code, reason }) => log('note', `Closed: ${code} ${reason}`));
  }
  send(data) {
    log('out', String(data));
    super.send(data);
  }
};

const fetchOfBrowser = window.fetch;
window.fetch = async (url, options = {}) => {
  const { method = 'GET', body } = options;
  log('out', `${method} ${url}${body ? ` ${body}` : ''}`);
  const answer = await fetchOfBrowser(url, options);
  const text = await answer.clone().text();
  const wait = answer.headers.get('Retry-After');
  log('in', `${answer.status} ${text.slice(0, 2000)}${wait ? ` (again in ${wait} s)` : ''}`);
  return answer;
};
