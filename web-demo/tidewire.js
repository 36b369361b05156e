// A reader of one Tidewire stream, for browsers: WebSocket (`tidewire.v1`) or server-sent events, no dependencies.
//
// One invariant: the cursor that is kept is that of the last message that was handed on, so that whatever breaks, the
// next connection goes on exactly after it. What cannot be given any more comes as a `gap`, never in silence.

/** Close codes: 4000 to 4099 reconnect now, 4100 to 4199 after a back-off, 4200 to 4299 with new credentials, 4300 to 4399 never. */
const isNow = (code) => code >= 4000 && code < 4100;
const isCredentials = (code) => code >= 4200 && code < 4300;
const isNever = (code) => code >= 4300 && code < 4400;

const BACK_OFF_MS = [250, 500, 1000, 2000, 5000, 10000];
/** Nothing for so many heartbeats, and the connection counts as dead. */
const HEARTBEATS_MISSED = 3;

/** Refusals that a reconnect with the same cursor cannot mend. */
const CURSOR_CODES = new Set(['cursor_invalid', 'cursor_foreign', 'cursor_ahead', 'time_unavailable']);

/**
 * Events: `event` {event, cursor}, `cursor` {cursor}, `gap` {partitions, cursor}, `state` {state, detail},
 * `refused` {code, message}, `renewed` {expires_at}.
 *
 * States: `connecting`, `replaying`, `live`, `stale`, `waiting`, `cut`, `refused`, `ended`.
 */
export class StreamReader extends EventTarget {
  #options;
  #cursor;
  #connection = null;
  #timer = null;
  #attempt = 0;
  #running = false;

  /**
   * @param {object} options
   * @param {string} options.stream
   * @param {'websocket'|'sse'} options.transport
   * @param {() => Promise<string>} options.token gives a fresh bearer token
   * @param {string=} options.after a cursor, `earliest`, `latest` or a time, where no cursor is known yet
   * @param {object=} options.where
   */
  constructor(options) {
    super();
    this.#options = options;
    this.#cursor = options.after ?? null;
  }

  get cursor() {
    return this.#cursor;
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#attempt = 0;
    this.#connect();
  }

  /** Cuts the connection off and stays away until `start`. */
  cut() {
    this.#running = false;
    this.#drop();
    this.#state('cut');
  }

  /** Ends for good, in silence. */
  stop() {
    this.#running = false;
    this.#drop();
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #state(state, detail = '') {
    this.#emit('state', { state, detail });
  }

  #drop() {
    clearTimeout(this.#timer);
    const connection = this.#connection;
    this.#connection = null;
    connection?.close();
  }

