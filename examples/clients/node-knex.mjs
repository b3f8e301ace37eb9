// Guest tokens with knex, over node-postgres.

// clients.md
import knex from 'knex';

const TRY_LATER = ['08001', '08006', '53400', '58000'];

export async function oneToken(db, addresses) {
  const { rows } = await db.raw(
    'SELECT token, refresh_token FROM sw_create_guest_token(:addresses, expires_in => :life)',
    { addresses, life: '30 min' });
  return rows[0];
}

export async function manyTokens(db, guests) {
  // one call after the other, unless the role has read_ahead
  const { rows } = await db.raw(
    `SELECT r.id, t.* FROM jsonb_to_recordset(:guests) AS r(id int, addresses uuid[]),
       sw_try_create_guest_token(r.addresses) t`, { guests: JSON.stringify(guests) });
  return rows;
}

export async function tokenUnlessDown(db, addresses) {
  const { rows: [row] } = await db.raw(
    'SELECT * FROM sw_try_create_guest_token(:addresses, expires_in => :life)',
    { addresses, life: '30 min' });
  if (TRY_LATER.includes(row.error_code)) return null;
  if (row.error_code) throw new Error(`${row.error_code}: ${row.error}`);
  return row;
}

export async function tokenWithin(db, addresses, milliseconds) {
  const { rows } = await db.raw(
    'SELECT token, refresh_token FROM sw_create_guest_token(:addresses)', { addresses })
    .timeout(milliseconds, { cancel: true });
  return rows[0];
}
// end

import { readFileSync } from 'node:fs';
import { ADDRESS, GUESTS, assert, checkFails, checkOutlives, checkSnippet } from './check.mjs';

const { version } = JSON.parse(readFileSync(new URL('node_modules/knex/package.json', import.meta.url)));
console.log('knex', version);

const pools = [];
function connect(user, max = 1) {
  pools.push(knex({ client: 'pg', connection: { user }, pool: { min: 0, max } }));
  return pools.at(-1);
}

const app = await checkSnippet(connect, oneToken, manyTokens, tokenUnlessDown);
await checkOutlives(connect('down'), (db, body) => db.transaction(body),
  async (db, text) => (await db.raw(text)).rows, tokenUnlessDown);
const pidOf = async (db) => (await db.raw('SELECT pg_backend_pid() AS pid')).rows[0].pid;
const first = await pidOf(app);
await checkFails('22023', 'addresses', oneToken(app, []));
assert.equal(await pidOf(app), first);

// A bare timeout leaves the server waiting; with cancel it does not.
const call = 'SELECT * FROM sw_create_guest_token(?)';
const watcher = connect('slow');
for (const cancel of [false, true]) {
  const slow = connect('slow', 2);
  const pid = await pidOf(slow);
  const query = cancel ? tokenWithin(slow, [ADDRESS], 500) : slow.raw(call, [[ADDRESS]]).timeout(500);
  await checkFails(undefined, 'Defined query timeout of 500ms exceeded', query);
  const { rows: [found] } = cancel
    ? await watcher.raw(`SELECT count(*)::int AS pid FROM pg_stat_activity
                         WHERE usename = 'slow' AND wait_event_type = 'Extension'`)
    : await watcher.raw('SELECT until_called() AS pid');
  assert.equal(found.pid, cancel ? 0 : pid);
  await watcher.raw('SELECT pg_terminate_backend(?)', [pid]);
}

await checkFails('22P02', `malformed array literal: "${ADDRESS}"`, app.raw(call, [ADDRESS]));
await checkFails('22023', 'addresses must have one dimension', app.raw(call, [[[ADDRESS]]]));
await checkFails('22P02', 'invalid input syntax for type json',
  app.raw('SELECT * FROM jsonb_to_recordset(?) AS r(id int)', [GUESTS]));
await Promise.all(pools.map((pool) => pool.destroy()));
