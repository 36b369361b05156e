// The demo's page: a chosen reader's live stream. Everything about connections is in tidewire.js.
//
// Data from the network is only ever put into text nodes.

import { summary } from '/fhir.js';
import { StreamReader } from '/tidewire.js';

const SHOWN_MAX = 200;
const IDS_MAX = 20000;

const page = Object.fromEntries(
  [...document.querySelectorAll('[id]')].map((element) => [element.id, element]),
);

const STATES = {
  connecting: 'connecting',
  replaying: 'catching up',
  live: 'live',
  stale: 'waiting for Kafka',
  waiting: 'reconnecting',
  cut: 'cut',
  refused: 'refused',
  ended: 'ended',
};

let demo = { readers: [], streams: [], kafka: {} };
let reader = null;
let counts = {};
let seen = new Set();
let waiting = [];
let frame = 0;

// ---- What is chosen, and where it was left ----

const chosen = () => demo.readers.find(({ id }) => id === page.reader.value);
const place = () => `tidewire:cursor:${page.reader.value}:${page.stream.value}`;

async function post(path, body) {
  const response = await fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    cache: 'no-store',
  });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** A fresh token of the chosen reader, from the demo's own issuer. */
async function token() {
  const { tenant, subject, scopes, claims } = chosen();
  return (await post('/demo/token', { tenant, subject, scopes, claims })).token;
}

/** The streams that the reader is granted; the gateway does not name the others. */
async function granted() {
  const response = await fetch('/v1/streams', { headers: { authorization: `Bearer ${await token()}` }, cache: 'no-store' });
  if (!response.ok) throw new Error(`/v1/streams: ${response.status}`);
  return (await response.json()).streams;
}

// ---- Reading ----

function open(after = sessionStorage.getItem(place()) ?? undefined) {
  reader?.stop();
  const current = new StreamReader({ stream: page.stream.value, transport: page.transport.value, token, after });
  reader = current;
  const key = place();
  const on = (type, take) => current.addEventListener(type, ({ detail }) => reader === current && take(detail));
  on('state', tellState);
  on('cursor', ({ cursor }) => {
    sessionStorage.setItem(key, cursor);
    tellCursor(cursor);
  });
  on('event', takeEvent);
  on('gap', takeGap);
  on('refused', takeRefusal);
  if (after && after !== 'earliest') tellCursor(after);
  current.start();
}

function fresh() {
  counts = { events: 0, duplicates: 0, gaps: 0, connections: 0 };
  seen = new Set();
  waiting = [];
  page.events.replaceChildren();
  page.notices.replaceChildren();
  page.cursor.textContent = 'none yet';
  page.detail.textContent = '';
  tellCounts();
}

function takeEvent({ event }) {
  const identity = `${event.source} ${event.id}`;
  counts.events += 1;
  if (seen.has(identity)) counts.duplicates += 1;
  seen.add(identity);
  if (seen.size > IDS_MAX) seen.delete(seen.values().next().value);
  show({ event, at: new Date() });
}

function takeGap({ partitions }) {
  counts.gaps += 1;
  const recreated = partitions.some(({ reason }) => reason === 'recreated' || reason === 'deleted');
  const text =
    recreated && demo.kafka.embedded
      ? 'The embedded broker was restarted: its history is gone.'
      : 'Some events cannot be given any more.';
  notice(text, 'Nothing was skipped in silence: reading goes on from the cursor that came with this gap.', partitions.map(tellPartition));
  show({ gap: text, at: new Date() });
}

const REASONS = {
  expired: 'Kafka has deleted what was there (retention)',
  recreated: 'its topic was deleted and made again',
  deleted: 'its topic was deleted',
  lost: 'events were lost',
};

function tellPartition({ partition, reason, from, to, since }) {
  const offsets = from !== undefined && to !== undefined ? `, offsets ${from} to ${to}` : '';
  const time = since !== undefined ? `, from ${new Date(since).toLocaleTimeString()} on` : '';
  return `partition ${partition}: ${REASONS[reason] ?? reason}${offsets}${time}`;
}

function takeRefusal({ code, message }) {
  const explained = code.startsWith('cursor_')
    ? 'The position that this page kept is not one that the gateway knows (its keys or its Kafka are others now).'
    : 'The gateway refuses this reader.';
  const element = notice(explained, `${message} (${code})`, [], true);
  const again = document.createElement('button');
  again.type = 'button';
  again.textContent = 'Start again with what comes now';
  again.addEventListener('click', () => {
    sessionStorage.removeItem(place());
    fresh();
    open();
  });
  element.append(again);
}

// ---- Telling ----

function tellState({ state, detail }) {
  if (state === 'replaying' || (state === 'live' && page.state.dataset.state === 'connecting')) counts.connections += 1;
  page.state.dataset.state = state;
  page.state.textContent = STATES[state] ?? state;
  page.detail.textContent = state === 'cut' ? 'Events go on in Kafka; resume to get them from here on.' : detail;
  const away = state === 'cut' || state === 'refused' || state === 'ended';
  page.cut.disabled = away;
  page.resume.disabled = !(state === 'cut' || state === 'ended');
  tellCounts();
}

