// Guest tokens with postgres.js.

// clients.md
import postgres from 'postgres';

const TRY_LATER = ['08001', '08006', '53400', '58000'];

export async function oneToken(sql, addresses) {
  const [row] = await sql`
    SELECT token, refresh_token FROM sw_create_guest_token(${addresses}, expires_in => ${'30 min'})`;
  return row;
}

export async function manyTokens(sql, guests) {
  // one call after the other, unless the role has read_ahead
  return sql`
    SELECT r.id, t.* FROM jsonb_to_recordset(${sql.json(guests)}) AS r(id int, addresses uuid[]),
      sw_try_create_guest_token(r.addresses) t`;
}

export async function tokenUnlessDown(sql, addresses) {
  const [row] = await sql`
    SELECT * FROM sw_try_create_guest_token(${addresses}, expires_in => ${'30 min'})`;
  if (TRY_LATER.includes(row.error_code)) return null;
  if (row.error_code) throw new Error(`${row.error_code}: ${row.error}`);
  return row;
}

export async function tokenWithin(sql, addresses, milliseconds) {
  const query = sql`SELECT token, refresh_token FROM sw_create_guest_token(${addresses})`.execute();
  const timer = setTimeout(() => query.cancel(), milliseconds);
  try {
    return (await query)[0];
  } finally {
    clearTimeout(timer);
  }
}
// end

import { readFileSync } from 'node:fs';
import { ADDRESS, GUESTS, assert, checkFails, checkOutlives, checkSnippet } from './check.mjs';

const { version } = JSON.parse(readFileSync(new URL('node_modules/postgres/package.json', import.meta.url)));
console.log('postgres', version);

const pools = [];
function connect(user) {
  pools.push(postgres({ user, max: 1 }));
  return pools.at(-1);
}

const app = await checkSnippet(connect, oneToken, manyTokens, tokenUnlessDown);
await checkOutlives(connect('down'), (sql, body) => sql.begin(body), (sql, text) => sql.unsafe(text), tokenUnlessDown);
const slow = connect('slow');
await slow`SELECT 1`;
await checkFails('57014', 'due to user request', tokenWithin(slow, [ADDRESS], 200));

await checkFails('22003', 'is out of range for type integer',
  app`SELECT * FROM sw_create_guest_token(${[ADDRESS]}, ${Date.now()})`);
await checkFails('22P02', `malformed array literal: "${ADDRESS}"`,
  app`SELECT * FROM sw_create_guest_token(${ADDRESS})`);
await checkFails('42883', 'function sw_create_guest_token(text[]) does not exist',
  app`SELECT * FROM sw_create_guest_token(${app.array([ADDRESS])})`);
await checkFails('42703', `column "${ADDRESS}" does not exist`,
  app`SELECT * FROM sw_create_guest_token(${app([ADDRESS])})`);
await checkFails('22023', 'cannot call jsonb_to_recordset on a non-array',
  app`SELECT * FROM jsonb_to_recordset(${JSON.stringify(GUESTS)}) AS r(id int)`);
const [bare] = await app`SELECT sw_create_guest_token(${[ADDRESS]}) AS t`;
assert.match(bare.t, /^\(eyJ.*,eyJ.*\)$/);

// The connection stays after an error.
const pid = async () => (await app`SELECT pg_backend_pid() AS pid`)[0].pid;
const first = await pid();
await checkFails('22023', 'addresses', oneToken(app, []));
assert.equal(await pid(), first);
await Promise.all(pools.map((pool) => pool.end()));
