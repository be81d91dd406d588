// The test page: a person's hands on the client library. Everything that goes in or out is in the log,
// and nothing fails in silence.

import { log, clearLog } from '/test/log.js';
import { FanfareSocket, JWTManager, Notifications, keyOf } from '/fanfare.js';

const $ = (id) => document.getElementById(id);

const jwt = JWTManager.getInstance();
// Of its own: what is in the log is what this page does.
const socket = new FanfareSocket({ shared: false });
const inbox = new Notifications(socket);
/** Wanted channels: key -> { subscription, item, count }. */
const wanted = new Map();

// ---- notices

function complain(error) {
  const { message, status, code, field } = error;
  const text = status ? `${message} (${status})` : code ? `${message} (${code})` : String(message ?? error);
  log('error', text);
  if (field) {
    $(field).setAttribute('aria-invalid', 'true');
    $(`${field}-wrong`).textContent = text;
    return;
  }
  $('notice').textContent = text;
  $('notice').hidden = false;
}

function calm() {
  $('notice').hidden = true;
  $('notice').textContent = '';
}

/** Runs what a button does; a failure becomes a notice. */
const on = (id, type, work) =>
  $(id).addEventListener(type, async (event) => {
    event.preventDefault();
    calm();
    try {
      await work();
    } catch (error) {
      complain(error);
      // After a change somebody has left the field already: that is theirs to decide.
      if (error.field && type !== 'change') $(error.field).focus();
    }
  });

// ---- fields: a mistake in one is told beside it until it is mended

const mistake = (field, message) => Object.assign(new Error(message), { field });

/** What the text of a field says; each throws a mistake. */
const read = {
  channel() {
    const text = $('channel').value.trim();
    const expected = 'expected a key such as post_42, or an object such as {"type":"post","postId":"42"}.';
    if (!text) throw mistake('channel', `Channel: nothing there; ${expected}`);
    if (!text.startsWith('{')) return text;
    const channel = parsed('channel', text, `Channel: not JSON; ${expected}`);
    if (!channel.type || !(channel.id ?? channel.userId ?? channel.postId)) throw mistake('channel', `Channel: an object without a type or an id; ${expected}`);
    return channel;
  },
  event() {
    const expected = 'expected an object with a type, such as {"type":"post_liked","likes":7}.';
    const event = parsed('event', $('event').value, `Event: not JSON; ${expected}`);
    if (typeof event?.type !== 'string') throw mistake('event', `Event: JSON without a type; ${expected}`);
    return event;
  },
  token() {
    try {
      return decoded($('token').value.trim());
    } catch {
      throw mistake('token', `Token: not a token; ${TOKEN_FORM}`);
    }
  },
};

function parsed(field, text, message) {
  try {
    return JSON.parse(text);
  } catch {
    throw mistake(field, message);
  }
}

function mend(field) {
  if (!$(field).hasAttribute('aria-invalid')) return;
  try {
    // No token at all is not a wrong one.
    if (field !== 'token' || $('token').value.trim()) read[field]();
  } catch {
    return;
  }
  $(field).removeAttribute('aria-invalid');
  $(`${field}-wrong`).textContent = '';
}

for (const field of Object.keys(read)) $(field).addEventListener('input', () => mend(field));

// ---- focus: a button that its own press disables or removes leaves it to a neighbour

/** What somebody used last: after a press on nothing, nothing. */
let held = null;
const hold = ({ target }) => (held = target.closest('button, input, textarea, summary, [tabindex]'));
document.addEventListener('focusin', hold);
document.addEventListener('pointerdown', hold);

const isUsable = (element) => element.isConnected && !element.disabled && !element.closest('[hidden]');

