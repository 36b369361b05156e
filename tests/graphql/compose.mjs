// Composes a supergraph: node compose.mjs NAME=URL=FILE ... ; the supergraph on stdout, or the errors on stderr.

import { readFileSync } from 'node:fs';
import { parse } from 'graphql';
import { compositionHasErrors, composeServices } from '@theguild/federation-composition';

const services = process.argv.slice(2).map((argument) => {
  const [name, url, file] = argument.split('=');
  return { name, url, typeDefs: parse(readFileSync(file, 'utf8')) };
});
const result = composeServices(services);
if (compositionHasErrors(result)) {
  for (const error of result.errors) process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
process.stdout.write(result.supergraphSdl);
