// What the Node programs beside this file check, whatever the driver.

import assert from 'node:assert/strict';

export { assert };
export const ADDRESS = '3fa85f64-5717-4562-b3fc-2c963f66afa6';
export const GUESTS = [
  { id: 1, addresses: [ADDRESS] },
  { id: 2, addresses: [ADDRESS, ADDRESS] },
  { id: 3, addresses: [ADDRESS] },
  { id: 4, addresses: [] },
];

export function checkToken(row) {
  assert.match(row.token, /^eyJ/);
  assert.match(row.refresh_token, /^eyJ/);
}

export function checkRows(rows) {
  const sorted = [...rows].sort((a, b) => a.id - b.id);
  assert.deepEqual(sorted.map((row) => row.id), [1, 2, 3, 4]);
  sorted.slice(0, 3).forEach(checkToken);
  assert.equal(sorted[3].token, null);
  assert.equal(sorted[3].error_code, '22023');
}

// Expects an error with this SQLSTATE and these words, even as drizzle's cause.
export async function checkFails(code, words, promise) {
  let error;
  try {
    await promise;
  } catch (caught) {
    error = caught.cause ?? caught;
  }
  assert.ok(error, `it succeeded: ${code} ${words}`);
  assert.equal(error.code, code, error.message);
  assert.ok(error.message.includes(words), error.message);
}

// What was stored before the call, in the same transaction, outlives an outage.
// inTransaction(db, body) commits what body(transaction) does.
export async function checkOutlives(db, inTransaction, execute, tokenUnlessDown) {
  await inTransaction(db, async (transaction) => {
    await execute(transaction, 'INSERT INTO visit DEFAULT VALUES');
    assert.equal(await tokenUnlessDown(transaction, [ADDRESS]), null);
  });
  const [{ n }] = await execute(db, 'SELECT count(*)::int AS n FROM visit');
  assert.equal(n, 1);
}

// connect(user) returns what the functions take.
export async function checkSnippet(connect, oneToken, manyTokens, tokenUnlessDown) {
  const app = await connect('app');
  checkToken(await oneToken(app, [ADDRESS, ADDRESS]));
  // This API answers only when three requests are there, which takes reading ahead.
  checkRows(await manyTokens(await connect('ahead'), GUESTS));
  checkToken(await tokenUnlessDown(app, [ADDRESS]));
  assert.equal(await tokenUnlessDown(await connect('down'), [ADDRESS]), null);
  await checkFails(undefined, '22023: addresses must have 1 to 10 elements', tokenUnlessDown(app, []));
  return app;
}
