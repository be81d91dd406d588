// The test page: a person's hands on the API. Everything that goes in or out is in the log, and
// nothing fails in silence.
'use strict';

const LOG_LINES = 500;
const REQUEST_TIMEOUT_MS = 10_000;

const $ = (id) => document.getElementById(id);

/** The open or opening socket, else null. */
let socket = null;
/** Replies that are awaited: command id -> { what, at (ms) }. */
const awaited = new Map();
let lastId = 0;

// ---- log and notices

function log(direction, text) {
  const list = $('log');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
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
  what.textContent = text;
  line.append(time, arrow, what);
  list.append(line);
  while (list.childElementCount > LOG_LINES) list.firstElementChild.remove();
  $('log-count').textContent = `${list.childElementCount} lines`;
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function complain(text) {
  log('error', text);
  $('notice').textContent = text;
  $('notice').hidden = false;
}

function calm() {
  $('notice').hidden = true;
  $('notice').textContent = '';
}

/** A text fit for the log, which people copy and photograph: tokens are cut short. */
function withoutTokens(text) {
  return text
    .replace(/\b(eyJ[\w-]{5})[\w-]*\.[\w-]+\.[\w-]+/g, '$1…')
    .replace(/("refreshToken":"[^"]{0,8})[^"]*/g, '$1…');
}

// ---- HTTP

/** Calls the API; the answer's JSON, or an Error whose message is fit for a person. */
async function call(method, path, { token, body } = {}) {
  log('out', `${method} ${path}${body ? ' ' + JSON.stringify(body) : ''}`);
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      cache: 'no-store',
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  } catch (error) {
    const late = error.name === 'TimeoutError';
    throw new Error(late ? 'The server did not answer in time.' : 'The server cannot be reached. Is it running?');
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // Some proxy's page, perhaps: shown as it is below.
  }
  log('in', withoutTokens(`${response.status} ${text.slice(0, 2000)}`));
  if (response.ok && answer) return answer;
  const wait = response.headers.get('Retry-After');
  const reason = answer?.error ?? text.slice(0, 200);
  throw new Error(`${reason} (${response.status})${wait ? `. Try again in ${wait} s.` : ''}`);
}

// ---- wallet and token

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

function base58(bytes) {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let text = '';
  for (; number > 0n; number /= 58n) text = BASE58[Number(number % 58n)] + text;
  const zeros = bytes.findIndex((byte) => byte !== 0);
  return '1'.repeat(zeros < 0 ? bytes.length : zeros) + text;
}

function currentToken() {
  return $('token').value.trim();
}

function setToken(token) {
  $('token').value = token;
  showToken();
}

/** The claims of a token, not verified: the server does that. */
function claimsOf(token) {
  const decode = (part) => {
    const binary = atob(part.replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (c) => c.charCodeAt(0))));
  };
  const parts = token.split('.');
  if (parts.length !== 3) throw new Error('a token has three parts');
  return { header: decode(parts[0]), claims: decode(parts[1]) };
}

function showToken() {
  const token = currentToken();
  sessionStorage.setItem('fanfare-token', token);
  $('verified').textContent = '';
  if (!token) {
    $('decoded').textContent = 'no token';
  } else {
    try {
      const { header, claims } = claimsOf(token);
      $('decoded').textContent = JSON.stringify({ header, claims }, null, 2);
    } catch (error) {
      $('decoded').textContent = `This is not a token: ${error.message}`;
    }
  }
  showExpiry();
}

function showExpiry() {
  let text = '';
  let expired = false;
  try {
    const exp = claimsOf(currentToken()).claims.exp;
    const left = Math.round(exp - Date.now() / 1000);
    expired = left <= 0;
    const at = new Date(exp * 1000).toLocaleTimeString();
    text = expired
      ? `Expired at ${at}.`
      : `Expires at ${at}, in ${Math.floor(left / 60)} min ${String(left % 60).padStart(2, '0')} s.`;
  } catch {
    // No token, or no readable expiry: the decoded form tells which.
  }
  if ($('expiry').textContent !== text) $('expiry').textContent = text;
  $('expiry').dataset.expired = String(expired);
}

async function signIn(event) {
  event.preventDefault();
  calm();
  const wallet = $('wallet').value.trim();
  sessionStorage.setItem('fanfare-wallet', wallet);
  $('get-token').disabled = true;
  try {
    const answer = await call('POST', '/api/auth/wallet', { body: { wallet } });
    setToken(answer.token);
    const { id, nickname } = answer.user;
    $('user').textContent = `Signed in as user ${id}${nickname ? ` (${nickname})` : ''}.`;
    $('user').hidden = false;
    $('decoded-box').open = true;
  } catch (error) {
    const hint = /signature required/i.test(error.message)
      ? ' This server wants the address proven. Paste a token below, or start the server with --dev.'
      : '';
    complain(`No token: ${error.message}${hint}`);
  } finally {
    $('get-token').disabled = false;
  }
}

async function verify() {
  calm();
  $('verified').textContent = '';
  try {
    const answer = await call('GET', '/api/auth/wallet', { token: currentToken() });
    $('verified').textContent = `Valid: user ${answer.userId}, until ${new Date(answer.expiresAt).toLocaleTimeString()}.`;
  } catch (error) {
    complain(`Not verified: ${error.message}`);
  }
}

function logOut() {
  calm();
  setToken('');
  $('user').hidden = true;
  if (socket) socket.close(1000, 'logged out');
  log('note', 'Logged out: the token is dropped.');
}

// ---- socket

