// What PostGraphile makes of a schema with the extension, and of one without.

import { readFileSync } from 'node:fs';
import { graphql, printSchema } from 'graphql';
import pg from 'pg';
import { createPostGraphileSchema } from 'postgraphile-core';
import { assert } from './check.mjs';

const { version } = JSON.parse(readFileSync(new URL('node_modules/postgraphile-core/package.json', import.meta.url)));
console.log('postgraphile-core', version);

// The extension is in public; as in recipe 2, api has one function, the only one that
// the role web may execute.
const pool = new pg.Pool({ user: 'web', max: 2 });
const mutations = async (schema, options) =>
  printSchema(await createPostGraphileSchema(pool, [schema], options));

const all = { includeExtensionResources: true };
assert.doesNotMatch(await mutations('public'), /swCreateGuestToken\(/);
assert.match(await mutations('public', all), /swCreateGuestToken\(/);
assert.doesNotMatch(await mutations('public', { ...all, ignoreRBAC: false }), /swCreateGuestToken\(/);
const api = await mutations('api');
assert.match(api, /roomToken\(/);
assert.doesNotMatch(api, /swCreateGuestToken|refreshToken/);

const pgClient = await pool.connect();
await pgClient.query('BEGIN');
const { data, errors } = await graphql(
  await createPostGraphileSchema(pool, ['api']),
  'mutation { roomToken(input: { roomId: 1 }) { result { token expiresAt } } }',
  null, { pgClient });
assert.equal(errors, undefined);
assert.match(data.roomToken.result.token, /^eyJ/);
await pgClient.query('COMMIT');
pgClient.release();
await pool.end();
