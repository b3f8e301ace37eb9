--
-- Settings: their defaults, their bounds, and what makes them unfit for use.
-- All are judged when a call uses them; nothing is sent here.
--
LOAD 'sw_guest_token';
SELECT name, boot_val, unit, context, min_val, max_val
FROM pg_settings WHERE name LIKE 'sw\_guest\_token.%' ORDER BY name;
-- an unknown name is refused
SET sw_guest_token.no_such_setting = 1;
\echo :LAST_ERROR_SQLSTATE
-- bounds and units
SET sw_guest_token.timeout = '1.5s';
SHOW sw_guest_token.timeout;
RESET sw_guest_token.timeout;
-- PostgreSQL 17 and later name the range with its unit
\set VERBOSITY sqlstate
SET sw_guest_token.timeout = 0;
SET sw_guest_token.connect_timeout = 0;
\set VERBOSITY default
SET sw_guest_token.max_retries = -1;
SET sw_guest_token.max_concurrency = 0;
SET sw_guest_token.max_concurrency = 257;
-- each failing setting is alone, so the order of the checks does not matter
CREATE FUNCTION pg_temp.judge(name text, value text) RETURNS text AS $$
DECLARE
	d text;
	h text;
BEGIN
	PERFORM set_config('sw_guest_token.' || name, value, true);
	PERFORM sw_create_guest_token(ARRAY['11111111-1111-1111-1111-111111111111']::uuid[]);
	RETURN 'used';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ' ' || SQLERRM || coalesce(nullif(' (' || d || ')', ' ()'), '') ||
		coalesce(nullif(' [' || h || ']', ' []'), '');
WHEN OTHERS THEN
	RETURN 'used: ' || SQLSTATE;
END
$$ LANGUAGE plpgsql;
-- missing
SELECT pg_temp.judge('space_name', '');
SET sw_guest_token.space_name = 'example';
SELECT pg_temp.judge('project_id', '');
SET sw_guest_token.project_id = 'project';
SELECT pg_temp.judge('api_token', '');
SET sw_guest_token.api_token = 'PTsecret';
-- from here on a valid setting leads to a closed port
SET sw_guest_token.max_retries = 0;
SET sw_guest_token.timeout = '10s';
-- space_name: one DNS label
SELECT value, pg_temp.judge('space_name', value)
FROM unnest(ARRAY['two.labels', 'example.signalwire.com.', '.signalwire.com',
				  '-example', 'example-', 'exa mple', 'a/b', 'a@b', 'a:1',
				  'https://example.signalwire.com', 'example.signalwire.com/', 'example.com',
				  repeat('a', 64), E'a\r\nb']) value;
-- project_id: goes before the colon of the credentials
SELECT pg_temp.judge('project_id', 'a:b'), pg_temp.judge('project_id', E'a\nb');
SELECT pg_temp.judge('api_token', E'PT\r\nX-Header: value'), pg_temp.judge('api_token', 'PT secret');
-- base_url
SET sw_guest_token.base_url = 'http://127.0.0.1:1';
SELECT value, pg_temp.judge('base_url', value)
FROM unnest(ARRAY['example.com', 'ftp://127.0.0.1', 'file:///etc/passwd', 'https://', 'https:///path',
				  'https://?query', 'https://user@127.0.0.1:1', 'https://user:password@127.0.0.1:1',
				  'https://@127.0.0.1:1', 'https://127.0.0.1:1?query', 'https://127.0.0.1:1/?',
				  'https://127.0.0.1:1/#fragment', 'https://127.0.0.1:1/ ', ' https://127.0.0.1:1',
				  E'https://127.0.0.1:1/\r\nHost: other', E'https://127.0.0.1:1/\x7f',
				  'https://127.0.0.1:99999', 'https://127.0.0.1:0', 'https://127.0.0.1:x',
				  'https://[fe80::1%25lo]:1', 'https://[fe80::1%lo]:1',
				  'http://example.com', 'http://128.0.0.1', 'http://127.0.0.1.example.com',
				  'http://localhost.example.com', 'http://[::2]', 'http://2130706434000',
				  'http://127.0.0.1\@example.com', 'http://0.0.0.0', 'http:/127.0.0.1:1?q=://x',
				  'http:/user:password@127.0.0.1:1/x://y']) value;
