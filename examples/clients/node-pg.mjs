// Guest tokens with node-postgres.

// clients.md
import pg from 'pg';

const TRY_LATER = ['08001', '08006', '53400', '58000'];

export async function oneToken(client, addresses) {
  const { rows } = await client.query(
    'SELECT token, refresh_token FROM sw_create_guest_token($1, expires_in => $2)',
    [addresses, '30 min']);
  return rows[0];
}

export async function manyTokens(client, guests) {
  // one call after the other, unless the role has read_ahead
  const { rows } = await client.query(
    `SELECT r.id, t.* FROM jsonb_to_recordset($1) AS r(id int, addresses uuid[]),
       sw_try_create_guest_token(r.addresses) t`, [JSON.stringify(guests)]);
  return rows;
}

export async function tokenUnlessDown(client, addresses) {
  const { rows: [row] } = await client.query(
    'SELECT * FROM sw_try_create_guest_token($1, expires_in => $2)', [addresses, '30 min']);
  if (TRY_LATER.includes(row.error_code)) return null;
  if (row.error_code) throw new Error(`${row.error_code}: ${row.error}`);
  return row;
}

export async function withClient(pool, work) {  // pool.query() closes the connection after an error
  const client = await pool.connect();
  try {
    return await work(client);
  } finally {
    client.release();
  }
}

export async function cancel(canceller, client) {   // canceller: another connection
  await canceller.query('SELECT pg_cancel_backend($1)', [client.processID]);
}
// end

import { readFileSync } from 'node:fs';
import { ADDRESS, GUESTS, assert, checkFails, checkOutlives, checkSnippet } from './check.mjs';

const { version } = JSON.parse(readFileSync(new URL('node_modules/pg/package.json', import.meta.url)));
console.log('pg', version);

const clients = [];
async function connect(user, options) {
  clients.push(new pg.Client({ user, ...options }));
  await clients.at(-1).connect();
  return clients.at(-1);
}

const app = await checkSnippet(connect, oneToken, manyTokens, tokenUnlessDown);
const execute = async (client, text) => (await client.query(text)).rows;
const inTransaction = async (client, body) => {
  await client.query('BEGIN');
  await body(client);
  return client.query('COMMIT');
};
const down = await connect('down');
await checkOutlives(down, inTransaction, execute, tokenUnlessDown);

// A caught error has aborted the transaction, which COMMIT then rolls back.
const { command } = await inTransaction(down, async () => {
  await down.query('INSERT INTO visit DEFAULT VALUES');
  await checkFails('08001', 'could not connect to SignalWire', oneToken(down, [ADDRESS]));
  await checkFails('25P02', 'current transaction is aborted', down.query('SELECT 1'));
});
assert.equal(command, 'ROLLBACK');
assert.equal((await execute(down, 'SELECT count(*)::int AS n FROM visit'))[0].n, 1);

const slow = await connect('slow');
const watcher = await connect('slow');
const call = oneToken(slow, [ADDRESS]);
await Promise.all([
  checkFails('57014', 'due to user request', call),
  watcher.query('SELECT until_called()').then(() => cancel(watcher, slow)),
]);

// The client stops waiting; the server does not.
const impatient = await connect('slow', { query_timeout: 200 });
await checkFails(undefined, 'Query read timeout', oneToken(impatient, [ADDRESS]));
const { rows: [caller] } = await watcher.query('SELECT until_called() AS pid');
assert.equal(caller.pid, impatient.processID);
await cancel(watcher, impatient);
await checkFails('57014', 'due to statement timeout',
  oneToken(await connect('slow', { statement_timeout: 200 }), [ADDRESS]));

const call2 = 'SELECT * FROM sw_create_guest_token($1, $2)';
// PgBouncer refuses this option, which node-postgres sends as it connects.
const { PGBOUNCER_HOST: host, PGBOUNCER_PORT: port } = process.env;
if (host) {
  await checkFails('08P01', 'unsupported startup parameter', connect('app', { host, port, statement_timeout: 200 }));
  clients.pop();
}

const now = Date.now();
await checkFails('22003', `value "${now}" is out of range for type integer`, app.query(call2, [[ADDRESS], now]));
await checkFails('22P02', 'invalid input syntax for type integer', app.query(call2, [[ADDRESS], new Date()]));
await checkFails('22P02', `malformed array literal: "${ADDRESS}"`, app.query(call2, [ADDRESS, null]));
await checkFails('22P02', 'invalid input syntax for type json',
  app.query('SELECT * FROM jsonb_to_recordset($1) AS r(id int)', [GUESTS]));
await checkFails('22P02', 'malformed record literal',
  app.query('SELECT * FROM sw_create_guest_tokens($1)', [GUESTS]));
const { rows: [bare] } = await app.query('SELECT sw_create_guest_token($1) AS t', [[ADDRESS]]);
assert.match(bare.t, /^\(eyJ.*,eyJ.*\)$/);

// pool.query() closes the connection after any error; connect() and release() do not.
const pool = new pg.Pool({ user: 'app', max: 1 });
const pid = async () => (await pool.query('SELECT pg_backend_pid() AS pid')).rows[0].pid;
const first = await pid();
await checkFails('22023', 'addresses', withClient(pool, (client) => oneToken(client, [])));
await checkFails(undefined, '22023: addresses', tokenUnlessDown(pool, []));
assert.equal(await pid(), first);
await checkFails('22023', 'addresses', oneToken(pool, []));
assert.notEqual(await pid(), first);
await pool.end();
await Promise.all(clients.map((each) => each.end()));
