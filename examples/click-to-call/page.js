'use strict';

/*
 * Click to call, with version 3 of SignalWire's SDK (signalwire.js).
 *
 * The page starts, refreshes and ends a call at its own server (app.py), which gets
 * the tokens from PostgreSQL.  In between, the call belongs to the SDK.
 *
 * 1. The microphone comes first: without it there is no need for a token.
 * 2. Token and secret exist only in this script's memory, and vanish with the page.
 * 3. A visitor may hang up at any moment.  So after each wait, the code checks
 *    whether its call is still the current one.
 * 4. The SDK has one client at a time: asked for another one with another token, it
 *    returns the same client.  So the client is disconnected before the next call;
 *    if that fails, the page is loaded again.
 */

const REFRESH_EARLIER = 120;    // seconds before a token expires
const TRY_AGAIN_AFTER = 15;     // seconds, when there was no new token
const PATIENCE = 15_000;        // ms to connect
const FAREWELL = 3_000;         // ms to hang up

const states = {
  idle: { text: 'We are here for you.', button: 'Call us' },
  asking: { text: 'Please allow your microphone.', button: 'Cancel', stop: true },
  connecting: { text: 'Connecting\u2026', button: 'Hang up', stop: true },
  connected: { text: 'Connected', button: 'Hang up', stop: true },
  ending: { text: 'Hanging up\u2026', button: 'Call again', off: true },
  ended: { text: 'The call has ended. Thank you.', button: 'Call again' },
  cancelled: { text: 'No call was made.', button: 'Call us' },
  busy: { text: 'We are busy. You can try again in', button: 'Try again', off: true },
  ready: { text: 'You can try again now.', button: 'Try again' },
  unanswered: { text: 'Nobody could take your call. Please try again in a few minutes.', button: 'Try again', bad: true },
  refused: { text: 'Your browser does not let us use your microphone. Please allow it next to the page\u2019s address, then try again.', button: 'Try again', bad: true },
  silent: { text: 'We cannot find a microphone. Please connect one, then try again.', button: 'Try again', bad: true },
  lost: { text: 'The connection was lost.', button: 'Call again', bad: true },
  failed: { text: 'We cannot take calls right now. Please try again later.', button: 'Try again', bad: true },
};

const find = (selector) => document.querySelector(selector);
let current = null;             // the call: { secret, client, call, expiry, timer }
let ticking;                    // the timer of the clock
let stuck = false;              // a client could not be disconnected

// What a visitor sees.

function show(name) {
  const state = states[name];
  const main = find('main');

  clearInterval(ticking);
  find('#clock').hidden = true;
  main.dataset.state = name;
  main.dataset.mood = state.bad ? 'bad' : '';
  main.dataset.button = state.stop ? 'stop' : '';
  find('button').disabled = Boolean(state.off);
  find('button span').textContent = state.button;
  find('#status').textContent = state.text;
}

// Shows seconds, counting up from 0 or down to 0.
function run(from, step, done) {
  const start = Date.now();
  const tick = () => {
    const seconds = from + step * Math.floor((Date.now() - start) / 1000);
    if (seconds < 0) {
      done();
      return;
    }
    find('#clock').textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  };

  clearInterval(ticking);
  ticking = setInterval(tick, 250);
  tick();
  find('#clock').hidden = false;
}

// Without SignalWire's key, only a token's header can be read.
function describe(token, expiry) {
  const header = JSON.parse(atob(token.split('.')[0].replaceAll('-', '+').replaceAll('_', '/')));
  const entries = Object.entries(header).map(([name, value]) => `${name}=${value}`);

  find('#token').textContent = `${token.slice(0, 20)}\u2026 ${token.length} characters`;
  find('#header').textContent = entries.join(' ');
  find('#expiry').textContent = new Date(expiry).toLocaleTimeString([], { timeStyle: 'short' });
  find('details').hidden = false;
}

// The page's own server.

class Refusal extends Error {
  constructor(state, seconds) {
    super(state);
    this.state = state;
    this.seconds = seconds;
  }
}