  async #connect() {
    this.#state('connecting');
    const connection =
      this.#options.transport === 'sse' ? new EventConnection(this.#options) : new SocketConnection(this.#options);
    this.#connection = connection;
    const still = () => this.#connection === connection;
    const ended = await connection.run(this.#cursor, (message) => {
      if (still()) this.#take(message);
    });
    if (!still()) return;
    this.#connection = null;
    this.#again(ended);
  }

  #take(message) {
    switch (message.type) {
      case 'subscribed':
        // `live` follows where a position was given; without one everything that comes is new.
        this.#attempt = 0;
        this.#state(this.#cursor && this.#cursor !== 'latest' ? 'replaying' : 'live');
        this.#moved(message.cursor);
        break;
      case 'live':
        this.#state('live');
        this.#moved(message.cursor);
        break;
      case 'event':
        this.#emit('event', { event: message.event, cursor: message.cursor });
        this.#moved(message.cursor);
        break;
      case 'cursor':
        this.#moved(message.cursor);
        break;
      case 'gap':
        this.#emit('gap', { partitions: message.partitions ?? [], cursor: message.cursor });
        this.#moved(message.cursor);
        break;
      case 'stale':
        this.#state('stale', 'Kafka does not answer the gateway; nothing is lost');
        break;
      case 'authorized':
        this.#emit('renewed', { expires_at: message.expires_at });
        break;
      default:
        break;
    }
  }

  #moved(cursor) {
    if (!cursor) return;
    this.#cursor = cursor;
    this.#emit('cursor', { cursor });
  }

  /** Decides what comes after a connection. */
  #again(ended) {
    if (!this.#running) return;
    if (ended.refusal && (isNever(ended.code) || CURSOR_CODES.has(ended.refusal.code) || ended.refusal.final)) {
      this.#running = false;
      this.#emit('refused', ended.refusal);
      this.#state('refused', ended.refusal.message);
      return;
    }
    if (ended.completed || isNever(ended.code)) {
      this.#running = false;
      this.#state('ended', ended.completed ?? `closed with ${ended.code}`);
      return;
    }
    const step = Math.min(this.#attempt, BACK_OFF_MS.length - 1);
    this.#attempt += 1;
    const calm = ended.after_ms ?? (isNow(ended.code) || isCredentials(ended.code) ? 50 : BACK_OFF_MS[step]);
    // Many readers come back at once after a gateway restarts: each at a moment of its own.
    const delay_ms = Math.max(calm, this.#attempt > 3 ? BACK_OFF_MS[step] : 0) * (0.75 + Math.random() / 2);
    this.#state('waiting', `connection lost; again in ${(delay_ms / 1000).toFixed(1)} s`);
    this.#timer = setTimeout(() => this.#connect(), delay_ms);
  }
}

/** One WebSocket, from its handshake to its close. */
class SocketConnection {
  #options;
  #socket = null;
  #closed = false;
  #watch = null;

  constructor(options) {
    this.#options = options;
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#watch);
    this.#socket?.close();
  }

  async run(after, take) {
    let token;
    try {
      token = await this.#options.token();
    } catch {
      return {};
    }
    if (this.#closed) return {};
    const url = new URL('/v1/ws', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url, ['tidewire.v1']);
    this.#socket = socket;
    const ended = {};
    let heartbeat_ms = 30000;
    const say = (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
    // The browser hides pings from pages: an application-level ping shows that the other side is there.
    const alive = () => {
      clearTimeout(this.#watch);
      this.#watch = setTimeout(() => {
        say({ type: 'ping' });
        this.#watch = setTimeout(() => socket.close(), heartbeat_ms * (HEARTBEATS_MISSED - 1));
      }, heartbeat_ms);
    };
    let subscribed = false;
    const subscribe = () => {
      if (subscribed) return;
      subscribed = true;
      const message = { type: 'subscribe', id: '1', stream: this.#options.stream };
      if (after) message.after = after;
      if (this.#options.where) message.where = this.#options.where;
      say(message);
    };
    return new Promise((resolve) => {
      socket.addEventListener('open', () => {
        alive();
        say({ type: 'auth', token });
      });
      socket.addEventListener('message', ({ data }) => {
        alive();
        let message;
        try {
          message = JSON.parse(data);
        } catch {
          return;
        }
        switch (message.type) {
          case 'welcome':
            heartbeat_ms = message.heartbeat_ms ?? heartbeat_ms;
            break;
          case 'authorized':
            subscribe();
            break;
          case 'auth_required':
            // In band: the subscription goes on under the new token.
            this.#options.token().then((fresh) => say({ type: 'auth', token: fresh }), () => {});
            break;
          case 'bye':
            ended.after_ms = message.reconnect_after_ms;
            break;
          case 'completed':
            ended.completed = message.reason ?? 'completed';
            break;
          case 'error':
            ended.refusal = { code: message.code, message: message.message, final: message.retry === false && !!message.id };
            if (message.id) socket.close();
            break;
          default:
            break;
        }
        take(message);
        if (message.type === 'completed') socket.close();
      });
      socket.addEventListener('close', ({ code }) => {
        clearTimeout(this.#watch);
        resolve({ ...ended, code });
      });
    });
  }
}

/**
 * One response of server-sent events. `fetch` instead of EventSource: it can send the token as a header, and a POST, so
 * that neither a filter nor a credential stands in a URL.
 */
class EventConnection {
  #options;
  #abort = new AbortController();

  constructor(options) {
    this.#options = options;
  }

  close() {
    this.#abort.abort();
  }

  async run(after, take) {
    const ended = {};
    try {
      const token = await this.#options.token();
      const body = {};
      if (after) body.after = after;
      if (this.#options.where) body.where = this.#options.where;
      const response = await fetch(`/v1/streams/${encodeURIComponent(this.#options.stream)}`, {
        method: 'POST',
        headers: { accept: 'text/event-stream', authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
        cache: 'no-store',
        signal: this.#abort.signal,
      });
      if (!response.ok) return await refusal(response);
      take({ type: 'subscribed' });
      for await (const { type, data, id } of events(response.body)) {
        switch (type) {
          case 'message':
            take({ type: 'event', event: data, cursor: id });
            break;
          case 'quiet':
            take({ type: 'cursor', cursor: id });
            break;
          case 'gap':
          case 'live':
            take({ ...data, type, cursor: data.cursor ?? id });
            break;
          case 'stale':
            take({ type });
            break;
          case 'auth_required':
            // Nothing can be renewed in band here: a new request with a new token goes on at the cursor.
            return { code: 4200 };
          case 'bye':
            ended.after_ms = data.reconnect_after_ms;
            break;
          case 'completed':
            return { completed: data.reason ?? 'completed' };
          case 'problem':
            return { refusal: { code: data.code, message: data.detail || data.title, final: data.retry === false && data.status !== 401 } };
          default:
            break;
        }
      }
    } catch {
      // Cut off; the cursor is kept.
    } finally {
      this.#abort.abort();
    }
    return ended;
  }
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  const message = [problem.title, problem.detail].filter(Boolean).join(': ') || `HTTP ${response.status}`;
  if (response.status === 401) return { code: 4200 };
  const after_s = Number(response.headers.get('retry-after'));
  return {
    after_ms: after_s > 0 ? after_s * 1000 : undefined,
    refusal: { code: problem.code ?? String(response.status), message, final: problem.retry === false },
  };
}

/** Parses a body as server-sent events (WHATWG HTML, section 9.2.6). A bare `id:` is yielded as `quiet`. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let fields = {};
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (line === '') {
        if (fields.data !== undefined) {
          yield { type: fields.event ?? 'message', data: JSON.parse(fields.data), id: fields.id };
        } else if (fields.id !== undefined) {
          yield { type: 'quiet', id: fields.id };
        }
        fields = {};
        continue;
      }
      const colon = line.indexOf(':');
      if (colon === 0) continue;
      const name = colon < 0 ? line : line.slice(0, colon);
      const text = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      fields[name] = name === 'data' && fields.data !== undefined ? `${fields.data}\n${text}` : text;
    }
  }
}