/** The same button of the next row, else the nearest one in the row of buttons, else in the section, else that. */
function neighbour(records) {
  let from = held;
  if (!held.isConnected) {
    const removal = records.find(({ removedNodes }) => [...removedNodes].some((node) => node.contains(held)));
    if (!removal) return null;
    const buttons = (row) => [...row.querySelectorAll('button')];
    const nth = buttons(held.closest('li')).indexOf(held);
    const rows = [removal.nextSibling, removal.previousSibling, ...removal.target.children];
    const same = rows.filter((row) => row?.isConnected).map((row) => buttons(row)[nth]);
    if (same.length) return same[0];
    from = removal.target;
  }
  const section = from.closest('section');
  for (const group of [from.closest('.row') ?? section, section]) {
    const buttons = [...group.querySelectorAll('button')].filter(isUsable);
    const before = buttons.filter((one) => from.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_PRECEDING);
    if (buttons.length) return before.at(-1) ?? buttons[0];
  }
  section.tabIndex = -1;
  return section;
}

new MutationObserver((records) => {
  const { activeElement: active } = document;
  if (held && !isUsable(held) && (active === held || active === document.body)) neighbour(records)?.focus();
}).observe(document.querySelector('.steps'), { subtree: true, childList: true, attributeFilter: ['disabled', 'hidden'] });

// ---- signing in

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

function base58(bytes) {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let text = '';
  for (; number > 0n; number /= 58n) text = BASE58[Number(number % 58n)] + text;
  const zeros = bytes.findIndex((byte) => byte !== 0);
  return '1'.repeat(zeros < 0 ? bytes.length : zeros) + text;
}

/** A key that nobody can take out of this page, and that is gone with it. */
async function throwawaySigner() {
  const keys = await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']);
  const address = base58(new Uint8Array(await crypto.subtle.exportKey('raw', keys.publicKey)));
  const signMessage = async (message) => new Uint8Array(await crypto.subtle.sign('Ed25519', keys.privateKey, message));
  return { address, signMessage };
}

async function signIn(who) {
  await jwt.signIn(who);
  $('decoded-box').open = true;
}

on('sign-in-key', 'click', async () => {
  const signer = await throwawaySigner();
  $('wallet').value = signer.address;
  await signIn(signer);
});
on('sign-in-wallet', 'click', () => signIn());
on('sign-in', 'submit', () => signIn($('wallet').value.trim()));
on('make-wallet', 'click', () => {
  $('wallet').value = base58(crypto.getRandomValues(new Uint8Array(32)));
});

// ---- the token

const TOKEN_FORM = 'expected three parts of base64url with dots between them.';

/** The parts of a token, not verified: the server does that. */
function decoded(token) {
  const decode = (part) => {
    const binary = atob(part.replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (c) => c.charCodeAt(0))));
  };
  const parts = token.split('.');
  if (parts.length !== 3) throw new Error(TOKEN_FORM);
  return { header: decode(parts[0]), claims: decode(parts[1]) };
}

function showToken() {
  const token = $('token').value.trim();
  $('verified').textContent = '';
  try {
    $('decoded').textContent = token ? JSON.stringify(decoded(token), null, 2) : 'no token';
  } catch {
    $('decoded').textContent = `This is not a token; ${TOKEN_FORM}`;
  }
  mend('token');
  showExpiry();
}

function showExpiry() {
  let text = '';
  let isExpired = false;
  try {
    const { exp } = decoded($('token').value.trim()).claims;
    const left = Math.round(exp - Date.now() / 1000);
    isExpired = left <= 0;
    const at = new Date(exp * 1000).toLocaleTimeString();
    text = isExpired
      ? `Expired at ${at}.`
      : `Expires at ${at}, in ${Math.floor(left / 60)} min ${String(left % 60).padStart(2, '0')} s.`;
  } catch {
    // No token, or no readable expiry: the decoded form tells which.
  }
  if ($('expiry').textContent !== text) $('expiry').textContent = text;
  $('expiry').dataset.expired = String(isExpired);
}

