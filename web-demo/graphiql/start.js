// GraphiQL against the gateway that served this page: queries over HTTP, subscriptions over graphql-transport-ws.
//
// What the headers tab has goes with each request, and with `connection_init` for a subscription. A demo gives tokens to its
// page, so that everything works at once; elsewhere, paste one there. Nothing of it is kept between two visits.

'use strict';

const QUERY = `# Ctrl-Enter (or Cmd-Enter) runs the operation.
# A subscription goes on until it is stopped; to go on after an event, pass its cursor as "after".

`;

/** A bearer token of the demo's first reader; null where there is no demo. */
async function demoToken() {
  const found = await fetch('/demo/readers', { cache: 'no-store' });
  if (!found.ok) return null;
  const [{ tenant, subject, scopes, claims }] = (await found.json()).readers;
  const given = await fetch('/demo/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ tenant, subject, scopes, claims, ttl: '8h' }),
  });
  return given.ok ? (await given.json()).token : null;
}

/** An operation to begin with: the first subscription field that gives events, as the schema says. */
async function example(headers) {
  const query = '{ __schema { subscriptionType { fields { name type { ofType { name } name } } } } }';
  const answer = await fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ query }),
  });
  const fields = (await answer.json()).data?.__schema?.subscriptionType?.fields ?? [];
  const events = fields.filter(({ type }) => (type.ofType?.name ?? type.name ?? '').endsWith('Event'));
  const field = events.find(({ name }) => name === 'observations') ?? events[0];
  return field ? `subscription {\n  ${field.name} {\n    kind\n    cursor\n    key\n    time\n  }\n}\n` : '{\n  __typename\n}\n';
}

/**
 * The fetcher, whose subscriptions go on after the last result that was shown: a client that reconnects sends the same
 * parameters once more.
 */
function resuming(fetcher) {
  return async (parameters, options) => {
    const results = await fetcher(parameters, options);
    if (!results?.[Symbol.asyncIterator]) return results;
    // Not a generator around it: its end has to reach the client at once.
    const next = results.next.bind(results);
    results.next = async () => {
      const result = await next();
      const after = result.value?.extensions?.cursor;
      if (after) parameters.extensions = { ...parameters.extensions, after };
      return result;
    };
    return results;
  };
}

async function start() {
  const token = await demoToken().catch(() => null);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const query = QUERY + (await example(headers).catch(() => '{\n  __typename\n}\n'));
  const { protocol, host } = location;
  const fetcher = resuming(
    GraphiQL.createFetcher({
      url: '/graphql',
      subscriptionUrl: `${protocol === 'https:' ? 'wss' : 'ws'}://${host}/graphql/ws`,
    }),
  );
  ReactDOM.createRoot(document.getElementById('graphiql')).render(
    React.createElement(GraphiQL, {
      fetcher,
      defaultQuery: query,
      // An older tab's token would be refused: it begins with this one.
      headers: JSON.stringify(headers, null, 2),
      query,
      defaultEditorToolsVisibility: 'headers',
      shouldPersistHeaders: false,
    }),
  );
}

start();
