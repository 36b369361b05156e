// Judges deliveries as receivers would that have never heard of Tidewire: a JSON line for each request, and one back with
// what each library says of it: true, or why not. A check whose key is not given is not made.
//
//   in   {"method", "url", "headers", "body" (base64), "secret"?, "public_key"?, "jwks"?, "at"? (seconds: the clock of then)}
//   out  {"standardwebhooks"?, "svix"?, "v1a"?, "rfc9421"?}

import { createHash, createPublicKey, verify } from 'node:crypto';
import { createInterface } from 'node:readline';

import { createVerifier, httpbis } from 'http-message-signatures';
import { Webhook as Standard } from 'standardwebhooks';
import { Webhook as Svix } from 'svix';

const clock = Date.now;

/** What every signature of ours must cover: a receiver that asks for less can be fooled. */
const COVERED = ['@method', '@target-uri', 'content-digest', 'content-type', 'webhook-id', 'webhook-timestamp'];

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const body = Buffer.from(request.body, 'base64');
  Date.now = request.at === undefined ? clock : () => request.at * 1000;
  const said = {};
  if (request.secret !== undefined) {
    said.standardwebhooks = await judged(() => {
      new Standard(request.secret).verify(body.toString(), request.headers, { jsonParse: false });
      return true;
    });
    // It returns nothing that matters and throws on failure.
    said.svix = await judged(() => {
      new Svix(request.secret).verify(body.toString(), request.headers);
      return true;
    });
  }
  if (request.public_key !== undefined) said.v1a = await judged(() => v1a(request, body));
  if (request.jwks !== undefined) said.rfc9421 = await judged(() => rfc9421(request, body));
  Date.now = clock;
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

async function judged(check) {
  try {
    return (await check()) === true || 'it does not verify';
  } catch (error) {
    return `${error?.name}: ${error?.message}`;
  }
}

/** Standard Webhooks, asymmetric: Ed25519 over `id.timestamp.body`, one of the list by this key. */
function v1a({ headers, public_key: text }, body) {
  if (!text.startsWith('whpk_')) throw new Error('no whpk_ key');
  const x = Buffer.from(text.slice('whpk_'.length), 'base64');
  if (x.length !== 32) throw new Error(`a key of ${x.length} bytes`);
  const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: x.toString('base64url') }, format: 'jwk' });
  const signed = Buffer.concat([Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`), body]);
  return headers['webhook-signature']
    .split(' ')
    .filter((one) => one.startsWith('v1a,'))
    .some((one) => verify(null, signed, key, Buffer.from(one.slice('v1a,'.length), 'base64')));
}

/** RFC 9421 by the set of keys that the gateway publishes, and the digest that is signed (RFC 9530). */
async function rfc9421({ method, url, headers, jwks }, body) {
  const digest = `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;
  if (headers['content-digest'] !== digest) throw new Error(`content-digest is ${headers['content-digest']}, not ${digest}`);
  const keyLookup = async ({ keyid }) => {
    const jwk = jwks.keys.find((one) => one.kid === keyid);
    if (!jwk) return null;
    return { id: keyid, algs: ['ed25519'], verify: createVerifier(createPublicKey({ key: jwk, format: 'jwk' }), 'ed25519') };
  };
  const requiredParams = ['created', 'keyid', 'alg', 'tag'];
  const config = { keyLookup, requiredFields: COVERED, requiredParams, maxAge: 300, tolerance: 5, all: true };
  return httpbis.verifyMessage(config, { method, url, headers });
}