async function showUser() {
  const { user } = jwt;
  $('user').textContent = user ? `Signed in as user ${user.id}${user.nickname ? ` (${user.nickname})` : ''}.` : '';
  $('user').hidden = !user;
  $('token').value = user ? ((await jwt.getToken()) ?? '') : '';
  showToken();
}

on('token', 'change', () => {
  const token = $('token').value.trim();
  showToken();
  if (!token) return;
  read.token();
  jwt.setToken(token);
});
$('token').addEventListener('input', showToken);
on('verify', 'click', async () => {
  const isValid = await jwt.verify($('token').value.trim());
  $('verified').textContent = isValid ? 'Valid: the server takes it.' : '';
  if (!isValid) throw new Error('Not verified: the server does not take it.');
});
on('renew', 'click', async () => {
  if (!(await jwt.refresh())) throw new Error('Not renewed: nobody is signed in, or the server would not.');
});
on('log-out', 'click', () => jwt.logout());
jwt.onChange((user, isAnew) => {
  void showUser();
  if (user && isAnew) inbox.start();
});

// ---- the socket

function showStatus() {
  const { status } = socket;
  const texts = { idle: 'not connected', waiting: 'waiting to connect again', opening: 'connecting', open: 'connected', stopped: 'sent away' };
  $('state').dataset.state = { open: 'open', waiting: 'lost', stopped: 'lost' }[status] ?? 'closed';
  $('state').textContent = status === 'open' ? `connected as ${jwt.user?.id}` : texts[status];
  $('connect').disabled = status !== 'idle' && status !== 'stopped';
  $('disconnect').disabled = !$('connect').disabled;
  $('ping').disabled = status !== 'open';
  if (status !== 'open') $('round-trip').textContent = '';
}

on('connect', 'click', () => {
  socket.connect();
  if (!jwt.user) throw new Error('Nobody is signed in: the socket will open when somebody is.');
});
on('disconnect', 'click', () => socket.disconnect());
on('ping', 'click', async () => {
  $('round-trip').textContent = `${(await socket.ping()).toFixed(1)} ms`;
});
socket.on('$status', showStatus);

let lost = false;
socket.on('$closed', ({ data: { code, reason, reconnectInMs } }) => {
  if (code === 1000) return log('note', `Closed: ${reason}`);
  const next = reconnectInMs === undefined ? 'It stays closed.' : `Again in ${Math.round(reconnectInMs)} ms.`;
  const text = `The connection was closed: ${reason || 'no goodbye'} (${code}). ${next}`;
  // Every further attempt that fails would otherwise write over what the reader is at.
  if (lost && reconnectInMs !== undefined) return log('note', text);
  lost = true;
  complain(new Error(text));
});
socket.on('$recovered', ({ data }) => log('note', `${data.channel}: ${data.recovered ? 'nothing was missed' : `events are missing: ${data.reason}`}`));
socket.on('$denied', ({ data }) => complain({ message: `${data.channel}: ${data.message ?? data.code}` }));
socket.on('connected', () => {
  lost = false;
  calm();
});

// ---- channels

function signButton(work) {
  const button = document.createElement('button');
  button.type = 'button';
  button.onclick = work;
  return button;
}

/** What the sign means is told to those who hear the page, and as a tooltip. */
function label(button, sign, text) {
  button.textContent = sign;
  button.title = text;
  button.setAttribute('aria-label', text);
}

on('subscribe-form', 'submit', async () => {
  const channel = read.channel();
  const key = keyOf(channel);
  if (wanted.has(key)) return;
  const one = { count: 0, badge: document.createElement('span'), item: document.createElement('li') };
  wanted.set(key, one);
  one.subscription = socket.subscribe(channel, () => (one.badge.textContent = ` ${++one.count}`));
  one.item.dataset.channel = key;
  const drop = () => {
    wanted.delete(key);
    one.item.remove();
  };
  const leave = signButton(() => {
    one.subscription.unsubscribe();
    drop();
  });
  label(leave, '✕', `Unsubscribe from ${key}`);
  one.item.append(key, one.badge, leave);
  $('subscriptions').append(one.item);
  await one.subscription.ready.catch((error) => {
    drop();
    if (error.code !== 'unsubscribed') throw error;
  });
});