function tellCursor(cursor) {
  page.cursor.textContent = cursor;
}

function tellCounts() {
  for (const [name, count] of Object.entries(counts)) page[`count-${name}`].textContent = count.toLocaleString();
  const shown = Math.min(SHOWN_MAX, counts.events);
  page.shown.textContent = counts.events > SHOWN_MAX ? `the latest ${shown}` : '';
  page.empty.hidden = counts.events > 0 || counts.gaps > 0;
}

function notice(title, text, list = [], bad = false) {
  const element = document.createElement('div');
  element.className = bad ? 'notice bad' : 'notice';
  const strong = document.createElement('strong');
  strong.textContent = title;
  element.append(strong, text);
  if (list.length > 0) {
    const items = document.createElement('ul');
    for (const line of list.slice(0, 12)) {
      const item = document.createElement('li');
      item.textContent = line;
      items.append(item);
    }
    element.append(items);
  }
  page.notices.prepend(element);
  while (page.notices.children.length > 3) page.notices.lastChild.remove();
  return element;
}

/** Many events in one frame cost one layout; a hidden page keeps only what it would show. */
function show(entry) {
  waiting.push(entry);
  if (waiting.length > SHOWN_MAX) waiting.shift();
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const entries = waiting.splice(0).reverse().map(element);
    page.events.prepend(...entries);
    while (page.events.children.length > SHOWN_MAX) page.events.lastChild.remove();
    tellCounts();
  });
}

function element({ event, gap, at }) {
  const item = document.createElement('li');
  const line = child(item, 'div', 'line');
  const time = document.createElement('time');
  time.dateTime = at.toISOString();
  time.textContent = at.toLocaleTimeString();
  if (gap) {
    item.className = 'gap';
    child(line, 'span', 'title', gap);
    line.append(time);
    return item;
  }
  const { title, value, subject, when, status } = summary(event.data);
  child(line, 'span', 'title', title || event.subject || event.type);
  if (value) child(line, 'span', 'value', value);
  line.append(time);
  const told = [status, subject, when && new Date(when).toLocaleDateString(), event.tenant, event.type];
  child(item, 'div', 'meta', told.filter(Boolean).join(' · '));
  const details = document.createElement('details');
  child(details, 'summary', '', 'JSON');
  details.addEventListener('toggle', () => {
    if (details.open && details.children.length === 1) child(details, 'pre', '', JSON.stringify(event, null, 2));
  });
  item.append(details);
  return item;
}

function child(parent, name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function options(select, entries, keep) {
  select.replaceChildren(
    ...entries.map(({ value, label, title }) => {
      const option = document.createElement('option');
      option.value = value;
      option.textContent = label;
      if (title) option.title = title;
      return option;
    }),
  );
  if (entries.some(({ value }) => value === keep)) select.value = keep;
}

// ---- Choosing ----

async function choose() {
  reader?.stop();
  reader = null;
  fresh();
  const who = chosen();
  sessionStorage.setItem('tidewire:reader', who.id);
  page.note.textContent = `${who.note} (tenant ${who.tenant}, ${who.scopes})`;
  const keep = page.stream.value || sessionStorage.getItem('tidewire:stream');
  const streams = await untilItWorks(granted);
  if (chosen() !== who) return;
  options(page.stream, streams.map(({ name, description }) => ({ value: name, label: name.replaceAll('_', ' '), title: description })), keep);
  if (streams.length === 0) {
    notice('This reader is granted no stream.', '', [], true);
    return;
  }
  restart();
}

function restart() {
  sessionStorage.setItem('tidewire:stream', page.stream.value);
  sessionStorage.setItem('tidewire:transport', page.transport.value);
  fresh();
  open();
}

/** The gateway may be starting: ask until it answers. */
async function untilItWorks(ask) {
  for (;;) {
    try {
      return await ask();
    } catch {
      tellState({ state: 'waiting', detail: 'the gateway does not answer; asking again' });
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

page.reader.addEventListener('change', choose);
page.stream.addEventListener('change', restart);
page.transport.addEventListener('change', () => {
  // The cursor is good on every surface: the other one goes on where this one was.
  sessionStorage.setItem('tidewire:transport', page.transport.value);
  open();
});
page.cut.addEventListener('click', () => reader?.cut());
page.resume.addEventListener('click', () => reader?.start());
page.beginning.addEventListener('click', () => {
  sessionStorage.removeItem(place());
  fresh();
  open('earliest');
});

page.transport.value = sessionStorage.getItem('tidewire:transport') ?? 'websocket';
demo = await untilItWorks(async () => {
  const response = await fetch('/demo/readers', { cache: 'no-store' });
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
});
options(page.reader, demo.readers.map(({ id, label }) => ({ value: id, label })), sessionStorage.getItem('tidewire:reader'));
await choose();
