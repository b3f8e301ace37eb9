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
-- expires_in: at least a second, to the year 9999 at most, and no overflow
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expires_in => '0');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expires_in => '999 milliseconds');
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expires_in => '-1 hour');
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expires_in => '1 hour -60 minutes');
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expires_in => '8000 years');
\echo :LAST_ERROR_SQLSTATE
CREATE FUNCTION pg_temp.judge(expires_in interval) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM sw_create_guest_token(ARRAY['11111111-1111-1111-1111-111111111111']::uuid[], expires_in => $1);
	RETURN 'issued';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SELECT value, pg_temp.judge(value::interval)
FROM unnest(ARRAY['1 second', '1 month', '7000 years', '1 month -1 day', '-1 year 1000 days',
				  '-1 second', '-1 day', '-1 month', '-178000000 years', '-2147483648 days',
				  '-2562047788:00:54.775807', '-900 years -360000 days -8760000 hours',
				  '10000 years', '10001 years', '178000000 years', '2147483647 days', '2562047788:00:54.775807',
				  '9999 years 3650000 days 87600000 hours']) value;
-- infinity came with PostgreSQL 17; older versions have no such interval
SELECT value, CASE WHEN current_setting('server_version_num')::int >= 170000 THEN pg_temp.judge(value::interval)
				   ELSE '22023 expires_in must ' || note END AS judge
FROM (VALUES ('infinity', 'not end after the year 9999'), ('-infinity', 'be at least one second')) v (value, note);
-- only one of the two ways to say it
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], 2147483647, expires_in => '1 hour');
\echo :LAST_ERROR_SQLSTATE
-- anything but an interval or a Unix time in seconds does not even resolve
\set VERBOSITY terse
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expire_at => 1767225600000);
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expire_at => now() + interval '1 hour');
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], expires_in => 3600);
\set VERBOSITY default
-- region and ch
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], region => '');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], ch => '');
\echo :LAST_ERROR_SQLSTATE
-- valid arguments get as far as the settings: ten addresses, any lower bound,
-- the same address twice
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
-- call, and the requests last
SELECT * FROM sw_create_guest_tokens(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM sw_create_guest_tokens(array_fill(NULL::sw_guest_token_request, '{2,2}'));
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM sw_create_guest_tokens('{}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM sw_create_guest_tokens(ARRAY[NULL]::sw_guest_token_request[]);
\echo :LAST_ERROR_SQLSTATE