/** A request as the application's backend makes it. */
async function asBackend(path, body) {
  const key = $('api-key').value.trim();
  if (!key) throw new Error('This needs an API key: below, as the backend.');
  const answer = await fetch(path, {
    method: 'POST',
    headers: { 'X-API-Key': key, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const json = await answer.json();
  if (!answer.ok) throw new Error(`${json.error} (${answer.status})`);
}

on('publish-form', 'submit', async () => {
  const channel = read.channel();
  const event = read.event();
  if ($('api-key').value.trim()) await asBackend('/api/publish', { channel, event });
  else await socket.publish(channel, event);
});

// ---- notifications

function showInbox() {
  const { notifications, unreadCount, nextCursor, error } = inbox.state;
  if (error) complain(error);
  $('unread').textContent = unreadCount;
  $('unread').hidden = !unreadCount;
  $('unread').setAttribute('aria-label', `${unreadCount} unread`);
  $('more').hidden = !nextCursor;
  $('read-all').disabled = !unreadCount;
  $('clear-read').disabled = !notifications.some(({ isRead }) => isRead);
  const list = $('inbox');
  const ids = new Set(notifications.map(({ id }) => id));
  for (const [id, row] of rows) if (!ids.has(id) && rows.delete(id)) row.item.remove();
  notifications.forEach((one, n) => {
    const { item } = showRow(one);
    if (list.children[n] !== item) list.insertBefore(item, list.children[n] ?? null);
  });
}

/** The rows of the list by id. One stays as long as its notification: somebody may be on its buttons. */
const rows = new Map();

function showRow({ id, title, message, isRead, createdAt }) {
  if (!rows.has(id)) {
    const [item, text, small] = ['li', 'div', 'small'].map((tag) => document.createElement(tag));
    const mark = signButton(() => inbox.markRead(id, item.dataset.read !== 'true').catch(complain));
    const remove = signButton(() => inbox.remove(id).catch(complain));
    small.textContent = `${message} · ${new Date(createdAt).toLocaleString()}`;
    text.append(title, small);
    label(remove, '✕', `Delete: ${title}`);
    item.append(text, mark, remove);
    rows.set(id, { item, mark });
  }
  const row = rows.get(id);
  row.item.dataset.read = String(isRead);
  label(row.mark, isRead ? '○' : '●', `${isRead ? 'Mark as unread' : 'Mark as read'}: ${title}`);
  return row;
}

inbox.onChange(showInbox);
on('more', 'click', () => inbox.more());
on('read-all', 'click', () => inbox.markAllRead());
on('clear-read', 'click', () => inbox.clear());

// ---- as the backend

function signedIn() {
  if (!jwt.user) throw new Error('Sign in first.');
  return jwt.user.id;
}

on('notify', 'click', () =>
  asBackend('/api/user/notifications', { userId: signedIn(), type: 'test', title: 'From the test page', message: 'Somebody pressed a button' }),
);
on('revoke', 'click', () => {
  signedIn();
  return asBackend('/api/auth/revoke', { jti: read.token().claims.jti });
});

$('publish-example').textContent =
  `curl ${location.origin}/api/publish \\\n  -H "X-API-Key: $API_KEY" \\\n` +
  `  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify({ channel: 'post_42', event: { type: 'post_liked', likes: 7 } })}'`;

// ---- start

on('clear-log', 'click', clearLog);
window.addEventListener('error', (event) => complain(new Error(`The page itself failed: ${event.message}`)));
window.addEventListener('unhandledrejection', (event) => complain(new Error(`The page itself failed: ${event.reason}`)));
setInterval(showExpiry, 1000);
showStatus();
showInbox();
void showUser();
if (jwt.user) inbox.start();
