// JSON lines: commands on stdin, what happens on stdout. The promise that started this program drives it.

import { createInterface } from 'node:readline';

/** Says one thing. */
export function say(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

/** Calls back with each command; the end of stdin ends the program. */
export function hear(handle) {
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => handle(JSON.parse(line)));
  lines.on('close', () => process.exit(0));
}

/** Something thrown, as JSON: GraphQL errors as they came, a close event by its code, anything else by its text. */
export function told(error) {
  if (Array.isArray(error)) return { errors: error.map(plain) };
  if (error?.graphQLErrors?.length) return { errors: error.graphQLErrors.map(plain) };
  // Apollo Client: CombinedGraphQLErrors, CombinedProtocolErrors.
  if (Array.isArray(error?.errors)) return { errors: error.errors.map(plain) };
  const cause = error?.networkError ?? error?.cause ?? error;
  if (typeof cause?.code === 'number') return { close: cause.code, reason: cause.reason ?? '' };
  return { message: String(cause?.message ?? cause), status: cause?.statusCode ?? cause?.response?.status };
}

function plain({ message, locations, path, extensions }) {
  return { message, locations, path, extensions };
}
