// The section about webhooks: what the demo's receiver got, and the switch that lets it fail.
//
// Asks the gateway a few times a second, while somebody looks. Data from the network is only ever put into text nodes.

const EVERY_MS = 500;

const page = Object.fromEntries(
  [...document.querySelectorAll('[id^="hook-"]')].map((element) => [element.id.slice('hook-'.length), element]),
);

const REASONS = {
  unsigned: 'refused: unsigned',
  stale: 'refused: stale',
  forged: 'refused: forged',
};

const ANSWERS = {
  204: '204 taken',
  401: '401',
  500: '500, parked',
};

/** Rows by delivery: what changes is changed in place. */
let rows = new Map();
let last = '';

async function ask(options) {
  const response = await fetch('/demo/receiver', { cache: 'no-store', ...options });
  if (!response.ok) throw new Error(String(response.status));
  return response.text();
}

function show(text) {
  page.away.hidden = true;
  if (text === last) return;
  last = text;
  const { receiver, failing, endpoints, counts, deliveries } = JSON.parse(text);
  page.receiver.textContent = receiver;
  page.failing.checked = failing;
  const parked = endpoints.reduce((sum, endpoint) => sum + endpoint.parked, 0);
  for (const [name, count] of Object.entries({ ...counts, parked })) page[name].textContent = count.toLocaleString();
  const before = rows;
  rows = new Map();
  for (const delivery of deliveries) {
    // What is refused has no id that could be believed.
    const key = delivery.delivery ?? `${delivery.at_ms} ${rows.size}`;
    const row = before.get(key) ?? document.createElement('tr');
    fill(row, delivery);
    rows.set(key, row);
  }
  page.deliveries.replaceChildren(...rows.values());
  page.table.hidden = rows.size === 0;
  page.empty.hidden = rows.size > 0;
}

function fill(row, delivery) {
  const { tenant, content, at_ms, answer, verdict, reason, event, type, attempt, took_ms, repeated } = delivery;
  const isRefused = verdict === 'refused';
  const cells = [
    new Date(at_ms).toLocaleTimeString(),
    `${tenant}, ${content}`,
    isRefused ? 'nothing of it is believed' : [type, event].filter(Boolean).join(' · '),
    isRefused ? REASONS[reason] ?? verdict : verdict,
    ANSWERS[answer] ?? String(answer),
    attempt ?? '',
    repeated || '',
    took_ms === undefined || took_ms === null ? '' : `${took_ms.toLocaleString()} ms`,
  ];
  row.dataset.answer = answer;
  while (row.children.length < cells.length) row.append(document.createElement('td'));
  cells.forEach((cell, place) => {
    const text = String(cell);
    if (row.children[place].textContent !== text) row.children[place].textContent = text;
  });
}

async function look() {
  if (!document.hidden) {
    try {
      show(await ask());
    } catch {
      page.away.hidden = false;
    }
  }
  setTimeout(look, EVERY_MS);
}

page.failing.addEventListener('change', async () => {
  const failing = page.failing.checked;
  try {
    const headers = { 'content-type': 'application/json' };
    show(await ask({ method: 'POST', headers, body: JSON.stringify({ failing }) }));
  } catch {
    page.failing.checked = !failing;
    page.away.hidden = false;
  }
});

look();