async function ask(path, secret) {
  const response = await fetch(`/call/${path}`, { method: 'POST', body: secret });

  if (response.status === 429) {
    throw new Refusal('busy', Number(response.headers.get('Retry-After')));
  }
  if (!response.ok) {
    throw new Refusal(response.status === 410 ? 'over' : 'failed');
  }
  return response.json();
}

// The call.

async function askForMicrophone() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    stream.getTracks().forEach((track) => track.stop());        // the SDK opens it again
  } catch (error) {
    throw new Refusal(error.name === 'NotAllowedError' ? 'refused' : 'silent');
  }
}

async function within(time, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, time, new Error('this takes too long'));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function start() {
  if (stuck) {
    location.reload();
    return;
  }
  const mine = current = {};
  const left = () => current !== mine;

  try {
    show('asking');
    await askForMicrophone();
    if (left()) { return; }
    show('connecting');
    const { token, expires_in, path, secret } = await ask('start');
    mine.secret = secret;
    note(mine, token, expires_in);
    if (left()) { return; }
    mine.client = SignalWire.SignalWire({ token });
    const client = await within(PATIENCE, mine.client);
    if (left()) { return; }
    planRefresh(mine);
    mine.call = await client.dial({ to: `${path}?channel=audio`, audio: true, video: false });
    mine.call.once('destroy', () => left() || finish(mine.answered ? 'ended' : 'unanswered'));
    if (left()) { return; }
    await mine.call.start();
    if (left()) { return; }
    mine.answered = true;
    show('connected');
    run(0, 1);
  } catch (error) {
    if (left()) { return; }
    console.info('no call:', error.message);
    finish(error.state ?? (mine.call ? 'unanswered' : 'failed'), error.seconds);
  } finally {
    // If the visitor hung up meanwhile, what came after that is still to be given back.
    if (left()) { await release(mine); }
  }
}

// Ends the current call, and says why.
async function finish(state, seconds) {
  const mine = current;

  current = null;
  if (mine.client) {
    show('ending');
  }
  await release(mine);
  if (current) { return; }
  show(state);
  if (state === 'busy') {
    run(seconds, -1, () => show('ready'));
  }
}

// Gives everything back, once; nothing in here may take for ever.
async function release(mine) {
  const { secret, client, call } = mine;

  clearTimeout(mine.timer);
  mine.secret = mine.client = mine.call = undefined;
  if (secret) {
    navigator.sendBeacon('/call/end', secret);
  }
  await within(FAREWELL, call?.hangup()).catch(() => {});
  if (client) {
    const gone = client.then((made) => made.disconnect(), () => {});    // none if it was refused
    await within(FAREWELL, gone).catch(() => { stuck = true; });
  }
}

// A token's life.

function note(mine, token, seconds) {
  mine.expiry = Date.now() + seconds * 1000;
  describe(token, mine.expiry);
}

function planRefresh(mine) {
  const left = mine.expiry - Date.now() - REFRESH_EARLIER * 1000;
  mine.timer = setTimeout(refresh, Math.max(left, TRY_AGAIN_AFTER * 1000), mine);
}

async function refresh(mine) {
  // Once a token has expired, version 3 does not accept another one.
  if (current !== mine || Date.now() > mine.expiry) { return; }
  try {
    const { token, expires_in } = await ask('refresh', mine.secret);
    if (current !== mine) { return; }
    await within(PATIENCE, mine.client.then((client) => client.updateToken(token)));
    note(mine, token, expires_in);
    planRefresh(mine);
  } catch (error) {
    console.info('no new token:', error.message);
    if (error.state !== 'over') {
      mine.timer = setTimeout(refresh, TRY_AGAIN_AFTER * 1000, mine);
    }
  }
}

find('button').addEventListener('click', () => {
  if (!current) {
    start();
  } else {
    finish(current.answered ? 'ended' : 'cancelled');
  }
});
addEventListener('pagehide', () => current && release(current));
find('button').disabled = false;
