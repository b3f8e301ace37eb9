// Guest tokens with drizzle, over node-postgres.

// clients.md
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';

const TRY_LATER = ['08001', '08006', '53400', '58000'];

export async function oneToken(db, addresses) {
  const { rows } = await db.execute(sql`
    SELECT token, refresh_token
      FROM sw_create_guest_token(${sql.param(addresses)}, expires_in => ${'30 min'})`);
  return rows[0];
}

export async function manyTokens(db, guests) {
  // one call after the other, unless the role has read_ahead
  const { rows } = await db.execute(sql`
    SELECT r.id, t.*
      FROM jsonb_to_recordset(${JSON.stringify(guests)}) AS r(id int, addresses uuid[]),
           sw_try_create_guest_token(r.addresses) t`);
  return rows;
}

export async function tokenUnlessDown(db, addresses) {
  const { rows: [row] } = await db.execute(sql`
    SELECT * FROM sw_try_create_guest_token(${sql.param(addresses)}, expires_in => ${'30 min'})`);
  if (TRY_LATER.includes(row.error_code)) return null;
  if (row.error_code) throw new Error(`${row.error_code}: ${row.error}`);
  return row;
}

export async function tokenWithin(db, addresses, milliseconds) {
  return db.transaction(async (tx) => {
    await tx.execute(sql`SELECT set_config('statement_timeout', ${String(milliseconds)}, true)`);
    return oneToken(tx, addresses);
  });
}
// end

import { readFileSync } from 'node:fs';
import pg from 'pg';
import { ADDRESS, assert, checkFails, checkOutlives, checkSnippet } from './check.mjs';

const { version } = JSON.parse(readFileSync(new URL('node_modules/drizzle-orm/package.json', import.meta.url)));
console.log('drizzle-orm', version);

const pools = [];
function connect(user) {
  pools.push(new pg.Pool({ user, max: 1 }));
  return drizzle(pools.at(-1));
}

const app = await checkSnippet(connect, oneToken, manyTokens, tokenUnlessDown);
await checkOutlives(connect('down'), (db, body) => db.transaction(body),
  async (db, text) => (await db.execute(sql.raw(text))).rows, tokenUnlessDown);
await checkFails('57014', 'due to statement timeout', tokenWithin(connect('slow'), [ADDRESS], 200));

const call = (addresses) => app.execute(sql`SELECT * FROM sw_create_guest_token(${addresses})`);
await checkFails('22P02', `malformed array literal: "${ADDRESS}"`, call([ADDRESS]));
await checkFails('42883', 'function sw_create_guest_token(record) does not exist', call([ADDRESS, ADDRESS]));
await checkFails('42601', 'syntax error at or near ")"', call([]));
await checkFails('42846', 'cannot cast type record to uuid[]',
  app.execute(sql`SELECT * FROM sw_create_guest_token(${[ADDRESS, ADDRESS]}::uuid[])`));

// drizzle calls the pool's query(), which closes the connection after any error.
const pid = async () => (await app.execute(sql`SELECT pg_backend_pid() AS pid`)).rows[0].pid;
const first = await pid();
await checkFails('22023', 'addresses', oneToken(app, []));
assert.notEqual(await pid(), first);
await Promise.all(pools.map((pool) => pool.end()));