SELECT value, pg_temp.judge('base_url', value)
FROM unnest(ARRAY['http://127.0.0.1:1/', 'HTTP://127.0.0.1:1', 'http://LOCALHOST:1', 'http://[::1]:1',
				  'http://127.1:1', 'http://0x7f000001:1', 'http://2130706433:1',
				  'http://127.255.255.255:1/prefix/', 'https://127.0.0.1:1/prefix//']) value;
-- ca_file
SELECT pg_temp.judge('ca_file', '/no/such/file'), pg_temp.judge('ca_file', '/');
-- api_token_file: it wins over api_token, and its path is not shown
SELECT pg_temp.judge('api_token_file', '/no/such/file');
SELECT pg_temp.judge('api_token_file', '/');
SELECT pg_temp.judge('api_token_file', '/dev/null');
SELECT pg_temp.judge('api_token_file', '/etc/passwd');
-- proxy: kinds that libcurl does not know, and for http remote hosts
SELECT value, pg_temp.judge('proxy', value)
FROM unnest(ARRAY['ftp://user:hunter2@127.0.0.1:1', 'what://127.0.0.1:1', 'http://', E'http://127.0.0.1\r\n:1',
				  'http://user:hunter2@192.0.2.1:1', '192.0.2.1:1', 'http:/user:hunter2@127.0.0.1:1/://x',
				  'http://us%0aer:hunter2@127.0.0.1:1', 'http://user:hunter%002@127.0.0.1:1', 'http://127.0.0.1:1/path']) value;
SELECT value, pg_temp.judge('proxy', value)
FROM unnest(ARRAY['http://127.0.0.1:1', '127.0.0.1:1', 'http://user:password@localhost:1',
				  'socks5h://127.0.0.1:1', 'socks4://127.0.0.1:1', 'https://127.0.0.1:1']) value;
-- a secret may not go where every role can read it
CREATE ROLE regress_sw_guest_token;
ALTER ROLE regress_sw_guest_token SET sw_guest_token.api_token = 'PTsecret';
\echo :LAST_ERROR_SQLSTATE
ALTER DATABASE :"DBNAME" SET sw_guest_token.api_token = 'PTsecret';
\echo :LAST_ERROR_SQLSTATE
ALTER ROLE regress_sw_guest_token IN DATABASE :"DBNAME" SET sw_guest_token.api_token = 'PTsecret';
\echo :LAST_ERROR_SQLSTATE
CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql SET sw_guest_token.api_token = 'PTsecret' AS '';
\echo :LAST_ERROR_SQLSTATE
CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql SET sw_guest_token.api_token FROM CURRENT AS '';
\echo :LAST_ERROR_SQLSTATE
CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS '';
ALTER FUNCTION pg_temp.f() SET sw_guest_token.api_token = 'PTsecret';
\echo :LAST_ERROR_SQLSTATE
ALTER ROLE regress_sw_guest_token SET sw_guest_token.proxy = 'http://user:hunter2@127.0.0.1:1';
\echo :LAST_ERROR_SQLSTATE
ALTER ROLE regress_sw_guest_token SET sw_guest_token.proxy = 'user:hunter2@127.0.0.1:1';
\echo :LAST_ERROR_SQLSTATE
ALTER ROLE regress_sw_guest_token SET sw_guest_token.proxy = 'http:/user:hunter2@127.0.0.1:1/://x';
\echo :LAST_ERROR_SQLSTATE
ALTER ROLE ALL SET sw_guest_token.api_token = 'PTsecret';
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM pg_db_role_setting WHERE setconfig::text ~ 'PTsecret|hunter2';
-- anything that is not a secret may
ALTER ROLE regress_sw_guest_token SET sw_guest_token.api_token = '';
ALTER ROLE regress_sw_guest_token SET sw_guest_token.api_token_file = '/some/file';
ALTER ROLE regress_sw_guest_token SET sw_guest_token.proxy = 'http://127.0.0.1:1';
ALTER ROLE regress_sw_guest_token SET sw_guest_token.space_name = 'example';
ALTER ROLE regress_sw_guest_token SET sw_guest_token.timeout = '3s';
DROP ROLE regress_sw_guest_token;
