// The reference clients, each behind the same four functions: subscribe, unsubscribe, the token, and what is heard.
//
//   node clients.mjs CLIENT BASE_URL
//
// Commands: {do:"token",token} {do:"subscribe",id,query,variables?,after?,keep?} {do:"unsubscribe",id}.
// With `keep`, the page's recipe is followed: the cursor of each result goes into the operation that the client sends
// again by itself after its connection broke.
// What is said: {id,next} {id,complete} {id,error} {socket,...}.

import { hear, say, told } from './lines.mjs';

const [, , name, base] = process.argv;
const started = new Map();
let token = '';

const clients = { 'graphql-ws': overGraphqlWs, 'graphql-sse': overSse, 'graphql-sse-single': overSingleSse, 'apollo-multipart': overMultipart, 'apollo-ws': overApolloWs, 'urql-sse': overUrqlFetch, 'urql-ws': overUrqlWs };
const client = await clients[name]();

hear((command) => {
  if (command.do === 'token') token = command.token;
  if (command.do === 'unsubscribe') {
    started.get(command.id)?.();
    started.delete(command.id);
  }
  if (command.do === 'subscribe') {
    const { id, query, variables, after, keep } = command;
    const extensions = after ? { after } : {};
    const operation = { query, variables, extensions };
    const sink = {
      next(result) {
        const cursor = result?.extensions?.cursor;
        if (keep && cursor) extensions.after = cursor;
        say({ id, next: { data: result.data, errors: result.errors, extensions: result.extensions } });
      },
      error: (error) => say({ id, error: told(error) }),
      complete: () => say({ id, complete: true }),
    };
    started.set(id, client(operation, sink));
  }
});
say({ ready: name });

function headers() {
  return { authorization: `Bearer ${token}` };
}

async function graphqlWs() {
  const [{ createClient }, { WebSocket }] = await Promise.all([import('graphql-ws'), import('ws')]);
  return createClient({
    url: `${base.replace('http', 'ws')}/graphql/ws`,
    webSocketImpl: WebSocket,
    connectionParams: () => ({ token }),
    retryAttempts: 1000,
    retryWait: () => new Promise((resolve) => setTimeout(resolve, 50)),
    on: {
      connected: () => say({ socket: 'connected' }),
      closed: (event) => say({ socket: 'closed', code: event?.code, reason: event?.reason }),
    },
  });
}

async function overGraphqlWs() {
  const ws = await graphqlWs();
  return (operation, sink) => ws.subscribe(operation, sink);
}

async function sse(singleConnection) {
  const { createClient } = await import('graphql-sse');
  const client = createClient({
    url: `${base}/graphql${singleConnection ? '/stream' : ''}`,
    singleConnection,
    headers,
    retryAttempts: 1000,
    retry: () => new Promise((resolve) => setTimeout(resolve, 50)),
    on: { connecting: () => say({ socket: 'connecting' }), connected: () => say({ socket: 'connected' }) },
  });
  return (operation, sink) => client.subscribe(operation, sink);
}

function overSse() {
  return sse(false);
}

function overSingleSse() {
  return sse(true);
}

async function apollo(link) {
  const { ApolloClient, InMemoryCache, gql } = await import('@apollo/client/core/index.js');
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  return ({ query, variables, extensions }, sink) => {
    const subscription = client
      .subscribe({ query: gql(query), variables, extensions, fetchPolicy: 'no-cache' })
      .subscribe({
        ...sink,
        next: (result) => {
          if (result.error) sink.error(result.error);
          else sink.next(result);
        },
      });
    return () => subscription.unsubscribe();
  };
}

async function overMultipart() {
  const { HttpLink } = await import('@apollo/client/link/http/index.js');
  return apollo(
    new HttpLink({ uri: `${base}/graphql`, includeExtensions: true, fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers() } }) }),
  );
}

async function overApolloWs() {
  const { GraphQLWsLink } = await import('@apollo/client/link/subscriptions/index.js');
  return apollo(new GraphQLWsLink(await graphqlWs()));
}

async function urql(exchange, options = {}) {
  const [{ Client, createRequest }, { pipe, subscribe }] = await Promise.all([import('@urql/core'), import('wonka')]);
  const client = new Client({ url: `${base}/graphql`, exchanges: [exchange], fetchOptions: () => ({ headers: headers() }), preferGetMethod: false, ...options });
  return ({ query, variables, extensions }, sink) => {
    const request = createRequest(query, variables ?? {}, extensions);
    const { unsubscribe } = pipe(
      client.executeSubscription(request),
      subscribe((result) => {
        if (result.error) sink.error(result.error);
        else sink.next(result);
        if (!result.hasNext && result.stale === false && !result.data && !result.error) sink.complete();
      }),
    );
    return unsubscribe;
  };
}

async function overUrqlFetch() {
  const { fetchExchange } = await import('@urql/core');
  return urql(fetchExchange, { fetchSubscriptions: true });
}

async function overUrqlWs() {
  const { subscriptionExchange } = await import('@urql/core');
  const ws = await graphqlWs();
  return urql(
    subscriptionExchange({
      forwardSubscription: (request) => ({
        subscribe: (sink) => ({ unsubscribe: ws.subscribe({ ...request, query: request.query ?? '' }, sink) }),
      }),
    }),
  );
}
