// Hive Gateway between a client and the subgraphs. What is told by the environment: SUPERGRAPH (a file), PORT, and how the
// subscriptions of the subgraph are consumed: SUBSCRIPTIONS=sse | ws | callback.

import { defineConfig } from '@graphql-hive/gateway';

const { SUPERGRAPH, PORT, SUBSCRIPTIONS } = process.env;
const how = {
  sse: undefined,
  ws: { kind: 'ws', location: '/graphql/ws', options: { connectionParams: { token: '{context.headers.authorization}' } } },
  // Snake case: in camel case these options are silently ignored.
  callback: {
    kind: 'http-callback',
    location: '/graphql',
    options: { public_url: `http://127.0.0.1:${PORT}`, path: '/callback', heartbeat_interval: 5000 },
  },
}[SUBSCRIPTIONS];

export const gatewayConfig = defineConfig({
  supergraph: SUPERGRAPH,
  host: '127.0.0.1',
  port: Number(PORT),
  fork: 0,
  pollingInterval: 0,
  landingPage: false,
  graphiql: false,
  webhooks: SUBSCRIPTIONS === 'callback',
  propagateHeaders: {
    fromClientToSubgraphs: ({ request }) => ({ authorization: request.headers.get('authorization') ?? '' }),
  },
  transportEntries: { '*.http': { options: { subscriptions: how } } },
});