function connect() {
  calm();
  const url = new URL('/ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  if (currentToken()) url.searchParams.set('token', currentToken());
  log('note', `Connecting to ${withoutTokens(url.href)}`);
  const opening = new WebSocket(url);
  let opened = false;
  socket = opening;
  showState('opening', 'connecting');
  opening.onopen = () => {
    opened = true;
    log('note', 'Open; waiting for the greeting.');
  };
  opening.onmessage = (event) => receive(event.data);
  // The error event says nothing; the close event that follows it does.
  opening.onclose = (event) => {
    socket = null;
    awaited.clear();
    $('subscriptions').replaceChildren();
    $('round-trip').textContent = '';
    const reason = event.reason ? ` ${event.reason}` : '';
    if (event.code === 1000 || event.code === 1005) {
      log('note', `Closed: ${event.code}${reason}`);
      showState('closed', 'not connected');
      return;
    }
    showState('lost', `closed: ${event.code}${reason}`);
    complain(explain(event.code, event.reason, opened));
  };
}

function explain(code, reason, opened) {
  if (!opened) return 'The socket could not be opened. Is the server running, and does it allow this origin?';
  if (code === 1006) return 'The connection was lost without a goodbye: the server or the network went away.';
  if (code === 1008) return `The server refused the socket: ${reason || 'policy'} (1008). The token is missing, expired or not for this server.`;
  const back = code >= 4100 && code < 4300 ? ' A client should connect again.' : '';
  return `The server closed the socket: ${reason || 'no reason given'} (${code}).${back}`;
}

function showState(state, text) {
  $('state').dataset.state = state;
  $('state').textContent = text;
  const open = state === 'open';
  $('connect').disabled = socket !== null;
  $('disconnect').disabled = socket === null;
  $('ping').disabled = !open;
  $('subscribe').disabled = !open;
}

/** Sends a command; its reply, or the error instead of it, will bear the id. */
function command(what, message) {
  if (socket?.readyState !== WebSocket.OPEN) {
    complain('Not connected.');
    return;
  }
  lastId += 1;
  awaited.set(lastId, { what, at: performance.now() });
  const text = JSON.stringify({ ...message, id: lastId });
  log('out', text);
  socket.send(text);
}

function receive(text) {
  log('in', withoutTokens(String(text)));
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    complain('The server sent something that is not JSON.');
    return;
  }
  const asked = awaited.get(message.id);
  awaited.delete(message.id);
  const data = message.data ?? {};
  switch (message.type) {
    case 'connected':
      showState('open', `connected as ${data.userId}`);
      break;
    case 'pong':
      if (asked) $('round-trip').textContent = `${(performance.now() - asked.at).toFixed(1)} ms`;
      break;
    case 'subscribed':
      showSubscription(data.channelKey);
      break;
    case 'unsubscribed':
      subscription(data.channelKey)?.remove();
      break;
    case 'error':
      complain(`${asked ? `${asked.what}: ` : ''}${data.message} (${data.code})`);
      break;
    case 'token_expiring':
      complain(`The token expires soon, and the socket with it: ${data.expiresAt}`);
      break;
    default: // An event; the log has it.
  }
}

// ---- channels

function subscribe(event) {
  event.preventDefault();
  calm();
  const text = $('channel').value.trim();
  let channel = text;
  if (text.startsWith('{')) {
    try {
      channel = JSON.parse(text);
    } catch (error) {
      complain(`The channel is not JSON: ${error.message}`);
      return;
    }
  }
  if (!text) {
    complain('Name a channel first.');
    return;
  }
  command(`Subscribing to ${text}`, { type: 'subscribe', channel });
}

function subscription(key) {
  return [...$('subscriptions').children].find((item) => item.dataset.channel === key);
}

function showSubscription(key) {
  if (subscription(key)) return;
  const item = document.createElement('li');
  item.dataset.channel = key;
  const leave = document.createElement('button');
  leave.type = 'button';
  leave.textContent = '✕';
  leave.setAttribute('aria-label', `Unsubscribe from ${key}`);
  leave.onclick = () => {
    calm();
    command(`Unsubscribing from ${key}`, { type: 'unsubscribe', channel: key });
  };
  item.append(key, leave);
  $('subscriptions').append(item);
}

function showPublishExample() {
  const body = JSON.stringify({ channel: 'post_42', event: { type: 'post_liked', likes: 7 } });
  $('publish-example').textContent =
    `curl ${location.origin}/api/publish \\\n  -H "X-API-Key: $API_KEY" \\\n` +
    `  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}

// ---- start

$('make-wallet').onclick = () => {
  calm();
  $('wallet').value = base58(crypto.getRandomValues(new Uint8Array(32)));
};
$('sign-in').onsubmit = signIn;
$('token').oninput = showToken;
$('verify').onclick = verify;
$('log-out').onclick = logOut;
$('connect').onclick = connect;
$('disconnect').onclick = () => socket?.close(1000, 'asked by the user');
$('ping').onclick = () => {
  calm();
  command('Ping', { type: 'ping' });
};
$('subscribe-form').onsubmit = subscribe;
$('clear-log').onclick = () => {
  $('log').replaceChildren();
  $('log-count').textContent = '0 lines';
};

window.addEventListener('error', (event) => complain(`The page itself failed: ${event.message}`));
window.addEventListener('unhandledrejection', (event) => complain(`The page itself failed: ${event.reason}`));

// A reload keeps the wallet and the token; closing the tab forgets them.
$('wallet').value = sessionStorage.getItem('fanfare-wallet') ?? '';
$('token').value = sessionStorage.getItem('fanfare-token') ?? '';
showToken();
showPublishExample();
showState('closed', 'not connected');
setInterval(showExpiry, 1000);
