// The reference clients, each behind the same four functions: subscribe, unsubscribe, the token, and what is heard.
//
//   node clients.mjs CLIENT BASE_URL
//
// Commands: {do:"token",token} {do:"subscribe",id,query,variables?,after?} {do:"unsubscribe",id}.
// What is said: {id,next} {id,complete} {id,error} {socket,...}.

import { hear, say, told } from './lines.mjs';

const [, , name, base] = process.argv;
const started = new Map();
const place = name === 'graphql-sse-single' ? 'variables' : 'extensions';
let token = '';

const clients = {
  'graphql-ws': overGraphqlWs,
  'graphql-sse': overSse,
  'graphql-sse-single': overSingleSse,
  'apollo-multipart': overMultipart,
  'apollo-ws': overApolloWs,
  'urql-sse': overUrqlFetch,
  'urql-ws': overUrqlWs,
};
const client = await clients[name]();

hear((command) => {
  if (command.do === 'token') token = command.token;
  if (command.do === 'unsubscribe') {
    started.get(command.id)?.();
    started.delete(command.id);
  }
  if (command.do === 'subscribe') {
    const { id, query, variables, after } = command;
    const operation = { query, variables: { ...variables }, extensions: {} };
    if (after) operation[place].after = after;
    const sink = {
      next: ({ data, errors, extensions }) => say({ id, next: { data, errors, extensions } }),
      error: (error) => say({ id, error: told(error) }),
      complete: () => say({ id, complete: true }),
    };
    started.set(id, client(operation, sink));
  }
});
say({ ready: name });

// A client that comes back by itself sends the operation that it was given, again: from where that began. So the place
// that was reached is written into the operation with each result: the recipe of the documentation.
//
// `extensions.after` needs nothing in the document. graphql-sse copies the extensions in single connection mode; there
// the document has a variable for `after`, and the variable is what is kept.
function keepingPlace(client) {
  return {
    ...client,
    subscribe(operation, sink) {
      const payload = { ...operation, variables: { ...operation.variables }, extensions: { ...operation.extensions } };
      return client.subscribe(payload, {
        ...sink,
        next(result) {
          const cursor = result.extensions?.cursor;
          if (cursor) payload[place].after = cursor;
          sink.next(result);
        },
      });
    },
  };
}

function headers() {
  return { authorization: `Bearer ${token}` };
}

async function graphqlWs() {
  const [{ createClient }, { WebSocket }] = await Promise.all([import('graphql-ws'), import('ws')]);
  // Apollo's link looks for the browser's own.
  globalThis.WebSocket ??= WebSocket;
  const client = createClient({
    url: `${base.replace('http', 'ws')}/graphql/ws`,
    webSocketImpl: WebSocket,
    connectionParams: () => ({ token }),
    // While nobody listens, the socket fails before it closes: by itself the client takes that for the end.
    shouldRetry: () => true,
    retryAttempts: 1000,
    retryWait: () => new Promise((resolve) => setTimeout(resolve, 50)),
    on: {
      connected: () => say({ socket: 'connected' }),
      closed: (event) => say({ socket: 'closed', code: event?.code, reason: event?.reason }),
    },
  });
  return keepingPlace(client);
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
  const kept = keepingPlace(client);
  return (operation, sink) => kept.subscribe(operation, sink);
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
