--
-- Arguments are checked before the settings, and so before anything is sent:
-- no setting is made here.
--
LOAD 'sw_guest_token';
\set address '11111111-1111-1111-1111-111111111111'
-- addresses
SELECT sw_create_guest_token(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(ARRAY[:'address', NULL]::uuid[]);
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token('{}');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(array_fill(:'address'::uuid, '{11}'));
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(array_fill(:'address'::uuid, '{2,2}'));
\echo :LAST_ERROR_SQLSTATE
-- expire_at
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], 0);
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], -1);
\echo :LAST_ERROR_SQLSTATE
DO $$
BEGIN
	PERFORM sw_create_guest_token(ARRAY['11111111-1111-1111-1111-111111111111']::uuid[],
								  extract(epoch FROM now())::int - 1);
EXCEPTION WHEN invalid_parameter_value THEN
	RAISE NOTICE '%', SQLERRM;
END
$$;
-- region and ch
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], region => '');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], ch => '');
\echo :LAST_ERROR_SQLSTATE
-- what is fit gets as far as the settings: ten addresses, any lower bound,
-- the same one twice
SELECT sw_create_guest_token(array_fill(:'address'::uuid, '{10}'));
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(array_fill(:'address'::uuid, '{10}', '{-5}'),
							 2147483647, 'anywhere', 'nowhere');
\echo :LAST_ERROR_SQLSTATE
-- refresh_token
SELECT sw_refresh_guest_token(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT sw_refresh_guest_token('');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_refresh_guest_token('token');
\echo :LAST_ERROR_SQLSTATE
-- a batch: the settings come first, then the array, which concerns the whole
-- call, the requests last
SELECT * FROM sw_create_guest_tokens(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM sw_create_guest_tokens(array_fill(NULL::sw_guest_token_request, '{2,2}'));
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM sw_create_guest_tokens('{}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM sw_create_guest_tokens(ARRAY[NULL]::sw_guest_token_request[]);
\echo :LAST_ERROR_SQLSTATE
