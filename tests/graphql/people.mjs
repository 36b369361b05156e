// The other subgraph: it owns Patient and Practitioner, and gives a person's name only to somebody of the same tenant.
// Tokens are not verified here: the promise reads what a router forwards, not what this server would let in.
//
// Says {listen} once, then {asked:{operation,authorization}} for each request; with the argument `sdl` only its SDL.

import { createServer } from 'node:http';
import { buildSchema, graphql } from 'graphql';
import { hear, say } from './lines.mjs';

const sdl = `
extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key"])
type Query { patient(id: ID!): Patient }
type Patient @key(fields: "id") { id: ID! name: String! birthDate: String }
type Practitioner @key(fields: "id") { id: ID! name: String! }
`;

if (process.argv[2] === 'sdl') {
  process.stdout.write(sdl);
  process.exit(0);
}

const schema = buildSchema(`
scalar _Any
union _Entity = Patient | Practitioner
type _Service { sdl: String! }
type Query { patient(id: ID!): Patient _service: _Service! _entities(representations: [_Any!]!): [_Entity]! }
type Patient { id: ID! name: String! birthDate: String }
type Practitioner { id: ID! name: String! }
`);

const tenant = (authorization) => {
  const [, claims] = (authorization ?? '').split('.');
  return claims ? JSON.parse(Buffer.from(claims, 'base64url').toString()).tenant : 'nobody';
};
const person = (type, id, whose) => ({ __typename: type, id, name: `${type} ${id} of ${whose}`, birthDate: '1970-01-01' });

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://people');
  let body = '';
  for await (const chunk of request) body += chunk;
  const { query, variables, operationName } = body
    ? JSON.parse(body)
    : { query: url.searchParams.get('query'), variables: JSON.parse(url.searchParams.get('variables') ?? '{}') };
  const { authorization } = request.headers;
  const whose = tenant(authorization);
  const rootValue = {
    _service: { sdl },
    _entities: ({ representations }) => representations.map(({ __typename, id }) => person(__typename, id, whose)),
    patient: ({ id }) => person('Patient', id, whose),
  };
  const result = await graphql({ schema, source: query, rootValue, variableValues: variables, operationName });
  say({ asked: { entities: variables?.representations?.length ?? 0, whose } });
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(result));
});
server.listen(0, '127.0.0.1', () => say({ listen: server.address().port }));
hear(() => {});
