// The audits of graphql-http against a running server: node audits.mjs URL, the token as a line {token} on stdin.
// Says {id,name,status,reason?} for each, then {done}.

import { serverAudits } from 'graphql-http';
import { hear, say } from './lines.mjs';

hear(async ({ token }) => {
  const fetchFn = (url, init = {}) => {
    const headers = new Headers(init.headers);
    headers.set('authorization', `Bearer ${token}`);
    return fetch(url, { ...init, headers });
  };
  for (const audit of serverAudits({ url: process.argv[2], fetchFn })) {
    const result = await audit.fn();
    const body = result.response && (await result.response.text().catch(() => ''));
    say({ id: result.id, name: result.name, status: result.status, reason: result.reason, answered: result.response?.status, body });
  }
  say({ done: true });
});
