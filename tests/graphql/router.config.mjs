// Hive Gateway between a client and the subgraphs. What is told by the environment: SUPERGRAPH (a file), PORT, and how the
// subscriptions of the subgraph are consumed: SUBSCRIPTIONS=sse | ws | callback. With PLANNER=rust operations are planned by
// the query planner of Hive Router, which is another program than Hive Gateway's own.

import { defineConfig } from '@graphql-hive/gateway';

const { SUPERGRAPH, PORT, SUBSCRIPTIONS, PLANNER } = process.env;
const how = {
  sse: undefined,
  ws: { kind: 'ws', location: '/graphql/ws', options: { connectionParams: { token: '{context.headers.authorization}' } } },
  // Snake case: in camel case these options are silently ignored. The public URL holds the path, too.
  callback: {
    kind: 'http-callback',
    location: '/graphql',
    options: { public_url: `http://127.0.0.1:${PORT}/callback`, path: '/callback', heartbeat_interval: 5000 },
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
  ...(PLANNER === 'rust' && { unifiedGraphHandler: (await import('@graphql-hive/router-runtime')).unifiedGraphHandler }),
  transportEntries: { '*.http': { options: { subscriptions: how } } },
});
